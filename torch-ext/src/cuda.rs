//! Which libtorch this is, and which GPUs its CUDA half is made for.

use crate::ffi::{self, Error, check};
use std::ffi::CStr;

/// libtorch's version, as in `2.13.0`: that of the headers that this program was built with.
pub fn version() -> String {
    // SAFETY: a string that lives as long as the program.
    unsafe { CStr::from_ptr(ffi::jcs_torch_version()) }.to_string_lossy().into_owned()
}

/// What libtorch's CUDA half was compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaBuild {
    /// The version of CUDA: 13000 is 13.0. A driver serves every program of its own major version and of older ones (CUDA
    /// Compatibility, "minor version compatibility").
    pub runtime: usize,
    /// Those for which there are kernels; empty where it is not known.
    architectures: Vec<Architecture>,
}

/// Loads libtorch's CUDA half, which registers itself, and says what it was compiled for. No GPU and no driver is needed, but
/// only with one that is new enough the GPUs are known. An error names the library that is missing.
///
/// libtorch keeps its first answer to whether there is CUDA, so nothing that asks it may come before this: no seed and no
/// tensor of a GPU. Where something did, that is an error.
pub fn load_cuda() -> Result<CudaBuild, Error> {
    // SAFETY: dlopen of a library of the same libtorch; its initialisers only register operators.
    check("dlopen(libtorch_cuda.so)", unsafe { ffi::jcs_load_cuda() })?;
    let (mut runtime, mut config) = (0, std::ptr::null_mut());
    // SAFETY: the out-pointers are of live variables.
    check("versionCUDART", unsafe { ffi::jcs_cuda_build(&raw mut runtime, &raw mut config) })?;
    // SAFETY: made by strdup where there was no error, for the caller to free.
    let config = unsafe { ffi::take(config) };
    Ok(CudaBuild::new(usize::try_from(runtime).unwrap_or_default(), &config))
}

impl CudaBuild {
    /// From the version, and what libtorch says of itself (`torch.__config__.show()`).
    pub fn new(runtime: usize, config: &str) -> CudaBuild {
        CudaBuild { runtime, architectures: architectures(config) }
    }

    /// Whether it has kernels for a GPU of this compute capability, or what the driver can make them of.
    pub fn serves(&self, capability: (u32, u32)) -> bool {
        self.architectures.is_empty() || self.architectures.iter().any(|architecture| architecture.serves(capability))
    }

    /// The compute capabilities that it was compiled for: `7.5, 8.0, 9.0`.
    pub fn capabilities(&self) -> String {
        let mut all: Vec<(u32, u32)> = self.architectures.iter().map(|architecture| architecture.capability).collect();
        all.sort_unstable();
        all.dedup();
        all.iter().map(|(major, minor)| format!("{major}.{minor}")).collect::<Vec<_>>().join(", ")
    }
}

/// Which GPUs code serves (CUDA Programming Guide, "Binary Compatibility", "PTX Compatibility", "Family-Specific Features").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// Machine code: those of the same major version that are not older.
    Binary,
    /// PTX, of which the driver makes machine code: all that are not older.
    Ptx,
    /// Only the one that is named.
    Exact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Architecture {
    capability: (u32, u32),
    code: Code,
}

impl Architecture {
    fn serves(self, capability: (u32, u32)) -> bool {
        match self.code {
            Code::Binary => self.capability.0 == capability.0 && self.capability.1 <= capability.1,
            Code::Ptx => self.capability <= capability,
            Code::Exact => self.capability == capability,
        }
    }

    /// From `sm_90`, `sm_90a`, `sm_100f` or `compute_120`.
    fn read(name: &str) -> Option<Architecture> {
        let (kind, number) = name.split_once('_')?;
        let digits = number.trim_end_matches(['a', 'f']);
        let all: u32 = digits.parse().ok()?;
        let code = match (kind, &number[digits.len()..]) {
            (_, "a") => Code::Exact,
            ("sm", _) | (_, "f") => Code::Binary,
            ("compute", _) => Code::Ptx,
            _ => return None,
        };
        Some(Architecture { capability: (all / 10, all % 10), code })
    }
}

/// From `-gencode;arch=compute_90,code=sm_90;…`, which is part of what libtorch says of itself.
fn architectures(config: &str) -> Vec<Architecture> {
    let codes = config.split("code=").skip(1);
    codes.filter_map(|rest| Architecture::read(rest.split([';', ',', ' ', '\n', ']']).next()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(config: &str) -> CudaBuild {
        CudaBuild::new(12060, config)
    }

    #[test]
    fn kernels_serve_their_major_version_and_ptx_what_is_newer() {
        let build = build(
            "  - CUDA Runtime 12.6\n  - NVCC architecture flags: -gencode;arch=compute_50,code=sm_50;-gencode;\
             arch=compute_80,code=sm_80;-gencode;arch=compute_86,code=sm_86;-gencode;arch=compute_90a,code=sm_90a\n  - CuDNN 91.0",
        );
        assert_eq!(build.capabilities(), "5.0, 8.0, 8.6, 9.0");
        let served = [(5, 0), (5, 2), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)];
        assert_eq!(served.map(|gpu| build.serves(gpu)), [true, true, false, false, true, true, true, true, false]);
    }

    #[test]
    fn ptx_families_and_what_is_not_known() {
        let ptx = build("-gencode;arch=compute_75,code=sm_75;-gencode;arch=compute_90,code=compute_90");
        assert_eq!(
            [(7, 0), (7, 5), (8, 9), (9, 0), (12, 0)].map(|gpu| ptx.serves(gpu)),
            [false, true, false, true, true]
        );
        let family = build("-gencode;arch=compute_100f,code=sm_100f");
        assert_eq!([(9, 0), (10, 0), (10, 3), (12, 0)].map(|gpu| family.serves(gpu)), [false, true, true, false]);
        let unknown = build("  - CUDA Runtime 13.0");
        assert!(unknown.serves((3, 5)) && unknown.capabilities().is_empty());
    }
}
