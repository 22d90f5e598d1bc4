//! Whole data sets from a server.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use data_shards::augment::Augment;
use data_shards::remote::{Location, RemoteSet, RemoteShards};
use data_shards::shard;
use data_shards::{Dataset, Error, Loader, LoaderSettings, Request};

use super::server::{Server, Trick};
use super::{files, settings, until};
use crate::shard_sets::{images, record, set};

/// A server with the files of a folder.
fn serve(folder: &Path) -> Server {
    let file = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    Server::new(fs::read_dir(folder).unwrap().flatten().map(file))
}

fn open(server: &Server, cache: &Path) -> Result<Dataset, Error> {
    let (index, shards) = RemoteShards::open(&Location::parse(&server.url()).unwrap(), settings(cache, None))?;
    Dataset::of_shards(index, Arc::new(shards), None, crate::plain(5, 9))
}

fn of_shards(server: &Server) -> usize {
    server.state.seen.lock().unwrap().iter().filter(|seen| seen.path.ends_with(".tar")).count()
}

#[test]
fn a_remote_set_loads_as_a_local_one_does() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    images(folder.path(), 13);
    let server = serve(folder.path());
    let local = Dataset::open(&crate::of(folder.path()), crate::plain(5, 9)).unwrap();
    let remote = Arc::new(open(&server, cache.path()).unwrap());
    assert_eq!(of_shards(&server), 0, "shards are fetched when they are needed");
    assert_eq!((local.len(), local.fingerprint()), (remote.len(), remote.fingerprint()));
    let order = remote.epoch_order(1, 0, true);
    assert_eq!(order, local.epoch_order(1, 0, true));
    let requests = order.into_iter().map(|index| Request { index, epoch: 0 }).collect::<Vec<_>>();
    let settings = LoaderSettings { seed: 3, augment: Augment::OFFICIAL, workers: 3, queue: 4 };
    for (sample, request) in Loader::new(Arc::clone(&remote), requests.clone().into_iter(), settings).zip(&requests) {
        assert_eq!(sample.unwrap(), local.load(request.index as usize, 0, 3, &Augment::OFFICIAL).unwrap());
    }
    assert_eq!(of_shards(&server), 3);
}

#[test]
fn the_next_shards_are_fetched_ahead() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    set(folder.path(), None, &(0..12).map(record).collect::<Vec<_>>(), 1);
    let server = serve(folder.path());
    let dataset = open(&server, cache.path()).unwrap();
    let order = dataset.epoch_order(0, 0, false);
    dataset.load(order[0] as usize, 0, 0, &Augment::NONE).unwrap();
    let there = || files(cache.path()).iter().filter(|(name, _)| name.starts_with("data-")).count();
    until("a block more is there", || there() == 9);
    for index in order {
        dataset.load(index as usize, 0, 0, &Augment::NONE).unwrap();
    }
    assert_eq!(of_shards(&server), 12);
}

#[test]
fn a_shard_that_decayed_in_the_cache_is_fetched_again() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    images(folder.path(), 13);
    let server = serve(folder.path());
    let dataset = open(&server, cache.path()).unwrap();
    let good = dataset.load(0, 0, 0, &Augment::NONE).unwrap();
    let folders = fs::read_dir(cache.path().join("shards-1")).unwrap().flatten().map(|entry| entry.path());
    let entries = folders.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap().flatten());
    let kept = entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("data-000000")).unwrap();
    let changed = fs::metadata(&kept).unwrap().modified().unwrap();
    let mut bytes = fs::read(&kept).unwrap();
    let image = bytes.windows(4).position(|window| window == b"IDAT").unwrap();
    bytes[image + 6] ^= 1;
    fs::write(&kept, bytes).unwrap();
    fs::File::options().write(true).open(&kept).unwrap().set_modified(changed).unwrap();
    assert_eq!(dataset.load(0, 0, 0, &Augment::NONE).unwrap(), good);
    assert_eq!(of_shards(&server), 2);
}

#[test]
fn what_is_wrong_with_a_set_is_named() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    images(folder.path(), 13);
    let server = serve(folder.path());
    let dataset = open(&server, cache.path()).unwrap();
    *server.state.stubborn.lock().unwrap() = Some(Trick::Flip);
    let error = dataset.load(0, 0, 0, &Augment::NONE).unwrap_err().to_string();
    assert!(error.contains("/set/data-000000.tar: its SHA-256 is "), "{error}");
    *server.state.stubborn.lock().unwrap() = None;
    let index = server.state.files.lock().unwrap().remove("index.json").unwrap();
    let error = open(&server, cache.path()).unwrap_err().to_string();
    assert!(error.contains("/set/index.json: there is no such file"), "{error}");
    let index = String::from_utf8(index).unwrap().replace("\"version\": 1", "\"version\": 99");
    server.state.files.lock().unwrap().insert("index.json".to_owned(), index.into_bytes());
    let error = open(&server, cache.path()).unwrap_err().to_string();
    assert!(error.contains("/set/index.json: version 99"), "{error}");
}

#[test]
fn an_index_that_was_changed_on_the_way_is_not_kept() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    images(folder.path(), 13);
    let server = serve(folder.path());
    server.trick([Trick::Flip]);
    assert_eq!(open(&server, cache.path()).unwrap().len(), 13);
    let statuses = || server.requests("index.json").iter().map(|seen| seen.status).collect::<Vec<_>>();
    assert_eq!(statuses(), [200, 200]);
    assert_eq!(open(&server, cache.path()).unwrap().len(), 13);
    assert_eq!(statuses(), [200, 200, 304]);
}

#[test]
fn collections_are_found() {
    let cache = tempfile::tempdir().unwrap();
    let index = br#"{"format":"jcs-shards","version":1,"splits":["train","val"]}"#;
    let server = Server::new([("index.json".to_owned(), index.to_vec())]);
    let location = Location::parse(&server.url()).unwrap();
    let settings = || settings(cache.path(), None);
    let sets = RemoteSet::list(&location, settings()).unwrap();
    assert_eq!(sets[1], RemoteSet { split: Some("val".to_owned()), location: location.join("val").unwrap() });
    assert_eq!(RemoteSet::find(&location, &["val"], settings()).unwrap(), sets[1].location);
    for error in
        [RemoteSet::find(&location, &["test"], settings()).unwrap_err(), open(&server, cache.path()).unwrap_err()]
    {
        assert!(matches!(&error, Error::Shard(shard::Error::Splits { .. })), "{error}");
        assert!(
            error.to_string().contains(&format!("{}: a collection of the splits train, val", server.url())),
            "{error}"
        );
    }
}
