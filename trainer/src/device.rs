//! Where a worker computes.

use crate::Error;
use collectives::{Collective, Driver, Gpu, Label};
use protocol::config::{Backend, Config, Device as DeviceName, Precision};
use protocol::env::Place;
use tch::Device;
use torch_ext::CudaBuild;

/// The device that `name` means for a worker that is alone.
pub(crate) fn choose(name: DeviceName, backend: Backend, place: &Place) -> Result<Device, Error> {
    if name == DeviceName::Cpu {
        return Ok(Device::Cpu);
    }
    match (gpu(place), wanted(name, backend)) {
        (Ok(device), _) => Ok(device),
        (Err(problem), None) => {
            tracing::info!("no GPU is used: {problem}");
            Ok(Device::Cpu)
        }
        (Err(problem), Some(wanted)) => Err(Error::Usage(format!("{wanted}, but {problem}"))),
    }
}

/// What asks for a GPU, if anything does.
fn wanted(name: DeviceName, backend: Backend) -> Option<&'static str> {
    match (name, backend) {
        (DeviceName::Cuda, _) => Some("run.device = cuda"),
        (_, Backend::Nccl) => Some("comm.backend = nccl"),
        _ => None,
    }
}

/// The same for several workers, which all compute on GPUs or all on CPUs.
pub(crate) fn choose_together(
    name: DeviceName,
    backend: Backend,
    place: &Place,
    collective: &dyn Collective,
) -> Result<Device, Error> {
    if name == DeviceName::Cpu {
        return Ok(Device::Cpu);
    }
    if name == DeviceName::Cuda && backend == Backend::Mpi {
        return Err(Error::Usage(
            "comm.backend = mpi takes gradients on the CPU, and run.device = cuda has them on GPUs: comm.backend=nccl"
                .into(),
        ));
    }
    let own = if backend == Backend::Mpi { Err("comm.backend = mpi".to_owned()) } else { gpu(place) };
    let problem = own.as_ref().err().cloned().unwrap_or_default();
    let all = collective.all_gather(problem.into_bytes(), Label::new(0, "devices of the ranks"))?;
    let mut without = all.iter().enumerate().filter(|(_, problem)| !problem.is_empty());
    let Some((rank, problem)) = without.next() else { return own.map_err(Error::Usage) };
    let problem = format!("rank {rank}: {}", String::from_utf8_lossy(problem));
    match wanted(name, backend) {
        Some(wanted) => Err(Error::Usage(format!("{wanted}, but {problem}"))),
        None if without.count() + 1 < all.len() => Err(Error::Usage(format!(
            "some workers have a GPU and some have none ({problem}): run.device=cpu, or other hosts"
        ))),
        None => {
            if collective.rank() == 0 {
                tracing::info!("the workers compute on CPUs, and gradients travel by MPI ({problem})");
            }
            Ok(Device::Cpu)
        }
    }
}

/// What the driver says of the GPU of this number.
pub(crate) fn describe(number: usize) -> Option<Gpu> {
    collectives::gpus().ok().and_then(|driver| driver.gpus.into_iter().nth(number))
}

