//! A data set of shards loads as the same samples do from a list.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_shards::augment::Augment;
use data_shards::features::Wanted;
use data_shards::shard::{self, Index, LocalShards, Record, ShardReader, Shards};
use data_shards::{Dataset, Error, Fit, Fold, Geometry, Loader, LoaderSettings, Part, Request, Source};

use crate::shard_sets::{collection, featured, images, record, set};

const WILD: Augment = Augment { flip_horizontal: 0.5, brightness: 0.1, contrast: 0.1, crop: 0.2, ..Augment::OFFICIAL };

#[test]
fn shards_load_as_a_list_does() {
    let (packed, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    images(packed.path(), 13);
    let mut table = "file,label,patient_id,mask\n".to_owned();
    for at in 0..13 {
        let Record { key, image, mask, label, patient, .. } = record(at);
        fs::write(plain.path().join(format!("{key}.png")), image.unwrap()).unwrap();
        let mask_name = mask.as_ref().map(|_| format!("{key}.mask.png")).unwrap_or_default();
        mask.iter().for_each(|mask| fs::write(plain.path().join(&mask_name), mask).unwrap());
        let label = label.map(|label| u8::from(label).to_string()).unwrap_or_default();
        let patient = patient.map(|id| id.replace('"', "\"\"")).unwrap_or_default();
        table += &format!("{key}.png,{label},\"{patient}\",{mask_name}\n");
    }
    fs::write(plain.path().join("list.csv"), table).unwrap();
    for geometry in [crate::plain(5, 9), Geometry { fit: Fit::CentreCrop, ..crate::plain(4, 4) }] {
        let list = Dataset::open(&crate::of(&plain.path().join("list.csv")), geometry).unwrap();
        let mut shards = Dataset::open(&crate::of(packed.path()), geometry).unwrap();
        assert_eq!((list.len(), list.patients()), (shards.len(), shards.patients()));
        shards.check_masks().unwrap();
        for at in 0..13 {
            assert_eq!((list.label_of(at), list.patient_of(at)), (shards.label_of(at), shards.patient_of(at)));
            for epoch in 0..3 {
                assert_eq!(list.load(at, epoch, 4, &WILD).unwrap(), shards.load(at, epoch, 4, &WILD).unwrap());
            }
        }
        let (of_list, of_shards) =
            (list.require_masks().unwrap_err().to_string(), shards.require_masks().unwrap_err().to_string());
        assert!(of_list.contains("has no mask, and 2 of 13 samples have none"), "{of_list}");
        assert!(
            of_shards.contains("samples.csv:6: ")
                && of_shards.contains("data-000000.tar/s004.png has no mask, and 2 of 13"),
            "{of_shards}"
        );
        let error = shards.require_labels().unwrap_err().to_string();
        assert!(error.contains("has no label, and 3 of 13 samples have none; pack again with --labels"), "{error}");
    }
}

#[test]
fn orders_are_those_of_their_layout() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path(), 13);
    let dataset = Dataset::open(&crate::of(folder.path()), crate::plain(5, 9)).unwrap();
    assert_eq!(
        dataset.epoch_order(3, 1, true),
        shard::blocks::epoch_order(&[5, 5, 3], 3, 1, true, shard::blocks::BLOCK)
    );
    let list = Dataset::open(&crate::of(&crate::small_set(folder.path(), 7)), crate::plain(5, 9)).unwrap();
    assert_eq!(list.epoch_order(3, 1, true), data_shards::order::epoch_order(7, 3, 1, true));
}

