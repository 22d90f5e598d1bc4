//! What is written is read back, and writing says what it cannot write.

use std::io::Write;

use pth::{Dtype, Error, Tensor};

use crate::support::{bytes, tensor};

fn written(tensors: &[Tensor]) -> Vec<u8> {
    let mut out = Vec::new();
    pth::to_writer(&mut out, tensors).unwrap();
    out
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn tensor(&mut self, at: usize) -> Tensor {
        let dtype = Dtype::ALL[at % Dtype::ALL.len()];
        let shape: Vec<usize> = (0..self.below(5)).map(|_| self.below(5)).collect();
        let length = shape.iter().product::<usize>() * dtype.size();
        let data: Vec<u8> = (0..length).map(|_| self.below(256) as u8).collect();
        let name = ["layer", "Ebene ü", "", "a\nb", "module."][self.below(5)];
        tensor(&format!("{name}.{at}"), dtype, &shape, &data)
    }
}

#[test]
fn all_types_and_shapes() {
    for seed in 1..200 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let tensors: Vec<Tensor> = (0..random.below(40)).map(|at| random.tensor(at)).collect();
        let file = written(&tensors);
        let read = pth::from_bytes(&file).unwrap();
        let all = !tensors.is_empty() && tensors.iter().all(|tensor| tensor.name.starts_with("module."));
        if !all {
            assert_eq!(read, tensors, "seed {seed}");
        }
        assert_eq!(written(&tensors), file, "seed {seed}");
    }
}

#[test]
fn storages_are_aligned() {
    let tensors: Vec<Tensor> =
        (0..70u8).map(|at| bytes(&format!("t{at}"), &vec![at ^ 0xa5; usize::from(at) + 9])).collect();
    let file = written(&tensors);
    for tensor in &tensors {
        let at = file.windows(tensor.data.len()).position(|found| found == tensor.data);
        assert_eq!(at.unwrap() % 64, 0, "{}", tensor.name);
    }
}

/// A change of these bytes is a change of every file that is written: on purpose, and with a line in the changelog.
#[test]
fn the_bytes_do_not_change() {
    let scalar = tensor("n", Dtype::I64, &[], &3i64.to_le_bytes());
    let file = written(&[bytes("w", &[7; 300]), scalar, tensor("e", Dtype::Bf16, &[0, 70_000], &[])]);
    assert_eq!((file.len(), crc32fast::hash(&file)), (2042, 3_245_953_438));
}

#[test]
fn what_cannot_be_written() {
    let fails = |tensors: &[Tensor], message: &str| {
        let mut out = Vec::new();
        assert_eq!(pth::to_writer(&mut out, tensors).unwrap_err().to_string(), message);
        assert!(out.is_empty());
    };
    let cannot = "tensor `x` cannot be written: shape";
    fails(&[tensor("x", Dtype::F32, &[2], &[0; 7])], &format!("{cannot} [2] of F32 with 7 bytes of data"));
    fails(&[tensor("x", Dtype::F32, &[], &[])], &format!("{cannot} [] of F32 with 0 bytes of data"));
    let shape = [usize::MAX, usize::MAX, 0];
    fails(&[tensor("x", Dtype::U8, &shape, &[])], &format!("{cannot} {shape:?} of U8 with 0 bytes of data"));
    fails(&[bytes("x", &[1]), bytes("y", &[1]), bytes("x", &[2])], "`x` is there twice");
}

/// Takes so many bytes, then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(data.len()).ok_or_else(|| std::io::Error::other("no space"))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.0 == 0 { Err(std::io::Error::other("no space")) } else { Ok(()) }
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let tensors = [bytes("w", &[7; 300])];
    let enough = written(&tensors).len() + 1;
    assert!(pth::to_writer(Full(enough), &tensors).is_ok());
    for space in 0..enough {
        let error = pth::to_writer(Full(space), &tensors).unwrap_err();
        assert!(matches!(error, Error::Write { .. }));
        assert_eq!(error.to_string(), "cannot write the weight file: no space", "{space} of {enough}");
    }
}
