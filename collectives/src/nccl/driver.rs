//! A thin, typed layer over the few functions of the CUDA driver that the backend calls.
//!
//! Every call is made with the device's primary context current, which is the one that libtorch computes in.

use cudarc::driver::sys::{self, CUresult};
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::Arc;
use std::time::Duration;

/// What is called, so that a driver that lacks one is told before it is called.
const CALLED: [&str; 22] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxGetStreamPriorityRange",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamQuery",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuGetErrorString",
];

/// What the stand-in for the driver that tests load calls its devices: their memory is the host's.
const STAND_IN: &str = "host memory (stand-in)";

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("libcuda.so.1, the driver's library, does not load: there is no NVIDIA driver on this machine")]
    NoDriver,
    #[error("libcuda.so.1 has no function {0}: the driver is too old: that of CUDA 12.0 (525) has it")]
    Lacks(&'static str),
    #[error("the driver failed in {call}: {text} (code {code})")]
    Failed { call: &'static str, text: String, code: u32 },
    #[error("the driver shows this process no GPU (code 100{0})")]
    NoneShown(String),
    #[error("there is no GPU {wanted} for this worker: the driver shows {count}")]
    NoDevice { wanted: usize, count: usize },
}

fn check(call: &'static str, result: CUresult) -> Result<(), Problem> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    if result == CUresult::CUDA_ERROR_NO_DEVICE {
        let hidden = std::env::var("CUDA_VISIBLE_DEVICES").map(|value| format!(", CUDA_VISIBLE_DEVICES={value}"));
        return Err(Problem::NoneShown(hidden.unwrap_or_default()));
    }
    let mut text: *const c_char = std::ptr::null();
    // SAFETY: the out-pointer is of a live variable; on success it is a string of the library's that lives as long as it.
    let text = unsafe {
        match sys::cuGetErrorString(result, &raw mut text) {
            CUresult::CUDA_SUCCESS if !text.is_null() => CStr::from_ptr(text).to_string_lossy().into_owned(),
            _ => "an error that it has no text for".into(),
        }
    };
    Err(Problem::Failed { call, text, code: result as u32 })
}

/// Loads the driver. Afterwards each function of [`CALLED`] can be called.
pub(super) fn load() -> Result<(), Problem> {
    // SAFETY: opens the library, as the first call would.
    if !unsafe { sys::is_culib_present() } {
        return Err(Problem::NoDriver);
    }
    for name in CALLED {
        // SAFETY: the symbol is looked up, not called.
        let found = unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) };
        found.map_err(|_| Problem::Lacks(name))?;
    }
    // SAFETY: a plain call; flags must be 0.
    check("cuInit", unsafe { sys::cuInit(0) })
}

/// The highest version of CUDA that the driver can serve: 13000 is 13.0.
pub(super) fn version() -> Result<usize, Problem> {
    let mut version: c_int = 0;
    // SAFETY: the out-pointer is of a live variable.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    Ok(usize::try_from(version).unwrap_or_default())
}

/// Number of devices that this process may use.
pub(super) fn count() -> Result<usize, Problem> {
    let mut count: c_int = 0;
    // SAFETY: the out-pointer is of a live variable.
    check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// A device by its handle, which takes none of its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model(sys::CUdevice);

impl Model {
    /// The device of this number among those that the process may use.
    pub(super) fn of(wanted: usize) -> Result<Model, Problem> {
        let count = count()?;
        if wanted >= count {
            return Err(Problem::NoDevice { wanted, count });
        }
        let mut handle = 0;
        // SAFETY: the out-pointer is of a live variable, the number is in range.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut handle, wanted as c_int) })?;
        Ok(Model(handle))
    }

    /// What identifies it in the world.
    pub(super) fn uuid(self) -> Result<[u8; 16], Problem> {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: the out-pointer is of a live variable, the handle is the driver's.
        check("cuDeviceGetUuid_v2", unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, self.0) })?;
        Ok(uuid.bytes.map(|b| b as u8))
    }

    /// What it is called.
    pub(super) fn name(self) -> Result<String, Problem> {
        let mut name = [0 as c_char; 256];
        // SAFETY: the driver writes at most so many bytes, the last one a zero.
        unsafe {
            check("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, self.0))?;
            Ok(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
        }
    }

    /// Bytes of its memory.
    pub(super) fn memory(self) -> Result<usize, Problem> {
        let mut bytes = 0;
        // SAFETY: the out-pointer is of a live variable, the handle is the driver's.
        check("cuDeviceTotalMem_v2", unsafe { sys::cuDeviceTotalMem_v2(&raw mut bytes, self.0) })?;
        Ok(bytes)
    }

    /// Its compute capability: (9, 0).
    pub(super) fn capability(self) -> Result<(u32, u32), Problem> {
        use sys::CUdevice_attribute_enum as Attribute;
        let ask = |attribute| {
            let mut value: c_int = 0;
            // SAFETY: the out-pointer is of a live variable, the handle is the driver's.
            check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, self.0) })?;
            Ok(u32::try_from(value).unwrap_or_default())
        };
        let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok((major, ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
    }

    /// Where it is on the PCI bus, in small letters. Nothing that must be known.
    pub(super) fn pci(self) -> Option<String> {
        // SAFETY: the symbol is looked up, not called.
        unsafe { sys::culib().get::<unsafe extern "C" fn()>(b"cuDeviceGetPCIBusId") }.ok()?;
        let mut id = [0 as c_char; 64];
        // SAFETY: the driver has the function, and writes at most so many bytes, the last one a zero.
        let (result, id) = unsafe {
            let result = sys::cuDeviceGetPCIBusId(id.as_mut_ptr(), id.len() as c_int, self.0);
            (result, CStr::from_ptr(id.as_ptr()).to_string_lossy().to_lowercase())
        };
        check("cuDeviceGetPCIBusId", result).ok().map(|()| id)
    }

    /// Whether it is the tests' stand-in, which works on the host's memory.
    pub(super) fn is_stand_in(self) -> bool {
        self.name().is_ok_and(|name| name == STAND_IN)
    }
}

