//! Shortage of memory, of the host's or a GPU's: how libtorch tells it, and attempts that survive it.
//!
//! tch turns libtorch's errors into panics where an operation has no fallible form, so shortage is known by its words.

use crate::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What allocators say: libtorch's of GPU memory, the CUDA runtime's, libtorch's of the host, those of CUDA's libraries,
/// and C++'s own.
const WORDS: [&str; 8] = [
    "out of memory",
    "you tried to allocate",
    "not enough memory",
    "Cannot allocate memory",
    "STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    // cuDNN where it tries its algorithms, and none of them gets the memory that it wants.
    "unable to find an engine to execute this computation",
    "std::bad_alloc",
];

/// What oneDNN says where it cannot make room for a kernel. What it has no kernel for it calls a primitive descriptor.
const NO_KERNEL: &str = "could not create a primitive";

/// Whether this is the text of an error for want of memory.
pub fn is_shortage(text: &str) -> bool {
    let no_kernel = text.contains(NO_KERNEL) && !text.contains("primitive descriptor");
    no_kernel || WORDS.iter().any(|words| text.contains(words))
}

/// The part of such a text that says how much was wanted, without the calls that led there.
pub fn essence(text: &str) -> &str {
    let text = text.split_once("Torch(\"").map_or(text, |(_, inner)| inner);
    let line = text.lines().next().unwrap_or_default();
    // Within a panic's text the line breaks are escaped.
    let line = line.split("\\n").next().unwrap_or_default();
    let words = line.rfind("DefaultCPUAllocator").map_or(line, |at| line.get(at..).unwrap_or(line));
    words.trim_end_matches("\")").trim()
}

/// Does `work`. Where memory is short, in an error or a panic, the text of that is returned; another panic goes on.
pub fn attempt<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<Result<T, Error>, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error)) if is_shortage(&error.to_string()) => Err(error.to_string()),
        Ok(done) => Ok(done),
        Err(panic) if is_shortage(panic_text(&*panic)) => Err(panic_text(&*panic).to_owned()),
        Err(panic) => resume_unwind(panic),
    }
}

/// What was given to `panic!`.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

/// From here on panics for want of memory write nothing by themselves: whoever catches them says what they mean.
pub fn be_quiet_about_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(is_shortage) {
            usual(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// More than any address space has.
    const TOO_MUCH: i64 = 1 << 58;

    #[test]
    fn libtorchs_own_words_are_known() {
        let text = Tensor::f_empty([TOO_MUCH], (Kind::Uint8, Device::Cpu)).unwrap_err().to_string();
        assert!(is_shortage(&text), "{text}");
        let essence = essence(&text);
        assert!(essence.starts_with("DefaultCPUAllocator") && essence.contains(&TOO_MUCH.to_string()), "{essence}");
        assert!(!essence.contains('\n') && essence.len() < 200, "{essence}");
        assert!(is_shortage("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"));
        assert!(is_shortage("could not create a primitive"));
        assert!(!is_shortage(
            "could not create a primitive descriptor for a convolution forward propagation primitive"
        ));
        assert!(!is_shortage("The size of tensor a (3) must match the size of tensor b (4)"));
    }

    #[test]
    fn an_attempt_survives_shortage_alone() {
        let panicked = attempt(|| Ok(Tensor::empty([TOO_MUCH], (Kind::Uint8, Device::Cpu)).size()));
        let text = panicked.unwrap_err();
        assert!(essence(&text).starts_with("DefaultCPUAllocator"), "{text}");
        assert!(!essence(&text).contains("\\n") && !essence(&text).ends_with("\")"), "{text}");
        let failed = attempt::<()>(|| Err(Error::Usage("CUDA out of memory. Tried to allocate 2 GiB".into())));
        assert!(failed.is_err());
        assert!(attempt(|| Ok(3)).is_ok_and(|done| done.is_ok_and(|n| n == 3)));
        assert!(attempt::<()>(|| Err(Error::Usage("no such file".into()))).is_ok_and(|done| done.is_err()));
        let other = catch_unwind(|| attempt::<()>(|| panic!("something else")));
        assert_eq!(panic_text(&*other.unwrap_err()), "something else");
    }
}
