//! Pickles alone.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match pth::fuzz_pickle(bytes) {
        Ok(end) => assert!(end <= bytes.len()),
        Err(error) => assert!(!error.to_string().contains(['\n', '\r'])),
    }
});
