//! The NCCL backend on real ranks, over stand-ins for NCCL and the driver (`tests/stand-in`): this test binary starts itself
//! under mpirun. With `JCS_TEST_DEVICE=cuda` (scripts/gpu-check) it is NCCL itself, and all ranks share the first GPU, each as if
//! it were on a host of its own; what needs the stand-ins then says so.

#![expect(clippy::print_stdout, reason = "the parent test reads what a rank says")]
#![expect(unsafe_code, reason = "puts work on the driver's streams")]

use collectives::{Alone, Collective, Compute, Error, Label, Mpi, Nccl, Pending, leave_now};
use cudarc::driver::sys as cuda;
use end_to_end::stand_in;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use torch_ext::DeviceBuffer;

const ROLE: &str = "COLLECTIVES_TEST_ROLE";
const LABEL: Label = Label::new(1, "test");
/// Names the folder where ranks write why they were refused.
const REFUSALS: &str = "JCS_TEST_REFUSALS";

/// Where the ranks have their tensors.
fn device() -> Device {
    if on_gpu() { Device::Cuda(0) } else { Device::Cpu }
}

fn on_gpu() -> bool {
    std::env::var_os("JCS_TEST_DEVICE").is_some_and(|device| device == "cuda")
}

/// For what only the stand-ins can be asked to do.
fn needs_the_stand_ins(test: &str) -> bool {
    if on_gpu() {
        end_to_end::say(&format!("{test}: not on a GPU: it asks the stand-ins for faults"));
    }
    on_gpu()
}

/// What is run on each of `ranks` ranks, with the stand-ins in the way of the real libraries.
struct Ranks<'a> {
    ranks: usize,
    test: &'a str,
    role: &'a str,
    variables: &'a [(&'a str, String)],
}

impl Ranks<'_> {
    /// Runs them; `None`, said aloud, where the stand-ins cannot be built. Also what they complained of.
    fn run(&self) -> Option<(Output, String)> {
        let folder = tempfile::tempdir().unwrap();
        let mpirun = env!("MPICC").strip_suffix("mpicc").map(|bin| format!("{bin}mpirun")).unwrap();
        let mut command = Command::new(if on_gpu() { "mpirun".into() } else { mpirun });
        command
            .args(["--host", &format!("localhost:{}", self.ranks), "--bind-to", "none", "-np", &self.ranks.to_string()])
            .args(["/usr/bin/env", &format!("{ROLE}={}", self.role)])
            .args(self.variables.iter().map(|(name, value)| format!("{name}={value}")));
        if on_gpu() {
            let shared = !self.variables.iter().any(|(name, _)| *name == REFUSALS);
            command.args(shared.then_some("JCS_TEST_SHARED_GPU=1"));
            command.args(["sh", "-c", r#"NCCL_HOSTID=$OMPI_COMM_WORLD_RANK exec "$0" "$@""#]);
        } else {
            command.arg(format!("LD_LIBRARY_PATH={}", paths(&stand_in::build(self.test)?)));
            command.arg(format!("STAND_IN_DIR={}", folder.path().display()));
        }
        command
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture", "--test-threads", "1"])
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        let out = command.output().unwrap();
        let complaints = std::fs::read_to_string(folder.path().join("violations")).unwrap_or_default();
        Some((out, complaints))
    }

    /// Runs them, and they end well and without a complaint.
    #[track_caller]
    fn end_well(&self) {
        let Some((out, complaints)) = self.run() else { return };
        assert!(out.status.success(), "{:?}\n{}", out.status, text(&out));
        assert_eq!(complaints, "", "{}", text(&out));
    }
}

fn paths(libraries: &Path) -> String {
    let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    format!("{}:{others}", libraries.display())
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[out.stdout.as_slice(), out.stderr.as_slice()].concat()).into_owned()
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

fn start(compute: Compute, seconds: u64) -> Result<Nccl, Error> {
    let mpi = Arc::new(Mpi::start(Duration::from_secs(30)).unwrap());
    if on_gpu() {
        torch_ext::load_cuda().unwrap();
        return Nccl::start(mpi, 0, Compute::Torch(0), Duration::from_secs(seconds));
    }
    let device = mpi.rank();
    Nccl::start(mpi, device, compute, Duration::from_secs(seconds))
}

fn ramp(n: i64, factor: f64) -> Tensor {
    Tensor::arange(n, (Kind::Float, device())) * factor
}

fn lent(t: &Tensor) -> DeviceBuffer {
    DeviceBuffer::new(t).unwrap()
}

const LEAKS: (&str, &str) = ("STAND_IN_CHECK_LEAKS", "1");

#[test]
fn sums_and_copies_are_right_on_three_ranks() {
    let Some(_) = role() else {
        let variables = [(LEAKS.0, LEAKS.1.to_owned()), ("STAND_IN_SLOW_CONNECT", "1".to_owned())];
        let test = "sums_and_copies_are_right_on_three_ranks";
        return Ranks { ranks: 3, test, role: "all", variables: &variables }.end_well();
    };
    let c = start(Compute::Host, 30).unwrap();
    let rank = c.rank();
    assert_eq!((c.world_size(), c.name().starts_with("nccl (2.")), (3, true));
    let buckets: Vec<Tensor> = (1..=5).map(|b| ramp(b * 1000, (rank as f64 + 1.0) * b as f64)).collect();
    let all = buckets.iter().map(|t| (lent(t), LABEL)).collect();
    for (b, pending) in c.all_reduce_together(all).into_iter().enumerate() {
        pending.wait().unwrap();
        assert_eq!(buckets[b], ramp((b as i64 + 1) * 1000, 6.0 * (b as f64 + 1.0)));
    }
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
        let t = Tensor::full([7], rank as f64 + 1.0, (kind, device()));
        let span = c.all_reduce(lent(&t), LABEL).wait().unwrap();
        c.settle().unwrap();
        assert!(span.duration() > Duration::ZERO);
        assert_eq!(Vec::<f64>::try_from(&t.to_kind(Kind::Double)).unwrap(), [6.0; 7], "{kind:?}");
    }
    let t = Tensor::full([7], rank as f64, (Kind::Double, device()));
    c.broadcast(lent(&t), 2, LABEL).unwrap();
    assert_eq!(Vec::<f64>::try_from(&t).unwrap(), [2.0; 7]);
    assert_eq!(c.all_gather(vec![rank as u8], LABEL).unwrap(), [[0], [1], [2]]);
    assert!(c.any(rank == 1, LABEL).unwrap());
    c.barrier(LABEL).unwrap();
    c.shutdown(LABEL).unwrap();
}

