//! The shim against libtorch itself. `tests/leaks.sh` runs this binary under LeakSanitizer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::{Device, Kind, Tensor};
use torch_ext::{Autocast, DeviceBuffer};

fn parameter() -> Tensor {
    Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true)
}

#[test]
fn a_hook_runs_once_a_backward_pass_after_the_gradient_is_there() {
    let p = parameter();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    torch_ext::set_grad_hook(&p, move || {
        seen.fetch_add(1, Ordering::SeqCst);
        Ok(())
    })
    .unwrap();
    for _ in 0..2 {
        (&p * 2.0).sum(Kind::Float).backward();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    torch_ext::clear_grad_hook(&p).unwrap();
    (&p * 2.0).sum(Kind::Float).backward();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn dropping_the_parameter_drops_the_hook() {
    let held = Arc::new(());
    let p = parameter();
    let inside = held.clone();
    torch_ext::set_grad_hook(&p, move || {
        let _ = &inside;
        Ok(())
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&held), 2);
    drop(p);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn an_error_or_panic_in_a_hook_ends_the_backward_pass() {
    let p = parameter();
    torch_ext::set_grad_hook(&p, || Err("bucket 3 is full".into())).unwrap();
    let e = (&p * 2.0).sum(Kind::Float).f_backward().unwrap_err().to_string();
    assert!(e.contains("bucket 3 is full"), "{e}");
    torch_ext::set_grad_hook(&p, || panic!("out of order")).unwrap();
    let e = (&p * 2.0).sum(Kind::Float).f_backward().unwrap_err().to_string();
    assert!(e.contains("a gradient hook panicked: out of order"), "{e}");
}

/// As if there were two ranks that do the same.
fn doubled(t: &Tensor) -> Result<(), String> {
    let _ = t.shallow_clone().multiply_scalar_(2.0);
    Ok(())
}

#[test]
fn a_sum_over_ranks_sums_values_and_gradients() {
    let p = parameter();
    let sum = torch_ext::sum_over_ranks(&(&p * 3.0), doubled).unwrap();
    assert_eq!(sum.double_value(&[1, 2]), 6.0);
    (&sum * 5.0).sum(Kind::Float).backward();
    assert_eq!(p.grad().double_value(&[0, 1]), 30.0);
    let still = tch::no_grad(|| torch_ext::sum_over_ranks(&p, doubled)).unwrap();
    assert!(!still.requires_grad());
}

#[test]
fn a_sum_over_ranks_that_fails_ends_the_pass_and_is_freed() {
    let held = Arc::new(());
    let p = parameter();
    let inside = held.clone();
    let fails = move |_: &Tensor| {
        let _ = &inside;
        Err::<(), _>("rank 1 is gone".to_owned())
    };
    let e = torch_ext::sum_over_ranks(&p, fails).unwrap_err().to_string();
    assert!(e.contains("rank 1 is gone"), "{e}");
    assert_eq!(Arc::strong_count(&held), 1);
    let calls = AtomicUsize::new(0);
    let inside = held.clone();
    let fails_later = move |_: &Tensor| match (calls.fetch_add(1, Ordering::SeqCst), &inside) {
        (0, _) => Ok(()),
        _ => panic!("out of order"),
    };
    let sum = torch_ext::sum_over_ranks(&p, fails_later).unwrap();
    let e = sum.sum(Kind::Float).f_backward().unwrap_err().to_string();
    assert!(e.contains("a sum over ranks panicked: out of order"), "{e}");
    drop(sum);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_hook_needs_a_leaf_and_is_freed_when_refused() {
    let held = Arc::new(());
    let inside = held.clone();
    let not_a_leaf = parameter() * 2.0;
    let e = torch_ext::set_grad_hook(&not_a_leaf, move || {
        let _ = &inside;
        Ok(())
    })
    .unwrap_err();
    assert!(e.to_string().contains("only a leaf"), "{e}");
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn backward_adds_into_a_view_of_our_own() {
    let p = parameter();
    let bucket = Tensor::zeros([10], (Kind::Float, Device::Cpu));
    torch_ext::set_grad(&p, &bucket.narrow(0, 2, 6).view([2, 3])).unwrap();
    for _ in 0..2 {
        (&p * 2.0).sum(Kind::Float).backward();
    }
    let values = Vec::<f32>::try_from(&bucket).unwrap();
    assert_eq!(values, [0.0, 0.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.0, 0.0]);
    torch_ext::clear_grad(&p).unwrap();
    assert!(!p.grad().defined());
}

#[test]
fn a_gradient_of_another_shape_is_refused() {
    let view = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
    let e = torch_ext::set_grad(&parameter(), &view).unwrap_err().to_string();
    assert!(e.contains("[3, 2]") && e.contains("[2, 3]"), "{e}");
}

#[test]
fn autocast_holds_for_its_scope() {
    let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
    {
        let _on = Autocast::bf16(Device::Cpu).unwrap();
        assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
        {
            let _off = Autocast::disabled(Device::Cpu).unwrap();
            assert_eq!(a.matmul(&a).kind(), Kind::Float);
        }
        assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
    }
    assert_eq!(a.matmul(&a).kind(), Kind::Float);
}

#[test]
fn memory_format_changes_the_order_not_the_values() {
    let t = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
    let c = torch_ext::channels_last(&t).unwrap();
    assert!(torch_ext::is_channels_last(&c).unwrap() && !torch_ext::is_contiguous(&c).unwrap());
    assert_eq!(c, t);
    let e = torch_ext::channels_last(&t.view([24])).unwrap_err().to_string();
    assert!(e.contains("contiguous(channels_last)"), "{e}");
}

#[test]
fn generator_state_repeats_the_draws() {
    let state = torch_ext::generator_state().unwrap();
    let a = Tensor::rand([4], (Kind::Float, Device::Cpu));
    torch_ext::set_generator_state(&state).unwrap();
    assert_eq!(a, Tensor::rand([4], (Kind::Float, Device::Cpu)));
    assert!(torch_ext::set_generator_state(&Tensor::zeros([3], (Kind::Uint8, Device::Cpu))).is_err());
}

#[test]
fn a_buffer_is_the_tensors_memory() {
    let t = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
    let b = DeviceBuffer::new(&t).unwrap();
    assert_eq!((b.pointer(), b.elements(), b.device()), (t.data_ptr(), 6, Device::Cpu));
    let e = DeviceBuffer::new(&t.transpose(0, 1)).unwrap_err().to_string();
    assert!(e.contains("not contiguous"), "{e}");
    assert!(DeviceBuffer::new(&t.to_kind(Kind::Int64)).is_err());
}

#[test]
fn a_stream_is_there_where_an_accelerator_is() {
    assert_eq!(torch_ext::current_stream(0).is_ok(), tch::Cuda::is_available());
}

#[test]
fn without_cuda_there_is_no_stream_for_copies() {
    let error = torch_ext::CopyStream::new(0).unwrap_err().to_string();
    assert!(error.contains("CUDA") || error.contains("cuda"), "{error}");
    torch_ext::release_memory().unwrap();
}

/// On the real libraries, which need no GPU for this.
#[test]
fn cuda_that_is_loaded_late_says_what_it_is_built_for_and_too_late_is_an_error() {
    const TEST: &str = "cuda_that_is_loaded_late_says_what_it_is_built_for_and_too_late_is_an_error";
    const ROLE: &str = "TORCH_EXT_TEST_CUDA";
    if let Ok(role) = std::env::var(ROLE) {
        if role == "too late" {
            // Asks whether there is CUDA, so as to seed it, too.
            tch::manual_seed(1);
        }
        let told = torch_ext::load_cuda().map(|build| format!("CUDA {} for {}", build.runtime, build.capabilities()));
        return end_to_end::say(&format!("told: {}", told.unwrap_or_else(|error| error.to_string())));
    }
    if !torch_ext::version().starts_with("2.13.") {
        return end_to_end::skip::cannot_run(TEST, "the CUDA libraries of the tests' Python are those of PyTorch 2.13");
    }
    let nvidia = match end_to_end::stand_in::nvidia() {
        Ok(nvidia) => nvidia,
        Err(why) => return end_to_end::skip(TEST, &why),
    };
    let folders =
        std::fs::read_dir(nvidia).unwrap().map(|entry| entry.unwrap().path().join("lib").display().to_string());
    let libraries = folders.collect::<Vec<_>>().join(":");
    let told = |role: &str| {
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(ROLE, role)
            .env("LD_LIBRARY_PATH", &libraries)
            .output()
            .unwrap();
        end_to_end::text(&out)
    };
    let early = told("early");
    // For which GPUs is told where there is a driver.
    assert!(early.contains("told: CUDA 13000 for "), "{early}");
    let late = told("too late");
    assert!(late.contains("asked for CUDA before its CUDA half was loaded"), "{late}");
}
