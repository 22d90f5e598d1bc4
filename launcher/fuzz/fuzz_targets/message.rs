//! What comes out of a frame: it means something that makes the same frame, or nothing.
#![no_main]

use jcs_launch::agent::message::{FromAgent, ToAgent};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(message) = ToAgent::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
    match FromAgent::decode(bytes) {
        // Text that is not UTF-8 is mended.
        None | Some(FromAgent::Refused(_)) => {}
        Some(message) => assert_eq!(message.encode(), bytes),
    }
});