/// A device, with its primary context held.
#[derive(Debug)]
pub(super) struct Device {
    model: Model,
    context: sys::CUcontext,
}

// SAFETY: both are handles that the driver lets any thread use.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Takes its context, which libtorch computes in, too.
    pub(super) fn open(model: Model) -> Result<Arc<Device>, Problem> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the out-pointer is of a live variable, the handle is the driver's.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, model.0) })?;
        Ok(Arc::new(Device { model, context }))
    }

    /// Makes its context this thread's.
    pub(super) fn enter(&self) -> Result<(), Problem> {
        // SAFETY: the context is held by `self`.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: held since `open`. A failure leaves the context to the end of the process.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.model.0) };
    }
}

/// Work in order.
#[derive(Debug)]
pub(super) struct Stream {
    raw: sys::CUstream,
    own: bool,
    device: Arc<Device>,
}

// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream that waits for no other unasked and goes before others where the device must choose.
    pub(super) fn new(device: &Arc<Device>) -> Result<Stream, Problem> {
        device.enter()?;
        let (mut least, mut greatest): (c_int, c_int) = (0, 0);
        let (mut raw, flags) = (std::ptr::null_mut(), sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as c_uint);
        // SAFETY: the out-pointers are of live variables; a context is current.
        unsafe {
            check("cuCtxGetStreamPriorityRange", sys::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest))?;
            check("cuStreamCreateWithPriority", sys::cuStreamCreateWithPriority(&raw mut raw, flags, greatest))?;
        }
        Ok(Stream { raw, own: true, device: device.clone() })
    }

    /// Somebody else's stream, which outlives this.
    pub(super) fn of(device: &Arc<Device>, handle: usize) -> Stream {
        Stream { raw: handle as sys::CUstream, own: false, device: device.clone() }
    }

    /// The handle as NCCL takes it.
    pub(super) fn handle(&self) -> usize {
        self.raw as usize
    }

    /// Marks what was put on the stream so far, for others to wait for.
    pub(super) fn mark(&self) -> Result<Event, Problem> {
        self.put(sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING)
    }

    /// As [`Self::mark`], and the device notes when it comes there, which takes it some time.
    pub(super) fn record(&self) -> Result<Event, Problem> {
        self.put(sys::CUevent_flags_enum::CU_EVENT_DEFAULT)
    }

    fn put(&self, flags: sys::CUevent_flags_enum) -> Result<Event, Problem> {
        let event = Event::new(&self.device, flags)?;
        // SAFETY: both are live, and of the context that is current.
        check("cuEventRecord", unsafe { sys::cuEventRecord(event.raw, self.raw) })?;
        Ok(event)
    }

    /// What is put on the stream from now on waits for `event`.
    pub(super) fn wait(&self, event: &Event) -> Result<(), Problem> {
        self.device.enter()?;
        // SAFETY: both are live, and of the context that is current; flags must be 0.
        check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) })
    }

    /// Whether all that was put on it has ended.
    pub(super) fn is_done(&self) -> Result<bool, Problem> {
        self.device.enter()?;
        // SAFETY: live, and of the context that is current.
        done("cuStreamQuery", unsafe { sys::cuStreamQuery(self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.own && self.device.enter().is_ok() {
            // SAFETY: ours, made by `new`. The driver lets go of it when its work has ended.
            unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// A mark on a stream.
#[derive(Debug)]
pub(crate) struct Event {
    raw: sys::CUevent,
    device: Arc<Device>,
}

// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    fn new(device: &Arc<Device>, flags: sys::CUevent_flags_enum) -> Result<Event, Problem> {
        device.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the out-pointer is of a live variable; a context is current.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut raw, flags as c_uint) })?;
        Ok(Event { raw, device: device.clone() })
    }

    /// Whether the stream has come this far.
    pub(super) fn is_done(&self) -> Result<bool, Problem> {
        self.device.enter()?;
        // SAFETY: live, and of the context that is current.
        done("cuEventQuery", unsafe { sys::cuEventQuery(self.raw) })
    }

    /// Time from `self` to `later`; `None` before the device has come to both.
    pub(crate) fn until(&self, later: &Event) -> Option<Duration> {
        self.device.enter().ok()?;
        let mut milliseconds = 0f32;
        // SAFETY: both are live, the out-pointer is of a live variable.
        let result = unsafe { sys::cuEventElapsedTime(&raw mut milliseconds, self.raw, later.raw) };
        check("cuEventElapsedTime", result).ok()?;
        Duration::try_from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3).ok()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            // SAFETY: ours, made by `new`. The driver lets go of it when the stream has passed it.
            unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

fn done(call: &'static str, result: CUresult) -> Result<bool, Problem> {
    match result {
        CUresult::CUDA_ERROR_NOT_READY => Ok(false),
        other => check(call, other).map(|()| true),
    }
}
