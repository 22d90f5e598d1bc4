//! Any bytes as a MATLAB file: an answer or an error, and arrays that hold what their shapes say.
//!
//! `python3 seeds.py corpus/mat` (with scipy), then `cargo +nightly fuzz run mat -- -rss_limit_mb=2048`.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use data_shards::mat;
use libfuzzer_sys::fuzz_target;

/// Each is read alone, too, so that what one of them is stopped by does not hide the other.
const WANTED: &[&[&str]] = &[&[], &["vgg_feats"], &["res2net_feats"], &["vgg_feats", "res2net_feats"]];

fuzz_target!(|bytes: &[u8]| {
    for wanted in WANTED {
        match mat::read_from(Cursor::new(bytes), Path::new("fuzz.mat"), wanted) {
            Ok(arrays) => {
                assert!(arrays.iter().map(|array| array.name.as_str()).eq(wanted.iter().copied()));
                assert!(arrays.iter().all(|array| array.shape.iter().product::<usize>() == array.values.len()));
            }
            Err(error) => assert!(error.to_string().contains("fuzz.mat")),
        }
    }
});
