//! Where a worker computes.

use crate::Error;
use collectives::{Collective, Gpu, Label};
use protocol::config::{Backend, Config, Device as DeviceName, Precision};
use protocol::env::Place;
use tch::Device;

/// The CUDA that the pinned libtorch is made for, as the driver counts.
const CUDA: usize = 13_000;

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
    if driver.gpus.len() <= place.local_rank {
        return Err(format!("worker {} of this host has no GPU: there are {}", place.local_rank, driver.gpus.len()));
    }
    if driver.gpus.iter().any(|gpu| gpu.stand_in) {
        return Err("the driver is a stand-in for tests".into());
    }
    if driver.cuda < CUDA {
        return Err(format!(
            "the driver serves CUDA up to {}, and libtorch needs {}: update the driver",
            version(driver.cuda),
            version(CUDA)
        ));
    }
    torch_ext::load_cuda().map_err(|e| format!("libtorch's CUDA half does not load ({e}): run `make setup GPU=1`"))?;
    if !tch::Cuda::is_available() {
        return Err("libtorch finds no usable GPU".into());
    }
    // Batches have one shape: cuDNN tries its algorithms on the first and keeps the fastest.
    tch::Cuda::cudnn_set_benchmark(true);
    Ok(Device::Cuda(place.local_rank))
}

/// `13.0` of 13000.
pub(crate) fn version(number: usize) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

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
