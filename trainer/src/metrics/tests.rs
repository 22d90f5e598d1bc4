//! The whole way from records to the result, against numbers of an independent program.
//!
//! numpy 2.4.6, scikit-learn 1.9.1; `report(240, 8)` and `report(60, 8, False)` print the constants below:
//!
//! ```text
//! import struct
//! import numpy as np
//! from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score, roc_auc_score
//!
//! def u(i, k):
//!     return ((i * 7919 + k * 104729 + 17) * 2654435761 % 2**32) >> 16
//!
//! def row(i):
//!     p = u(i, 1) % 12
//!     label = p % 2 == 0 and u(i, 2) % 4 != 0
//!     prob = (u(i, 3) % 90 + 10 * label) / 100
//!     pred, actual = u(i, 4) % 500, u(i, 5) % 500
//!     both = min(pred, actual) * (u(i, 6) % 100) // 100
//!     seg = None if i % 5 == 0 else (both, pred, actual, u(i, 7) / 65536, u(i, 8) / 65536)
//!     return dict(i=i, p=None if i % 41 == 0 else p, l=None if i % 7 == 3 else label, q=prob, s=seg)
//!
//! def chacha8(key):
//!     n = 0
//!     while True:
//!         s = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key)) + [n % 2**32, n >> 32, 0, 0]
//!         x, n = s[:], n + 1
//!         for r in range(8):
//!             for c in range(4):
//!                 a, b, c_, d = (c, 4 + (c + r % 2) % 4, 8 + (c + r % 2 * 2) % 4, 12 + (c + r % 2 * 3) % 4)
//!                 for y, z, w, by in ((a, b, d, 16), (c_, d, b, 12), (a, b, d, 8), (c_, d, b, 7)):
//!                     x[y] = (x[y] + x[z]) % 2**32
//!                     x[w] ^= x[y]
//!                     x[w] = (x[w] << by | x[w] >> 32 - by) % 2**32
//!         words = [(v + o) % 2**32 for v, o in zip(x, s)]
//!         yield from (words[i] | words[i + 1] << 32 for i in range(0, 16, 2))
//!
//! def rates(l, call, score):
//!     both = len(set(l)) == 2
//!     return dict(sensitivity=recall_score(l, call) if 1 in l else None,
//!                 specificity=recall_score(l, call, pos_label=0) if 0 in l else None,
//!                 precision=precision_score(l, call) if any(call) else None,
//!                 accuracy=accuracy_score(l, call) if len(l) else None,
//!                 auroc=roc_auc_score(l, score) if both else None)
//!
//! def metrics(units, rule):
//!     rows = [r for u in units for r in u]
//!     s = np.array([r["s"] for r in rows if r["s"]], float)
//!     d = lambda s: 2 * s[:, 0].sum() / (s[:, 1] + s[:, 2]).sum()
//!     j = lambda s: s[:, 0].sum() / (s[:, 1] + s[:, 2] - s[:, 0]).sum()
//!     known = [u for u in units if u[0]["p"] is not None]
//!     out = dict(dice=d(s), dice_mean=np.mean([d(x[None]) for x in s]), iou=s[:, 3].mean(), mae=s[:, 4].mean(),
//!                iou_pooled=j(s), iou_mean=np.mean([j(x[None]) for x in s]))
//!     if known:
//!         out["dice_patient_mean"] = np.mean([d(np.array([r["s"] for r in u if r["s"]], float)) for u in known])
//!     c = [r for r in rows if r["l"] is not None]
//!     l, q = [int(r["l"]) for r in c], np.array([r["q"] for r in c])
//!     out |= rates(l, (q >= .5).astype(int), q)
//!     count = [sum(r["q"] >= .5 for r in u) for u in known]
//!     pl = [int(any(r["l"] for r in u)) for u in known]
//!     if known:
//!         out |= {"patients." + k: v for k, v in rates(pl, [int(n > rule) for n in count], count).items()}
//!     return out, l, q, pl, count
//!
//! def report(n, rule, patients=True):
//!     rows = [row(i) for i in range(n)]
//!     if not patients:
//!         for r in rows: r["p"] = None
//!     key = lambda r: (r["p"] is None, r["i"] if r["p"] is None else r["p"])
//!     units = [[r for r in rows if key(r) == k] for k in sorted(set(map(key, rows)))]
//!     point, l, q, pl, count = metrics(units, rule)
//!     print(confusion_matrix(l, q >= .5).ravel(), "tn fp fn tp")
//!     if pl: print(confusion_matrix(pl, [c > rule for c in count]).ravel(), pl, count, [len(u) for u in units])
//!     draw = chacha8(b"resample" + struct.pack("<Q", 5) + bytes(16))
//!     dist = {}
//!     for _ in range(200):
//!         for k, v in metrics([units[next(draw) * len(units) >> 64] for _ in units], rule)[0].items():
//!             if v is not None: dist.setdefault(k, []).append(v)
//!     for k, v in point.items():
//!         x = dist.get(k, [])
//!         print(f'("{k}", {v!r}, [{", ".join(map(repr, map(float, np.percentile(x, [2.5, 97.5]))))}]),  {len(x)}')
//! ```

