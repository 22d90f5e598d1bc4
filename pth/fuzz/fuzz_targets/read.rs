//! Whole files; what is read must survive being written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match pth::from_bytes(bytes) {
        Ok(tensors) => {
            assert!(tensors.iter().map(|tensor| tensor.data.len()).sum::<usize>() <= pth::tensor_limit(bytes.len()));
            let mut file = Vec::new();
            pth::to_writer(&mut file, &tensors).expect("what was read can be written");
            let again = pth::from_bytes(&file).expect("what was written can be read");
            assert!(again.iter().map(|tensor| &tensor.data).eq(tensors.iter().map(|tensor| &tensor.data)));
        }
        Err(error) => assert!(!error.to_string().contains(['\n', '\r'])),
    }
});
