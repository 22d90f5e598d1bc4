//! A thin, typed layer over the few functions of NCCL that the backend calls.
//!
//! Communicators do not block: a call may return before it has done its work, and [`Communicator::state`] says when it has.

use super::driver::Stream;
use cudarc::nccl::result::{self, NcclError, NcclStatus};
use cudarc::nccl::sys;
use std::ffi::{CStr, c_char, c_int, c_uint};
use torch_ext::{DeviceBuffer, ElementType};

/// What is called, so that a library that lacks one is told before it is called.
const CALLED: [&str; 13] = [
    "ncclGetVersion",
    "ncclGetUniqueId",
    "ncclCommInitRankConfig",
    "ncclCommGetAsyncError",
    "ncclCommFinalize",
    "ncclCommDestroy",
    "ncclCommAbort",
    "ncclGroupStart",
    "ncclGroupEnd",
    "ncclAllReduce",
    "ncclBroadcast",
    "ncclGetErrorString",
    "ncclGetLastError",
];

/// Communicators that do not block and can be ended while they work.
const OLDEST: usize = 21800;

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "libnccl.so does not load: `make setup GPU=1` fetches it, TORCH=PYTHON takes that of a PyTorch, LD_LIBRARY_PATH names another"
    )]
    NoLibrary,
    #[error("libnccl.so has no function {0}: NCCL 2.18 or newer is needed")]
    Lacks(&'static str),
    #[error("NCCL {} is too old: 2.18 or newer is needed", name(*.0))]
    Old(usize),
    #[error("NCCL failed in {call}: {text}{}", if .last.is_empty() { String::new() } else { format!(" ({})", .last) })]
    Failed { call: &'static str, text: String, last: String },
}

/// How far the last call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    InProgress,
}

fn check(call: &'static str, comm: sys::ncclComm_t, result: Result<NcclStatus, NcclError>) -> Result<State, Problem> {
    match result {
        Ok(NcclStatus::InProgress) => Ok(State::InProgress),
        Ok(NcclStatus::Success) => Ok(State::Ready),
        Ok(NcclStatus::NumResults) => {
            Err(Problem::Failed { call, text: "a result that this program does not know".into(), last: String::new() })
        }
        Err(NcclError(code)) => {
            // SAFETY: both return a string of the library's, or null.
            let (text, last) = unsafe { (words(sys::ncclGetErrorString(code)), words(sys::ncclGetLastError(comm))) };
            Err(Problem::Failed { call, text, last })
        }
    }
}

/// # Safety
/// `text` is null or a string that lives for the call.
unsafe fn words(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's word.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

/// `2.28.3` of 22803.
pub(super) fn name(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// Loads NCCL and returns its version. Afterwards each function of [`CALLED`] can be called.
pub(super) fn load() -> Result<usize, Problem> {
    // SAFETY: opens the library, as the first call would.
    if !unsafe { sys::is_culib_present() } {
        return Err(Problem::NoLibrary);
    }
    for name in CALLED {
        // SAFETY: the symbol is looked up, not called.
        let found = unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) };
        found.map_err(|_| Problem::Lacks(name))?;
    }
    let version = match result::get_nccl_version() {
        Ok(version) => usize::try_from(version).unwrap_or_default(),
        Err(e) => return check("ncclGetVersion", std::ptr::null_mut(), Err(e)).map(|_| 0),
    };
    if version < OLDEST { Err(Problem::Old(version)) } else { Ok(version) }
}

/// What the ranks of a communicator have in common.
#[derive(Clone, Copy)]
pub(super) struct UniqueId(sys::ncclUniqueId);

impl UniqueId {
    /// A new one, made by one rank for all.
    pub(super) fn new() -> Result<UniqueId, Problem> {
        result::get_uniqueid().map(UniqueId).map_err(|e| {
            let failed = check("ncclGetUniqueId", std::ptr::null_mut(), Err(e));
            failed.err().unwrap_or(Problem::NoLibrary)
        })
    }

    /// As bytes, for the other ranks.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.internal.iter().map(|b| *b as u8).collect()
    }

    /// From the bytes of another rank; `None` if there are not as many as there should be.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<UniqueId> {
        let internal: Vec<c_char> = bytes.iter().map(|b| *b as c_char).collect();
        Some(UniqueId(sys::ncclUniqueId { internal: internal.try_into().ok()? }))
    }
}

/// This rank's end of a communicator.
#[derive(Debug)]
pub(super) struct Communicator(sys::ncclComm_t);