use super::*;
use serde_json::{Value, json};

/// The hash `u` of the program.
fn u(i: u64, k: u64) -> u64 {
    ((i * 7919 + k * 104_729 + 17) * 2_654_435_761 % (1 << 32)) >> 16
}

/// `row` of the program.
fn record(i: u64) -> Record {
    let patient = u(i, 1) % 12;
    let label = patient.is_multiple_of(2) && !u(i, 2).is_multiple_of(4);
    let (predicted, actual) = (u(i, 4) % 500, u(i, 5) % 500);
    let score = SampleScore {
        index: i,
        both: (predicted.min(actual) * (u(i, 6) % 100) / 100) as f64,
        predicted: predicted as f64,
        actual: actual as f64,
        iou: u(i, 7) as f64 / 65536.0,
        mae: u(i, 8) as f64 / 65536.0,
    };
    Record {
        index: i,
        patient: (!i.is_multiple_of(41)).then_some(patient),
        segmentation: (!i.is_multiple_of(5)).then_some(score),
        label: (i % 7 != 3).then_some(label),
        probability: Some((u(i, 3) % 90 + 10 * u64::from(label)) as f64 / 100.0),
    }
}

fn records(n: u64) -> Vec<Record> {
    (0..n).map(record).collect()
}

fn without_patients(n: u64) -> Vec<Record> {
    (0..n).map(|i| Record { patient: None, ..record(i) }).collect()
}

const SETTINGS: Settings = Settings { threshold: 0.5, patient_slices: 8, resamples: 200, seed: 5 };

fn to_json(evaluation: &Evaluation) -> Value {
    serde_json::to_value(evaluation).unwrap()
}

#[track_caller]
fn near(value: &Value, expected: f64, what: &str) {
    let value = value.as_f64().unwrap_or(f64::NAN);
    assert!((value - expected).abs() < 1e-12, "{what}: {value} is not {expected}");
}

/// Every metric and interval of `expected`, by path, and no other interval.
#[track_caller]
fn compare(result: &Value, expected: &[(&str, f64, [f64; 2])]) {
    for (path, value, [low, high]) in expected {
        near(result.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null), *value, path);
        near(&result["intervals"][path][0], *low, path);
        near(&result["intervals"][path][1], *high, path);
    }
    assert_eq!(result["intervals"].as_object().map(|o| o.len()), Some(expected.len()));
}

