//! The synchronised norm on real ranks against the ordinary one on the whole batch. This test binary starts itself
//! under mpirun.

use collectives::{Collective, Label, Mpi};
use end_to_end::numbers::at_most;
use jcs::ddp::SharedSum;
use jcs::model::{BatchNorm, Norms, Statistics, Store};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

const ROLE: &str = "JCS_TEST_RANK_OF_SYNC_NORM";
const CHANNELS: i64 = 6;

#[test]
fn batches_of_4_and_4_are_one_of_8() {
    on_two_ranks("batches_of_4_and_4_are_one_of_8", [4, 4]);
}

#[test]
fn unequal_batches_are_one_batch_too() {
    on_two_ranks("unequal_batches_are_one_batch_too", [7, 1]);
}

fn on_two_ranks(test: &str, batches: [i64; 2]) {
    if std::env::var_os(ROLE).is_some() {
        return compare(batches);
    }
    let mpirun = env!("MPICC").strip_suffix("mpicc").map(|bin| format!("{bin}mpirun")).unwrap();
    let out = Command::new(mpirun)
        .args(["--host", "localhost:2", "--bind-to", "none", "-np", "2", "/usr/bin/env", &format!("{ROLE}=1")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads", "1"])
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .output()
        .unwrap();
    let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
    assert!(out.status.success(), "{:?}\n{}", out.status, String::from_utf8_lossy(&text));
}

/// A norm with weights and bias that are not those of the start.
fn norm(statistics: Arc<Statistics>) -> (Store, BatchNorm) {
    let mut store = Store::new(Device::Cpu);
    let norm = BatchNorm::new(store.root(), CHANNELS, &Norms::Batch(statistics.clone()));
    statistics.set_training(true);
    let ramp = Tensor::arange(CHANNELS, (Kind::Float, Device::Cpu));
    tch::no_grad(|| {
        store.get("weight").unwrap().shallow_clone().copy_(&(&ramp * 0.3 + 0.5));
        store.get("bias").unwrap().shallow_clone().copy_(&(&ramp * 0.1 - 0.2));
    });
    (store, norm)
}

/// Two passes of each norm, on values whose mean is large beside their spread.
fn compare(batches: [i64; 2]) {
    let mpi = Arc::new(Mpi::start(Duration::from_secs(60)).unwrap());
    let (start, count) = if mpi.rank() == 0 { (0, batches[0]) } else { (batches[0], batches[1]) };
    let (whole_store, whole) = norm(Statistics::local());
    let (store, split) = norm(Statistics::of_all_ranks(Arc::new(SharedSum::new(mpi.clone()))));
    tch::manual_seed(3);
    for _ in 0..2 {
        let shape = [8, CHANNELS, 5, 7];
        let x = (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 2.0 + 10.0).set_requires_grad(true);
        let direction = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let part = |t: &Tensor| t.detach().narrow(0, start, count).copy();
        let mine = part(&x).set_requires_grad(true);
        let (y, y_mine) = (whole.forward(&x), split.forward(&mine));
        close("forward", &y_mine, &part(&y));
        (&y * &direction).sum(Kind::Float).backward();
        (&y_mine * part(&direction)).sum(Kind::Float).backward();
        close("gradient of the input", &mine.grad(), &part(&x.grad()));
        for name in ["weight", "bias"] {
            let sum = store.get(name).unwrap().grad().copy();
            let buffer = torch_ext::DeviceBuffer::new(&sum).unwrap();
            mpi.all_reduce(buffer, Label::new(0, "gradient")).wait().unwrap();
            close(name, &sum, &whole_store.get(name).unwrap().grad());
        }
        for name in ["running_mean", "running_var", "num_batches_tracked"] {
            close(name, store.get(name).unwrap(), whole_store.get(name).unwrap());
        }
    }
    mpi.shutdown(Label::new(0, "end")).unwrap();
}

/// Within 1e-5 of the largest value. Means that are large beside the spread lose digits in the variance, of which a float32 has
/// seven: with five times the spread, one is lost.
#[track_caller]
fn close(what: &str, ours: &Tensor, theirs: &Tensor) {
    let (ours, theirs) = (ours.detach().to_kind(Kind::Double), theirs.detach().to_kind(Kind::Double));
    let apart = (&ours - &theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[]);
    at_most(what, apart, 1e-5);
}