/// Work for a stream: sleeps, then copies, as a kernel would.
struct Work {
    pause: Duration,
    from: *const f32,
    to: *mut f32,
    n: usize,
}

extern "C" fn work(data: *mut c_void) {
    // SAFETY: made by `put`, which gives it away.
    let work = unsafe { Box::from_raw(data.cast::<Work>()) };
    std::thread::sleep(work.pause);
    // SAFETY: both are memory of tensors that live until the stream has ended.
    unsafe { std::ptr::copy(work.from, work.to, work.n) };
}

fn put(stream: cuda::CUstream, pause: u64, from: &Tensor, to: &Tensor) {
    let (from, to, n) = (from.data_ptr().cast::<f32>().cast_const(), to.data_ptr().cast::<f32>(), to.numel());
    let work_ = Box::new(Work { pause: Duration::from_millis(pause), from, to, n });
    // SAFETY: the stream lives; `work` takes the box over.
    let put = unsafe { cuda::cuLaunchHostFunc(stream, Some(work), Box::into_raw(work_).cast()) };
    assert_eq!(put, cuda::CUresult::CUDA_SUCCESS);
}

/// A stream of the caller's, as libtorch has one, in the device's primary context.
fn own_stream(device: usize) -> cuda::CUstream {
    let (mut handle, mut context, mut stream) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the out-pointers are of live variables.
    unsafe {
        assert_eq!(cuda::cuInit(0), cuda::CUresult::CUDA_SUCCESS);
        assert_eq!(cuda::cuDeviceGet(&raw mut handle, device as i32), cuda::CUresult::CUDA_SUCCESS);
        assert_eq!(cuda::cuDevicePrimaryCtxRetain(&raw mut context, handle), cuda::CUresult::CUDA_SUCCESS);
        assert_eq!(cuda::cuCtxSetCurrent(context), cuda::CUresult::CUDA_SUCCESS);
        assert_eq!(cuda::cuStreamCreate(&raw mut stream, 1), cuda::CUresult::CUDA_SUCCESS);
    }
    stream
}