#[test]
fn by_slice_and_by_patient_as_numpy_and_scikit_learn() {
    let result = to_json(&summarize(records(240), &SETTINGS));
    let expected = [
        ("dice", 0.2741125216267484, [0.22128730992880571, 0.32556618692238476]),
        ("dice_mean", 0.24784004360154607, [0.1941599406391545, 0.3016375721625243]),
        ("iou_pooled", 0.15882409778250156, [0.12440871385190504, 0.194434048273484]),
        ("iou_mean", 0.15687472635775637, [0.12084531168051094, 0.192702174950147]),
        ("iou", 0.5018650690714518, [0.4668099300109129, 0.5353392605939239]),
        ("mae", 0.4947240352630615, [0.45537774646192974, 0.5334326304149333]),
        ("dice_patient_mean", 0.26926962355222134, [0.22810014467610779, 0.32101650070091853]),
        ("sensitivity", 0.5365853658536586, [0.4284503631961259, 0.6668918918918919]),
        ("specificity", 0.5161290322580645, [0.46292735042735045, 0.5811144936144935]),
        ("precision", 0.4230769230769231, [0.15852496310870634, 0.6600816326530613]),
        ("accuracy", 0.5242718446601942, [0.46816955684007705, 0.5739025203148806]),
        ("auroc", 0.5856608969315499, [0.5315413752913754, 0.6536810295707136]),
        ("patients.sensitivity", 0.8333333333333334, [0.4982142857142858, 1.0]),
        ("patients.specificity", 0.3333333333333333, [0.0, 0.6687500000000004]),
        ("patients.precision", 0.5555555555555556, [0.14285714285714285, 0.8888888888888888]),
        ("patients.accuracy", 0.5833333333333334, [0.3075, 0.9]),
        ("patients.auroc", 0.625, [0.27690476190476193, 0.9767857142857145]),
    ];
    compare(&result, &expected);
    let counts = |v: &Value| ["tn", "fp", "fn", "tp"].map(|name| v[name].as_u64().unwrap());
    assert_eq!(counts(&result), [64, 60, 38, 44]);
    assert_eq!(counts(&result["patients"]), [2, 4, 1, 5]);
    assert_eq!((&result["samples"], &result["masks"]), (&json!(240), &json!(192)));
    assert_eq!(result["patients"]["count"], 12);
    assert_eq!(result["patients"]["samples_without_patient"], 6);
    assert_eq!(result["patients"]["too_few_slices"], 0);
    assert_eq!(result["resampled"], "patients");
}

#[test]
fn slices_are_drawn_where_no_patient_is_known() {
    let result = to_json(&summarize(without_patients(60), &SETTINGS));
    let expected = [
        ("dice", 0.2854936389871154, [0.2119715595098497, 0.34101005653011524]),
        ("dice_mean", 0.2505139374928944, [0.18236016011082193, 0.30798266180509054]),
        ("iou_pooled", 0.16651652363567399, [0.11855052657982156, 0.20555282258100122]),
        ("iou_mean", 0.16162529334898748, [0.11105727431731408, 0.20417351708253526]),
        ("iou", 0.5147778193155924, [0.43625104331970216, 0.6028575880425413]),
        ("mae", 0.49201234181722003, [0.41491796596377506, 0.5738171480139908]),
        ("sensitivity", 0.45, [0.22714646464646465, 0.6923913043478261]),
        ("specificity", 0.6129032258064516, [0.4481800766283525, 0.7650326797385621]),
        ("precision", 0.42857142857142855, [0.2349673202614379, 0.6335000000000001]),
        ("accuracy", 0.5490196078431373, [0.4129214729370009, 0.667]),
        ("auroc", 0.557258064516129, [0.38274344715956554, 0.7009883065652297]),
    ];
    compare(&result, &expected);
    assert_eq!(result["resampled"], "slices");
    assert_eq!(result.get("patients"), None);
}

#[test]
fn neither_order_nor_repetition_of_records_matters() {
    let straight = summarize(records(240), &SETTINGS);
    let mut shuffled = [records(240), records(17)].concat();
    shuffled.sort_by_key(|r| u(r.index, 9));
    assert_eq!(summarize(shuffled, &SETTINGS), straight);
    let dealt = (0..3).flat_map(|rank| (rank..240).step_by(3)).map(|i| Record::from_wire(record(i).to_wire()));
    assert_eq!(summarize(dealt.collect(), &SETTINGS), straight);
}

#[test]
fn the_seed_decides_the_intervals_and_nothing_else() {
    let at = |seed| summarize(records(240), &Settings { seed, ..SETTINGS });
    assert_eq!(at(1), at(1));
    assert_ne!(at(1).intervals, at(2).intervals);
    assert_eq!(Evaluation { intervals: at(2).intervals, ..at(1) }, at(2));
}

#[test]
fn metrics_of_the_lesion_maps_are_those_of_the_pool() {
    let pooled = pool(records(240).iter().filter_map(|r| r.segmentation).collect());
    let segmentation = summarize(records(240), &SETTINGS).segmentation.unwrap();
    assert_eq!(segmentation.dice, Some(pooled.dice));
    assert_eq!(segmentation.dice_mean, Some(pooled.dice_mean));
    assert_eq!((segmentation.iou, segmentation.mae), (Some(pooled.iou), Some(pooled.mae)));
}

#[test]
fn nothing_leaves_nothing() {
    assert_eq!(to_json(&summarize(Vec::new(), &SETTINGS)), json!({ "samples": 0 }));
}

