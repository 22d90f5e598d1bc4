//! What can be wrong with a weight file, and what to do about it.
//!
//! Duty: one line a failure that names the part of the file. Must not: repeat text of the file unescaped or at length.

use std::path::PathBuf;

/// A file that cannot be read or written, or a tensor that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, pipe or device.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// A file of another kind.
    #[error("not a PyTorch weight file: it seems to be {seems}")]
    Foreign {
        /// What it seems to be, and what to do.
        seems: &'static str,
    },
    /// A zip archive that is damaged or ambiguous as a whole.
    #[error("the zip archive is damaged or unusual: {problem}; fetch or save the file again")]
    Zip {
        /// What is wrong.
        problem: String,
    },
    /// An entry of the zip archive that cannot be used.
    #[error("archive entry `{entry}` {problem}")]
    Entry {
        /// The entry, escaped and shortened.
        entry: String,
        /// What is wrong with it and what to do.
        problem: &'static str,
    },
    /// An entry that the format demands.
    #[error("the archive has no entry `{entry}`; a file by torch.save has it: fetch or save the file again")]
    MissingEntry {
        /// The entry, escaped and shortened.
        entry: String,
    },
    /// A file written by a big-endian machine.
    #[error("{part} says that the file is big-endian; save it again on a little-endian machine")]
    ByteOrder {
        /// Where it says so.
        part: String,
    },
    /// A version of the format before 1.6 other than 1001, the only one there was.
    #[error("the protocol version is {found}, expected 1001; save the file again with a newer PyTorch")]
    Version {
        /// What stands there.
        found: String,
    },
    /// A name of a function or class that is not on the list of those allowed.
    #[error(
        "{part}, byte {at}: refused `{name}`, which is not needed for weights and was not run; where you trust the \
        file's author, load it in PyTorch and save `model.state_dict()` alone"
    )]
    Global {
        /// Part of the file.
        part: String,
        /// Position of the opcode.
        at: usize,
        /// Module and name, escaped and shortened.
        name: String,
    },
    /// A pickle operation that weight files do not need.
    #[error("{part}, byte {at}: refused the pickle opcode {name}, which weight files do not need")]
    Opcode {
        /// Part of the file.
        part: String,
        /// Position of the opcode.
        at: usize,
        /// Its name, or its number.
        name: String,
    },
    /// A pickle that ends within an operation.
    #[error("{part}, byte {at}: cut short, {needed} bytes expected, {left} left; fetch or save the file again")]
    Truncated {
        /// Part of the file.
        part: String,
        /// Position of the opcode.
        at: usize,
        /// Bytes that the operation needs.
        needed: u64,
        /// Bytes that there are.
        left: usize,
    },
    /// A pickle operation on what it cannot be done on.
    #[error("{part}, byte {at}: {problem}")]
    Pickle {
        /// Part of the file.
        part: String,
        /// Position of the opcode.
        at: usize,
        /// What is wrong.
        problem: String,
    },
    /// A pickle that builds more than weights can need.
    #[error("{part}, byte {at}: more than {limit} objects; save `model.state_dict()` alone")]
    TooLarge {
        /// Part of the file.
        part: String,
        /// Position of the opcode.
        at: usize,
        /// Operations allowed.
        limit: usize,
    },
    /// Bytes where the file should end.
    #[error("{bytes} bytes follow {part}; fetch or save the file again")]
    Trailing {
        /// What should have been last.
        part: String,
        /// Bytes after it.
        bytes: usize,
    },
    /// A storage whose bytes are missing or of another length than its description.
    #[error("storage `{key}` {problem}")]
    Storage {
        /// Its key, escaped and shortened.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A file that holds something else than a dict.
    #[error("the file holds {found}, expected a state dict; save `model.state_dict()`")]
    StateDict {
        /// What it holds.
        found: &'static str,
    },
    /// A key of the state dict that is no string.
    #[error("the state dict has {found} as a key, expected names only")]
    Name {
        /// What it has.
        found: &'static str,
    },
    /// A key of a dict that is there twice.
    #[error("`{name}` is there twice")]
    Duplicate {
        /// The key, escaped and shortened.
        name: String,
    },
    /// A value of the state dict that is no tensor.
    #[error(
        "`{name}` is {found}, expected a tensor; a checkpoint has its state dict under one of {}",
        crate::select::WRAPPERS.join(", ")
    )]
    NotATensor {
        /// The key, escaped and shortened.
        name: String,
        /// What the value is.
        found: &'static str,
    },
    /// A tensor whose description is inconsistent.
    #[error("tensor `{name}` {problem}")]
    Tensor {
        /// Its name, escaped and shortened.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Tensors that take much more memory than the file.
    #[error(
        "tensor `{name}` brings the tensors to {bytes} bytes, allowed are {limit} (4 x the file and 1 MiB); save \
        expanded tensors as `tensor.clone()`, or fewer that share a storage"
    )]
    Budget {
        /// Its name, escaped and shortened.
        name: String,
        /// Bytes of all tensors up to this one.
        bytes: u128,
        /// Bytes allowed.
        limit: usize,
    },
    /// The output cannot be written.
    #[error("cannot write the weight file: {source}")]
    Write {
        /// What the system said.
        source: std::io::Error,
    },
}

/// Text of a file as a message may show it: on one line and not at length.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut escaped = text.escape_debug();
    let mut short: String = escaped.by_ref().take(LONGEST).collect();
    if escaped.next().is_some() {
        short.push('…');
    }
    short
}