/// Collectives, one of them a group of two, with slow work before and after each on the stream that computes. Says whether
/// what came out is right.
fn compute_and_sum() -> bool {
    let mpi = Arc::new(Mpi::start(Duration::from_secs(30)).unwrap());
    let (rank, size) = (mpi.rank(), mpi.world_size());
    let stream = own_stream(rank);
    let c = Nccl::start(mpi, rank, Compute::Stream(stream as usize), Duration::from_secs(30)).unwrap();
    let full = |value: f64| Tensor::full([1000], value, (Kind::Float, Device::Cpu));
    let (mut made, mut seen) = (Vec::new(), Vec::new());
    for i in 0..4 {
        let groups = if i == 1 { 2 } else { 1 };
        let inputs: Vec<Tensor> = (0..groups).map(|g| full((rank + 1) as f64 + 10.0 * (i * 2 + g) as f64)).collect();
        let buckets: Vec<Tensor> = (0..groups).map(|_| full(-1.0)).collect();
        let outputs: Vec<Tensor> = (0..groups).map(|_| full(-2.0)).collect();
        // The ranks are ready at different times, so that one has to wait for the sum.
        let pause = 20 + 40 * ((rank + i) % size) as u64;
        inputs.iter().zip(&buckets).for_each(|(input, bucket)| put(stream, pause, input, bucket));
        let sums = c.all_reduce_together(buckets.iter().map(|bucket| (lent(bucket), LABEL)).collect());
        sums.into_iter().for_each(|sum| drop(sum.wait().unwrap()));
        outputs.iter().zip(&buckets).for_each(|(output, bucket)| put(stream, 0, bucket, output));
        made.push((inputs, buckets));
        seen.push(outputs);
    }
    c.settle().unwrap();
    // SAFETY: the stream lives.
    assert_eq!(unsafe { cuda::cuStreamSynchronize(stream) }, cuda::CUresult::CUDA_SUCCESS);
    let ranks = (size * (size + 1) / 2) as f64;
    let mut right = true;
    for (i, outputs) in seen.iter().enumerate() {
        for (g, output) in outputs.iter().enumerate() {
            right &= *output == full(ranks + size as f64 * 10.0 * (i * 2 + g) as f64);
        }
    }
    let right_everywhere = !c.any(!right, LABEL).unwrap();
    c.shutdown(LABEL).unwrap();
    right_everywhere
}

#[test]
fn each_wait_of_a_stream_for_another_is_needed() {
    let test = "each_wait_of_a_stream_for_another_is_needed";
    if role().is_some() {
        println!("right: {}", compute_and_sum());
        return;
    }
    if needs_the_stand_ins(test) {
        return;
    }
    let run = |skipped: usize| {
        let variables = [("STAND_IN_SKIP_WAIT", skipped.to_string())];
        Ranks { ranks: 2, test, role: "ordered", variables: &variables }.run()
    };
    let Some((out, complaints)) = run(0) else { return };
    assert!(out.status.success() && text(&out).contains("right: true"), "{}", text(&out));
    assert_eq!(complaints, "");
    // One wait before each of four launches, and one after it.
    for skipped in 1..=8 {
        let Some((out, _)) = run(skipped) else { return };
        assert!(out.status.success() && text(&out).contains("right: false"), "wait {skipped}: {}", text(&out));
    }
    let Some((out, _)) = run(9) else { return };
    assert!(text(&out).contains("right: true"), "there are more waits than this test leaves out: {}", text(&out));
}

/// Sums until one fails, and says how; then leaves as a worker does.
fn sum_until_it_fails() {
    let c = start(Compute::Host, 2).unwrap();
    let began = Instant::now();
    for step in 1..=5 {
        let t = ramp(1000, 1.0);
        let sum = c.all_reduce(lent(&t), Label::bucket(step, 2, "gradient all-reduce")).wait();
        if let Err(e) = sum.map(drop).and_then(|()| c.settle()) {
            println!("timeout: {}; {e}", e.is_timeout());
            assert!(began.elapsed() < Duration::from_secs(8));
            // It stays so, and nothing hangs.
            assert!(c.barrier(LABEL).is_err() && c.settle().is_err());
            assert!(c.all_reduce(lent(&t), LABEL).wait().is_err());
            leave_now(7);
        }
    }
    println!("nothing failed");
}