#[test]
fn features_come_from_npy() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), None, &(0..6).map(featured).collect::<Vec<_>>(), 4);
    let fit = |channels, vgg, res2net| Geometry {
        fit: Fit::Features(Wanted { vgg, res2net, channels }),
        ..crate::plain(16, 16)
    };
    let open = |geometry| Dataset::open(&crate::of(folder.path()), geometry);
    let sample = open(fit(4, true, true)).unwrap().load(5, 0, 0, &Augment::NONE).unwrap();
    let features = sample.features.unwrap();
    let (vgg, res2net) = (features.vgg.unwrap(), features.res2net.unwrap());
    assert_eq!((vgg.channels, vgg.height, vgg.width), (4, 16, 16));
    assert_eq!((res2net.channels, res2net.height, res2net.width), (4, 8, 8));
    assert_eq!((vgg.values[0], vgg.values[7]), (5.0 / 20.0, 12.0 / 20.0));
    assert_eq!((sample.mask.len(), sample.has_mask, sample.source_size), (256, true, (16, 16)));
    let only = open(fit(4, false, true)).unwrap().load(0, 0, 0, &Augment::NONE).unwrap();
    assert!(only.features.unwrap().vgg.is_none());
    let error = open(fit(8, true, true)).unwrap().load(0, 0, 0, &Augment::NONE).unwrap_err().to_string();
    assert!(error.contains("s000.vgg.npy: variable `vgg_feats` is [1, 4, 16, 16]; expected [1, 8,"), "{error}");
    let error = open(crate::plain(5, 9)).unwrap_err().to_string();
    assert!(error.contains("samples.csv:2: ") && error.contains("s000.vgg.npy has no png, and 6 of 6"), "{error}");
}

#[test]
fn folds_divide_the_patients_of_shards() {
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<Record> =
        (0..20).map(|at| Record { patient: Some(format!("p{}", at / 2)), ..record(at) }).collect();
    set(folder.path(), None, &records, 3);
    let part = |number, held_out| {
        let part = Some(Part { fold: Fold { number, of: 3 }, held_out });
        Dataset::open(&Source { part, ..crate::of(folder.path()) }, crate::plain(5, 9)).unwrap()
    };
    let whole = Dataset::open(&crate::of(folder.path()), crate::plain(5, 9)).unwrap();
    let mut seen = BTreeSet::new();
    for number in 1..=3 {
        let (out, kept) = (part(number, true), part(number, false));
        assert_eq!(out.len() + kept.len(), 20);
        assert_eq!((out.len(), kept.len()), (2 * out.patients().len(), 2 * kept.patients().len()));
        assert!(out.fingerprint() != kept.fingerprint() && out.fingerprint() != whole.fingerprint());
        let mut order = out.epoch_order(0, 0, true);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..out.len() as u32));
        for at in 0..out.len() {
            let entry = out.entry(at);
            let same = (0..20).find(|other| whole.entry(*other) == entry).unwrap();
            let (sample, other) =
                (out.load(at, 0, 0, &Augment::NONE).unwrap(), whole.load(same, 0, 0, &Augment::NONE).unwrap());
            assert_eq!((sample.image, sample.mask, sample.label), (other.image, other.mask, other.label));
            assert!(seen.insert(same));
        }
        assert!(matches!(out.load(out.len(), 0, 0, &Augment::NONE), Err(Error::Index { .. })));
    }
    assert_eq!(seen.len(), 20);
    let nobody = tempfile::tempdir().unwrap();
    images(nobody.path(), 8);
    let part = Some(Part { fold: Fold { number: 1, of: 2 }, held_out: true });
    let error =
        Dataset::open(&Source { part, ..crate::of(nobody.path()) }, crate::plain(5, 9)).unwrap_err().to_string();
    assert!(
        error.contains("s006.png has no patient, and 1 of 8 samples have none; pack again with --labels"),
        "{error}"
    );
}

#[test]
fn a_damaged_sample_is_an_error_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let index = images(folder.path(), 7);
    let dataset = Arc::new(Dataset::open(&crate::of(folder.path()), crate::plain(5, 9)).unwrap());
    let path = folder.path().join("data-000000.tar");
    let mut bytes = fs::read(&path).unwrap();
    bytes[index.members(2).next().unwrap().offset as usize + 40] ^= 4;
    fs::write(&path, bytes).unwrap();
    let asked = (0..7).map(|index| Request { index, epoch: 0 });
    let settings = LoaderSettings { seed: 5, augment: Augment::NONE, workers: 2, queue: 4 };
    let answers: Vec<_> = Loader::new(dataset, asked, settings).collect();
    for (at, answer) in answers.iter().enumerate() {
        match answer {
            Err(Error::Shard(shard::Error::Checksum { key, member, .. })) => {
                assert_eq!((at, key.as_str(), member.as_str()), (2, "s002", "s002.png"));
            }
            Err(error) => panic!("{error}"),
            Ok(sample) => assert!(sample.index == at && at != 2),
        }
    }
}