#[test]
fn what_a_network_does_not_do_is_absent() {
    let segments = records(60).into_iter().map(|r| Record { label: None, probability: None, ..r }).collect();
    let result = to_json(&summarize(segments, &SETTINGS));
    assert_eq!(result.get("sensitivity"), None);
    assert_eq!(result["patients"], json!({ "count": 12, "samples_without_patient": 2 }));
    let classifies = records(60).into_iter().map(|r| Record { segmentation: None, ..r }).collect();
    let result = to_json(&summarize(classifies, &SETTINGS));
    assert_eq!((result.get("dice"), result.get("masks")), (None, None));
    assert_eq!(result["intervals"].get("dice"), None);
}

#[test]
fn one_class_has_neither_area_nor_the_other_rate() {
    let healthy = records(240).into_iter().filter(|r| r.label == Some(false) && r.patient.is_none_or(|p| p % 2 == 1));
    let result = to_json(&summarize(healthy.collect(), &SETTINGS));
    for part in [&result, &result["patients"], &result["intervals"]] {
        assert_eq!((part.get("auroc"), part.get("sensitivity")), (None, None));
        assert!(part.get("specificity").is_some());
    }
    assert_eq!(result["patients"]["curve"][0].get("sensitivity"), None);
    assert_eq!(result["intervals"].get("patients.auroc"), None);
}

#[test]
fn one_patient_has_no_interval() {
    let one = records(240).into_iter().filter(|r| r.patient == Some(4)).collect();
    let result = summarize(one, &SETTINGS);
    assert_eq!((result.intervals.len(), result.resampled), (0, None));
    assert_eq!(result.patients.unwrap().count, 1);
}

/// Two patients of a hundred have a label, one each: both are drawn in 1 - 2 · 0.99^100 + 0.98^100 = 40 % of the resamples,
/// the positive one in 63 %.
#[test]
fn a_metric_that_most_resamples_cannot_give_has_no_interval() {
    let record = |index: u64, label| Record {
        index,
        patient: Some(index),
        segmentation: None,
        label: Some(label),
        probability: Some(0.9),
    };
    let unlabelled = (2..100).map(|i| Record { label: None, ..record(i, false) });
    let all = [record(0, true), record(1, false)].into_iter().chain(unlabelled).collect();
    let result = summarize(all, &SETTINGS);
    assert_eq!(result.classification.unwrap().auroc, Some(0.5));
    assert_eq!(result.intervals.get("auroc"), None);
    assert_eq!(result.intervals.get("sensitivity"), Some(&[1.0, 1.0]));
}

#[test]
fn patients_that_the_rule_can_never_reach_are_told() {
    let settings = Settings { patient_slices: 18, ..SETTINGS };
    let diagnosis = summarize(records(240), &settings).patients.and_then(|p| p.diagnosis).unwrap();
    // Of 14, 14 and 17 slices.
    assert_eq!(diagnosis.too_few_slices, 3);
    assert_eq!(
        diagnosis.note().unwrap(),
        "3 of 12 patients have fewer than the 19 slices that the rule needs to call a patient positive"
    );
    let at = |patient_slices| {
        let result = summarize(records(240), &Settings { patient_slices, ..SETTINGS });
        let diagnosis = result.patients.and_then(|p| p.diagnosis).unwrap();
        (diagnosis.too_few_slices, diagnosis.note().is_some())
    };
    assert_eq!((at(14), at(13)), ((2, true), (0, false)));
}

#[test]
fn a_probability_on_the_threshold_is_positive() {
    let at = |probability| Record { label: Some(true), probability: Some(probability), ..record(0) };
    let tp = |p| summarize(vec![at(p)], &SETTINGS).classification.unwrap().counts.tp;
    assert_eq!((tp(0.5), tp(0.499_999)), (1, 0));
}

#[test]
fn a_network_that_diverged_yields_no_nan() {
    let mut broken = records(240);
    broken[1].probability = Some(f64::NAN);
    broken[2].segmentation.as_mut().unwrap().mae = f64::NAN;
    let result = to_json(&summarize(broken, &SETTINGS));
    assert_eq!(result["not_a_number"], 1);
    assert_eq!((result.get("auroc"), result.get("mae")), (None, None));
    assert_eq!((result["intervals"].get("auroc"), result["intervals"].get("mae")), (None, None));
    assert!(result.get("accuracy").is_some() && result.get("iou").is_some());
    assert!(!result.to_string().contains("null"));
}