#[test]
fn a_failure_names_rank_step_and_bucket_and_ends_what_is_in_flight() {
    let test = "a_failure_names_rank_step_and_bucket_and_ends_what_is_in_flight";
    if role().is_some() {
        return sum_until_it_fails();
    }
    if needs_the_stand_ins(test) {
        return;
    }
    for (fault, all) in [
        ("rank=1,op=3,hang", ["timeout: true", "(step 3, bucket 2, gradient all-reduce)", "within 2 s"]),
        (
            "rank=1,op=3,error=system",
            ["timeout: false; rank 1", "(step 3, bucket 2, gradient all-reduce)", "NCCL failed"],
        ),
        (
            "rank=1,op=3,return=internal",
            ["timeout: false; rank 1", "(step 3, bucket 2,", "NCCL failed in ncclAllReduce"],
        ),
    ] {
        let variables = [("STAND_IN_FAULT", fault.to_owned())];
        let Some((out, complaints)) = (Ranks { ranks: 2, test, role: "fault", variables: &variables }).run() else {
            return;
        };
        let text = text(&out);
        assert!(!out.status.success() && all.iter().all(|words| text.contains(words)), "{fault}: {text}");
        assert_eq!(complaints, "", "{fault}");
    }
}

/// Seconds that a sum may take of which one rank will not be part. Two processes on a real GPU take turns.
fn late() -> u64 {
    if on_gpu() { 5 } else { 2 }
}

