//! PyTorch's weight files (`.pth`, `.pt`) without PyTorch.
//!
//! Duty: read the tensors of a state dict, and write them so that `torch.load(weights_only=True)` takes them. Must not:
//! run anything that a file says, trust a length in it, know libtorch, or decide where a file lies.
//!
//! # What is read
//! The zip format (PyTorch 1.6 and later) and the format before it (0.1.10 to 1.5), told apart by content. The object is
//! a state dict, or a checkpoint that holds one under `state_dict`, `model`, `model_state_dict`, `net` or `network`: the
//! first of these that is a dict. What stands beside it is skipped. Where all names begin with `module.`
//! (`DataParallel`), that prefix is taken away.
//!
//! # What a file can do
//! A pickle is a program; here it can build plain data and tensors and nothing else. Any other name of a function or class
//! is refused where it is met, and nothing is looked up or called. With a file of `n` bytes, memory holds at most
//! * the file, once (`n`), and no storage is longer than its bytes in it;
//! * the tensors handed back, `4 n` + 1 MiB ([`tensor_limit`]): several may share a storage, hence more than `n`;
//! * the objects of one pickle: at most 2^20 operations, which take up to about 80 MiB;
//! * the directory of a zip archive: at most 8 MiB of it, which take up to about 100 MiB.
//!
//! Errors of [`from_bytes`] name the part of the file, not the file: that is the caller's to add.

mod archive;
mod container;
mod dtype;
mod error;
mod legacy;
mod opcode;
mod pickle;
mod rebuild;
mod select;
mod sniff;
mod tensor;
mod value;
mod write;

use std::path::Path;

pub use dtype::Dtype;
pub use error::Error;
pub use tensor::{Tensor, tensor_limit};
pub use write::to_writer;

use sniff::Format;

/// Reads the tensors of a weight file, in file order.
///
/// # Errors
/// [`Error::Read`], [`Error::NotAFile`], and those of [`from_bytes`].
pub fn read(path: &Path) -> Result<Vec<Tensor>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    // A device or a pipe has no length that could bound the memory.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    from_bytes(&std::fs::read(path).map_err(failed)?)
}

/// Reads the tensors of a weight file that is in memory, in file order.
///
/// # Errors
/// Every variant of [`Error`] but those about paths and writing.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Tensor>, Error> {
    match sniff::format(bytes)? {
        Format::Zip => archive::read(bytes),
        Format::Legacy => legacy::read(bytes),
    }
}

/// For the fuzz target that goes straight at the unpickler; no part of the interface.
#[doc(hidden)]
pub fn fuzz_pickle(bytes: &[u8]) -> Result<usize, Error> {
    pickle::load("pickle", bytes, 0).map(|pickle| pickle.end)
}
