//! What a GPU is used for, asked of NVIDIA's management library, which comes with the driver.
//!
//! Nothing depends on it: where the library or an answer is missing, so are the numbers.

use nvml_wrapper::Nvml;
use std::time::{Duration, Instant};

/// The library takes its numbers over a good part of a second, and is not free to ask.
const EVERY: Duration = Duration::from_secs(1);

/// How a GPU is used at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its memory that are in use, by anyone.
    pub memory: u64,
    /// Share of the last moments in which it computed, in percent.
    pub utilization: u32,
}

/// Asks for the usage of one GPU, at most once a second.
pub struct GpuMeter {
    library: Nvml,
    uuid: String,
    asked: Option<Instant>,
}

impl GpuMeter {
    /// For the GPU with this UUID; none where the library or its answer is missing.
    pub fn open(uuid: [u8; 16]) -> Option<GpuMeter> {
        let library = Nvml::init().ok()?;
        let uuid = names(uuid).into_iter().find(|name| library.device_by_uuid(name.as_str()).is_ok())?;
        Some(GpuMeter { library, uuid, asked: None })
    }

    /// The usage at this moment; none within a second of the last answer.
    pub fn read(&mut self, now: Instant) -> Option<Usage> {
        if !is_due(self.asked, now) {
            return None;
        }
        self.asked = Some(now);
        let device = self.library.device_by_uuid(self.uuid.as_str()).ok()?;
        Some(Usage { memory: device.memory_info().ok()?.used, utilization: device.utilization_rates().ok()?.gpu })
    }
}

fn is_due(asked: Option<Instant>, now: Instant) -> bool {
    asked.is_none_or(|asked| now.saturating_duration_since(asked) >= EVERY)
}

/// What the library may call the GPU with this UUID: a whole one, or a part of one.
fn names(uuid: [u8; 16]) -> [String; 2] {
    let hexadecimal: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts: Vec<&str> =
        [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|at| hexadecimal.get(at)).collect();
    ["GPU", "MIG"].map(|kind| format!("{kind}-{}", parts.join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_nvidia_smi_does() {
        let uuid = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(names(uuid)[0], "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn it_is_asked_once_a_second() {
        let first = Instant::now();
        assert!(is_due(None, first));
        assert!(!is_due(Some(first), first + Duration::from_millis(999)));
        assert!(is_due(Some(first), first + EVERY));
    }

    #[test]
    fn without_such_a_gpu_there_is_no_meter() {
        assert!(GpuMeter::open([0; 16]).is_none());
    }
}
