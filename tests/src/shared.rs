//! What many tests need and none changes: made once, by whoever comes first, and kept beside the programs that made it.

use crate::{Bench, CONFIG, binary};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Variables by which libtorch computes other numbers.
const NUMBERS: [&str; 4] = ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR"];
/// The phantom data set of [`Bench`].
const PHANTOM: [&str; 8] = ["phantom", "data", "--patients", "6", "--size", "64", "--seed", "1"];

/// The folder `place`, filled by `make` where it is not there yet. A test that dies meanwhile leaves nothing under this name.
pub fn once(place: &Path, make: impl FnOnce(&Path)) {
    let (folder, name) = (place.parent().unwrap(), place.file_name().unwrap().to_string_lossy());
    fs::create_dir_all(folder).unwrap();
    let lock = File::create(folder.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !place.is_dir() {
        let fresh = folder.join(format!("{name}.fresh"));
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir(&fresh).unwrap();
        make(&fresh);
        fs::rename(&fresh, place).unwrap();
    }
}

/// The first characters of what everything in `text` hashes to.
pub fn fingerprint(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The folder for what these very programs make of this configuration on this CPU. Those of others are removed.
fn kept() -> PathBuf {
    let programs = ["jcs", "jcs-launch", "data-shards"].map(|name| {
        let file = fs::metadata(binary(name)).unwrap();
        (file.len(), file.modified().unwrap().duration_since(UNIX_EPOCH).unwrap())
    });
    let all = binary("jcs").parent().unwrap().join("shared");
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu: Vec<&str> =
        cpu.lines().filter(|line| line.starts_with("flags") || line.starts_with("model name")).collect();
    let own = all.join(fingerprint(&format!("{programs:?} {PHANTOM:?} {CONFIG} {:?}", cpu.get(..2))));
    if !own.is_dir() {
        let others = fs::read_dir(&all).into_iter().flatten().flatten().map(|entry| entry.path());
        others.filter(|other| *other != own).for_each(|other| drop(fs::remove_dir_all(other)));
    }
    own
}

/// The phantom data set of [`Bench`]: images, masks, labels and lists.
pub fn phantom() -> PathBuf {
    let place = kept().join("phantom");
    once(&place, |folder| {
        let mut command = std::process::Command::new(binary("data-shards"));
        let out = command.args(PHANTOM).current_dir(folder).output().unwrap();
        assert!(out.status.success(), "{}", crate::text(&out));
    });
    place.join("data")
}

/// The last checkpoint of two workers that nobody disturbed: what a run is compared with that somebody did.
pub struct Undisturbed(PathBuf);

impl Undisturbed {
    /// Trains the small network of [`Bench`] for so many steps.
    pub fn train(steps: u64) -> Undisturbed {
        let numbers = NUMBERS.map(|name| std::env::var(name).ok());
        let place = kept().join(format!("undisturbed-{steps}-{}", fingerprint(&format!("{numbers:?}"))));
        once(&place, |folder| {
            let bench = Bench::new();
            bench.train(2, "run", &[&format!("train.max_steps={steps}")]);
            let checkpoint = bench.path().join(format!("run/checkpoints/step-{steps:08}"));
            for file in ["model.safetensors", "optimizer.safetensors"] {
                fs::copy(checkpoint.join(file), folder.join(file)).unwrap();
            }
        });
        Undisturbed(place)
    }

    /// The weights, as the file's bytes.
    pub fn weights(&self) -> Vec<u8> {
        fs::read(self.0.join("model.safetensors")).unwrap()
    }

    /// The moments.
    pub fn moments(&self) -> Vec<u8> {
        fs::read(self.0.join("optimizer.safetensors")).unwrap()
    }
}