/// Half precision needs a GPU; its kernels on the CPU are for tests with the stand-in for NCCL.
pub(crate) fn refuse_half_on_cpu(config: &Config, device: Device) -> Result<(), Error> {
    let for_tests = || collectives::gpus().is_ok_and(|driver| driver.gpus.iter().any(|gpu| gpu.stand_in));
    match (config.train.precision, device, config.comm.backend) {
        (Precision::Fp16, Device::Cpu, Backend::Nccl) if for_tests() => Ok(()),
        (Precision::Fp16, Device::Cpu, _) => Err(Error::Usage(
            "train.precision = fp16 (GPU) works on GPUs only, and this worker computes on the CPU: train.precision=bf16, or a \
             host with GPUs"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// This worker's GPU, or in words why there is none.
pub(crate) fn gpu(place: &Place) -> Result<Device, String> {
    let driver = collectives::gpus()?;
    let Some(own) = driver.gpus.get(place.local_rank) else {
        return Err(format!("worker {} of this host has no GPU: there are {}", place.local_rank, driver.gpus.len()));
    };
    if own.stand_in {
        return Err("the driver is a stand-in for tests".into());
    }
    let build = torch_ext::load_cuda().map_err(|e| {
        format!("libtorch's CUDA half does not load ({e}): `make setup GPU=1` fetches it, TORCH=PYTHON takes that of a PyTorch")
    })?;
    unfit(&driver, own, &build).map_or(Ok(()), Err)?;
    if !tch::Cuda::is_available() {
        return Err("libtorch finds no usable GPU".into());
    }
    // Batches have one shape: cuDNN tries its algorithms on the first and keeps the fastest.
    tch::Cuda::cudnn_set_benchmark(true);
    Ok(Device::Cuda(place.local_rank))
}

/// A line for each GPU of this host: `0 fit NVIDIA A100`, or `0 unfit WHY`, as far as it can be said without using one. Where that
/// cannot be found out, `none WHY`.
pub fn verdicts() -> Vec<String> {
    let found = collectives::gpus().and_then(|driver| Ok((driver, torch_ext::load_cuda().map_err(|e| e.to_string())?)));
    let (driver, build) = match found {
        Ok(found) => found,
        Err(why) => return vec![format!("none {why}")],
    };
    let verdict = |gpu: &Gpu| match unfit(&driver, gpu, &build) {
        Some(why) if !gpu.stand_in => format!("unfit {why}"),
        _ => format!("fit {}", gpu.name),
    };
    driver.gpus.iter().enumerate().map(|(i, gpu)| format!("{i} {}", verdict(gpu))).collect()
}

/// Why libtorch, built in this way, cannot use the GPU with this driver.
fn unfit(driver: &Driver, gpu: &Gpu, build: &CudaBuild) -> Option<String> {
    if driver.cuda / 1000 < build.runtime / 1000 {
        let (serves, needs) = (version(driver.cuda), build.runtime / 1000);
        return Some(format!(
            "the driver serves CUDA up to {serves}, and libtorch is built for CUDA {}: a driver for CUDA {needs} or newer, or a \
             libtorch for an older CUDA (make setup TORCH=PYTHON)",
            version(build.runtime)
        ));
    }
    let (major, minor) = gpu.capability;
    (!build.serves(gpu.capability)).then(|| {
        format!(
            "libtorch has no kernels for {}, of compute capability {major}.{minor}: it is built for {}",
            gpu.name,
            build.capabilities()
        )
    })
}

/// `13.0` of 13000.
pub(crate) fn version(number: usize) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_serves_its_major_version_and_kernels_fit_the_gpu() {
        let gpu = Gpu {
            name: "NVIDIA A100".into(),
            uuid: [0; 16],
            memory: 0,
            capability: (8, 0),
            pci: None,
            stand_in: false,
        };
        let why = |cuda, capability, runtime, flags: &str| {
            let gpu = Gpu { capability, ..gpu.clone() };
            unfit(&Driver { cuda, gpus: Vec::new() }, &gpu, &CudaBuild::new(runtime, flags)).unwrap_or_default()
        };
        let flags = "-gencode;arch=compute_75,code=sm_75;-gencode;arch=compute_80,code=sm_80";
        // A CUDA 12 build on driver 535, which is of CUDA 12.2.
        assert_eq!(why(12020, (8, 0), 12080, flags), "");
        assert_eq!(why(13010, (8, 6), 12080, flags), "");
        let old = why(12020, (8, 0), 13000, flags);
        assert!(old.starts_with(
            "the driver serves CUDA up to 12.2, and libtorch is built for CUDA 13.0: a driver for CUDA 13 or"
        ));
        let volta = "libtorch has no kernels for NVIDIA A100, of compute capability 7.0: it is built for 7.5, 8.0";
        assert_eq!(why(13000, (7, 0), 13000, flags), volta);
    }

    #[test]
    fn half_precision_needs_a_gpu() {
        let mut config = Config::default();
        config.train.precision = Precision::Fp16;
        let refused = |config: &Config, device| refuse_half_on_cpu(config, device).is_err();
        assert!(refused(&config, Device::Cpu));
        assert!(!refused(&config, Device::Cuda(0)));
        config.comm.backend = Backend::Nccl;
        assert!(refused(&config, Device::Cpu), "the stand-in is not loaded here");
        config.comm.backend = Backend::Mpi;
        assert!(refused(&config, Device::Cpu));
        config.train.precision = Precision::Bf16;
        assert!(!refused(&config, Device::Cpu));
    }
}