// SAFETY: NCCL lets any thread use a communicator, one at a time; the owner keeps it under a lock.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Begins to connect `size` ranks; [`Self::state`] says when it is done. The device's context must be current.
    pub(super) fn begin(id: UniqueId, rank: usize, size: usize) -> Result<Communicator, Problem> {
        let undefined = c_int::MIN;
        // What NCCL_CONFIG_INITIALIZER says, but for `blocking`.
        let mut config = sys::ncclConfig_t {
            size: size_of::<sys::ncclConfig_t>(),
            magic: 0xcafe_beef,
            version: 22_400 as c_uint,
            blocking: 0,
            cgaClusterSize: undefined,
            minCTAs: undefined,
            maxCTAs: undefined,
            netName: std::ptr::null(),
            splitShare: undefined,
        };
        let mut comm: sys::ncclComm_t = std::ptr::null_mut();
        // SAFETY: the pointers are of live variables, which NCCL does not keep.
        let begun = unsafe {
            result::comm_init_rank_config(&raw mut comm, size as c_int, id.0, rank as c_int, &raw mut config)
        };
        check("ncclCommInitRankConfig", comm, begun)?;
        Ok(Communicator(comm))
    }

    /// How far the last call is, or what has failed meanwhile.
    pub(super) fn state(&self) -> Result<State, Problem> {
        let mut code = sys::ncclResult_t::ncclSuccess;
        // SAFETY: a live communicator, and a live variable.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.0, &raw mut code) }.result();
        check("ncclCommGetAsyncError", self.0, asked)?;
        check("an operation", self.0, code.result())
    }

    /// Sums each buffer over the ranks, in place, as one launch.
    pub(super) fn all_reduce(&self, buffers: &[DeviceBuffer], stream: &Stream) -> Result<(), Problem> {
        self.group("ncclAllReduce", buffers, |buffer| {
            let (memory, kind) = (buffer.pointer(), kind(buffer));
            let sum = sys::ncclRedOp_t::ncclSum;
            let stream = stream.handle() as sys::cudaStream_t;
            // SAFETY: a DeviceBuffer vouches for memory, length and type, and its contract leaves the memory to this
            // operation; communicator and stream are live.
            unsafe { result::all_reduce(memory, memory, buffer.elements(), kind, sum, self.0, stream) }
        })
    }

    /// Replaces the buffer by that of rank `root`.
    pub(super) fn broadcast(&self, buffers: &[DeviceBuffer], root: usize, stream: &Stream) -> Result<(), Problem> {
        self.group("ncclBroadcast", buffers, |buffer| {
            let (memory, kind) = (buffer.pointer(), kind(buffer));
            let stream = stream.handle() as sys::cudaStream_t;
            // SAFETY: as in `all_reduce`.
            unsafe { result::broadcast(memory, memory, buffer.elements(), kind, root as c_int, self.0, stream) }
        })
    }

    fn group(
        &self,
        call: &'static str,
        buffers: &[DeviceBuffer],
        each: impl Fn(&DeviceBuffer) -> Result<NcclStatus, NcclError>,
    ) -> Result<(), Problem> {
        check("ncclGroupStart", self.0, result::group_start())?;
        let calls = buffers.iter().try_for_each(|buffer| check(call, self.0, each(buffer)).map(drop));
        // A group that was begun is ended, whatever happened in it.
        let ended = check("ncclGroupEnd", self.0, result::group_end());
        calls.and(ended.map(drop))
    }

    /// Begins to end it in peace, which all ranks do; [`Self::state`] says when it is done.
    pub(super) fn finalize(&self) -> Result<(), Problem> {
        // SAFETY: a live communicator.
        check("ncclCommFinalize", self.0, unsafe { result::comm_finalize(self.0) }).map(drop)
    }

    /// Frees it after [`Self::finalize`] is done.
    pub(super) fn destroy(self) -> Result<(), Problem> {
        // SAFETY: a live communicator, which is gone afterwards.
        let destroyed = unsafe { result::comm_destroy(self.0) };
        check("ncclCommDestroy", std::ptr::null_mut(), destroyed).map(drop)
    }

    /// Ends it at once, and whatever it does: what is on a stream ends, too, without a result.
    pub(super) fn abort(self) {
        // SAFETY: a live communicator, which is gone afterwards. What abort says changes nothing.
        let _ = unsafe { result::comm_abort(self.0) };
    }
}

fn kind(buffer: &DeviceBuffer) -> sys::ncclDataType_t {
    match buffer.kind() {
        ElementType::F32 => sys::ncclDataType_t::ncclFloat32,
        ElementType::F64 => sys::ncclDataType_t::ncclFloat64,
        ElementType::Bf16 => sys::ncclDataType_t::ncclBfloat16,
    }
}