#[test]
fn what_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let train = collection(folder.path());
    let open = |source: &Source| Dataset::open(source, crate::plain(5, 9));
    let error = open(&crate::of(folder.path())).unwrap_err().to_string();
    assert!(error.contains("a collection of the splits train, val: name the one that is meant, as in"), "{error}");
    let split = |splits| open(&Source { splits, ..crate::of(folder.path()) });
    assert_eq!((split(&["train"]).unwrap().len(), split(&["eval", "val"]).unwrap().len()), (12, 8));
    assert!(matches!(split(&["test"]), Err(Error::Shard(shard::Error::Splits { .. }))));
    let splits: &[&str] = &["val"];
    assert_eq!(open(&Source { splits, ..crate::of(&crate::small_set(&train, 2)) }).unwrap().len(), 2);
    assert_eq!(open(&Source { splits, ..crate::of(&train) }).unwrap().len(), 12, "a split that is named is meant");
    let labels = Some(folder.path().join("labels.csv"));
    assert!(matches!(open(&Source { labels, ..crate::of(&train) }), Err(Error::Shard(shard::Error::Labels { .. }))));
    fs::remove_file(train.join("train-000002.tar")).unwrap();
    assert!(matches!(open(&crate::of(&train)), Err(Error::Shard(shard::Error::ShardMissing { .. }))));
    let empty = tempfile::tempdir().unwrap();
    let error = open(&crate::of(empty.path())).unwrap_err().to_string();
    assert!(error.contains("index.json"), "{error}");
}

#[test]
fn masks_of_other_values_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mask = || Some(crate::shard_sets::png(|place| u8::from(place % 3 == 0)));
    let records: Vec<Record> = (0..4).map(|at| Record { mask: mask(), ..record(at) }).collect();
    set(folder.path(), None, &records, 5);
    let dataset = Dataset::open(&crate::of(folder.path()), crate::plain(5, 9)).unwrap();
    let error = dataset.check_masks().unwrap_err();
    assert!(matches!(&error, Error::MaskValues { values, .. } if values == "0,1"), "{error}");
    assert!(error.to_string().contains("data-000000.tar/s000.mask.png"), "{error}");
}

/// Counts how often a shard is opened.
#[derive(Debug, Default)]
struct Counted {
    opened: AtomicUsize,
    kept: usize,
}

impl Shards for Counted {
    fn open(&self, index: &Index, shard: usize) -> Result<ShardReader, Error> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        LocalShards.open(index, shard)
    }

    fn check(&self, _: &Index) -> Result<(), Error> {
        Ok(())
    }

    fn kept(&self) -> usize {
        self.kept
    }
}

#[test]
fn shards_stay_open_as_many_as_may() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path(), 13);
    for (kept, expected) in [(0, 7), (1, 5), (2, 3)] {
        let shards = Arc::new(Counted { kept, ..Counted::default() });
        let index = Index::open(folder.path()).unwrap();
        let first: Vec<usize> = (0..3).map(|shard| index.samples_of(shard).start).collect();
        let dataset =
            Dataset::of_shards(index, Arc::clone(&shards) as Arc<dyn Shards>, None, crate::plain(5, 9)).unwrap();
        // With room for two, the third takes the place of the one used longest ago.
        for shard in [0, 0, 1, 0, 0, 2, 0] {
            dataset.load(first[shard], 0, 0, &Augment::NONE).unwrap();
        }
        assert_eq!(shards.opened.load(Ordering::SeqCst), expected, "{kept} kept");
    }
}