#[test]
fn a_sum_that_a_rank_never_joins_ends_at_its_deadline_and_leaves_the_device_free() {
    let test = "a_sum_that_a_rank_never_joins_ends_at_its_deadline_and_leaves_the_device_free";
    if role().is_some() {
        let c = start(Compute::Host, late()).unwrap();
        let t = ramp(1000, 1.0);
        c.all_reduce(lent(&t), LABEL).wait().unwrap();
        c.settle().unwrap();
        c.barrier(LABEL).unwrap();
        if c.rank() == 1 {
            // Until mpirun ends it.
            std::thread::sleep(Duration::from_secs(60));
        }
        let began = Instant::now();
        let sum = c.all_reduce(lent(&t), Label::bucket(5, 3, "gradient all-reduce")).wait();
        let error = sum.map(drop).and_then(|()| c.settle()).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(began.elapsed() < Duration::from_secs(late() + 8), "{:?}", began.elapsed());
        println!("at its deadline: {error}; the device adds {}", ramp(5, 1.0).sum(Kind::Float).double_value(&[]));
        leave_now(7);
    }
    let Some((out, _)) = (Ranks { ranks: 2, test, role: "late", variables: &[] }).run() else { return };
    let text = text(&out);
    let within = format!("within {} s", late());
    for words in ["(step 5, bucket 3, gradient all-reduce)", &within, "the device adds 10"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn two_ranks_on_one_gpu_and_a_rank_without_one_are_refused_everywhere() {
    let test = "two_ranks_on_one_gpu_and_a_rank_without_one_are_refused_everywhere";
    if role().is_some() {
        let error = start(Compute::Host, 10).unwrap_err();
        let folder = PathBuf::from(std::env::var_os(REFUSALS).unwrap());
        std::fs::write(folder.join(std::env::var("OMPI_COMM_WORLD_RANK").unwrap()), error.to_string()).unwrap();
        // The first to leave takes the other with it.
        let both = || std::fs::read_dir(&folder).unwrap().count() == 2;
        let patient = Instant::now();
        while !both() && patient.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        leave_now(7);
    }
    let cases = [
        ("STAND_IN_SAME_UUID=1", "ranks 0 and 1 have the same GPU"),
        ("STAND_IN_GPUS=1", "there is no GPU 1 for this worker"),
    ];
    // On a GPU all ranks take the first one, and there is nothing else to ask for.
    for (variable, words) in &cases[..if on_gpu() { 1 } else { 2 }] {
        let (name, value) = variable.split_once('=').unwrap();
        let folder = tempfile::tempdir().unwrap();
        let variables = [(name, value.to_owned()), (REFUSALS, folder.path().display().to_string())];
        let Some((out, complaints)) = (Ranks { ranks: 2, test, role: "same", variables: &variables }).run() else {
            return;
        };
        for rank in ["0", "1"] {
            let refusal = std::fs::read_to_string(folder.path().join(rank)).unwrap_or_default();
            assert!(refusal.contains(*words), "{variable}, rank {rank}: {refusal}: {}", text(&out));
        }
        assert_eq!(complaints, "");
    }
}

#[test]
fn it_can_be_left_and_dropped_at_any_point() {
    let test = "it_can_be_left_and_dropped_at_any_point";
    let Some(_) = role() else {
        let variables = [(LEAKS.0, LEAKS.1.to_owned())];
        return Ranks { ranks: 2, test, role: "drop", variables: &variables }.end_well();
    };
    let mpi: Arc<dyn Collective> = Arc::new(Mpi::start(Duration::from_secs(90)).unwrap());
    let rank = mpi.rank();
    if on_gpu() {
        torch_ext::load_cuda().unwrap();
    }
    let (number, compute) = if on_gpu() { (0, Compute::Torch(0)) } else { (rank, Compute::Host) };
    let new = || Nccl::start(mpi.clone(), number, compute, Duration::from_secs(30)).unwrap();
    let t = ramp(100_000, 1.0);
    // Unused; with a sum that nobody waits for; with one that outlives the backend, on one rank only.
    drop(new());
    let c = new();
    drop(c.all_reduce(lent(&t), LABEL));
    c.settle().unwrap();
    // A rank that is gone breaks the connections of what the other has not finished.
    c.barrier(LABEL).unwrap();
    drop(c);
    if !on_gpu() {
        // NCCL itself would look a minute for the rank that is gone.
        let c = new();
        let sum: Option<Pending> = (rank == 0).then(|| c.all_reduce(lent(&t), LABEL));
        drop(c);
        assert!(sum.is_none_or(|sum| sum.wait().is_err()));
    }
    let c = new();
    let span = c.all_reduce(lent(&t), LABEL).wait().unwrap();
    c.barrier(LABEL).unwrap();
    c.shutdown(LABEL).unwrap();
    assert!(c.all_reduce(lent(&t), LABEL).wait().is_err());
    drop(c);
    assert!(span.duration() > Duration::ZERO);
}

/// Sums of random sizes in random groups, all of them checked.
fn stress(c: &Nccl, collectives: usize) {
    let (rank, size) = (c.rank(), c.world_size());
    let mut state = 42u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut done = 0;
    while done < collectives {
        let launches: Vec<Vec<usize>> = (0..=random(4))
            .map(|_| {
                (0..=random(5)).map(|_| if random(10) == 0 { 1 + random(300_000) } else { 1 + random(3000) }).collect()
            })
            .collect();
        let full = |n: usize, value: f64| Tensor::full([n as i64], value, (Kind::Float, device()));
        let mut all = Vec::new();
        for (l, launch) in launches.iter().enumerate() {
            let tensors: Vec<Tensor> = launch.iter().map(|n| full(*n, (rank + l) as f64)).collect();
            let sums = c.all_reduce_together(tensors.iter().map(|t| (lent(t), LABEL)).collect());
            all.extend(tensors.into_iter().zip(sums).map(|(t, sum)| (t, sum, l)));
        }
        for (t, sum, l) in all {
            sum.wait().unwrap();
            assert_eq!(t, full(t.numel(), (size * (size - 1) / 2 + size * l) as f64));
            done += 1;
        }
    }
}

#[test]
fn a_thousand_sums_of_random_sizes_in_random_groups_are_right() {
    let test = "a_thousand_sums_of_random_sizes_in_random_groups_are_right";
    let Some(_) = role() else {
        let variables = [(LEAKS.0, LEAKS.1.to_owned())];
        return Ranks { ranks: 3, test, role: "stress", variables: &variables }.end_well();
    };
    let c = start(Compute::Host, 60).unwrap();
    // Three processes on one GPU take turns.
    stress(&c, if on_gpu() { 300 } else { 1000 });
    c.shutdown(LABEL).unwrap();
}

/// One rank in this process: for memory checkers, which find fault with much in MPI. `tests/leaks.sh` runs it.
#[test]
#[ignore = "collectives/tests/leaks.sh runs it, with the stand-ins in the way of the real libraries"]
fn a_thousand_sums_alone() {
    if on_gpu() {
        torch_ext::load_cuda().unwrap();
    }
    let compute = if on_gpu() { Compute::Torch(0) } else { Compute::Host };
    let c = Nccl::start(Arc::new(Alone), 0, compute, Duration::from_secs(60)).unwrap();
    stress(&c, 1000);
    c.shutdown(LABEL).unwrap();
}
