//! Weights files: between formats, from PyTorch, and from strangers.

use end_to_end::{Bench, text};
use std::fs;
use std::process::Command;

fn python(test: &str) -> Option<String> {
    end_to_end::skip::python(test, "torch")
}

fn run_python(bench: &Bench, python: &str, script: &str) {
    let out = Command::new(python).args(["-c", script]).current_dir(bench.path()).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn weights_go_to_pytorch_and_back_bit_for_bit() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=1"]);
    let convert = |from: &str, to: &str| {
        let out = bench.run("jcs", &["convert", from, to]);
        assert!(out.status.success(), "{}", text(&out));
    };
    convert("run/checkpoints/step-00000001/model.safetensors", "a.pth");
    convert("a.pth", "b.safetensors");
    convert("b.safetensors", "c.pth");
    let read = |name: &str| fs::read(bench.path().join(name)).unwrap();
    assert!(read("a.pth") == read("c.pth"), "the second file differs");
    // Evaluation takes either; what the file does not say is named, or taken from its tensors and the configuration.
    let eval = |weights: &str| {
        let out = bench.run("jcs", &["eval", "small.toml", "--weights", weights, "--json", "e.json"]);
        assert!(out.status.success(), "{}", text(&out));
        (read("e.json"), text(&out))
    };
    let (metrics, said) = eval("a.pth");
    assert!(said.contains("assumed: kind = single, width = 0.125, mean of"), "{said}");
    assert_eq!(metrics, eval("run").0);
}

#[test]
fn pytorchs_own_files_are_read_and_ours_loaded() {
    let Some(python) = python("pytorchs_own_files_are_read_and_ours_loaded") else { return };
    let bench = Bench::new();
    run_python(
        &bench,
        &python,
        "
import torch
torch.manual_seed(0)
base = torch.randn(6, 4)
state = {'a.weight': base.t()[1:], 'a.half': base.half(), 'a.bf16': base.bfloat16(), 'a.n': torch.tensor(7),
         'shared': base[2], 'empty': torch.zeros(0, 3), 'flag': torch.tensor([True, False])}
for zipped in (True, False):
    name = 'new' if zipped else 'old'
    torch.save({'epoch': 3, 'state_dict': {'module.' + k: v for k, v in state.items()},
                'optimizer': {'state': {0: {'step': 1, 'm': base}}}}, name + '.pth', _use_new_zipfile_serialization=zipped)
torch.save(state, 'state.pt')
",
    );
    for name in ["new", "old"] {
        for (from, to) in [
            (format!("{name}.pth"), format!("{name}.safetensors")),
            (format!("{name}.safetensors"), format!("{name}-back.pth")),
        ] {
            let out = bench.run("jcs", &["convert", &from, &to]);
            assert!(out.status.success(), "{}", text(&out));
        }
    }
    run_python(
        &bench,
        &python,
        "
import torch
want = torch.load('state.pt')
for name in ('new', 'old'):
    got = torch.load(name + '-back.pth', weights_only=True)
    assert sorted(got) == sorted(want), (list(got), list(want))
    for k in want:
        assert got[k].dtype == want[k].dtype and got[k].shape == want[k].shape, k
        assert torch.equal(got[k], want[k]), k
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for k, v in want.items():
            self.register_buffer(k.replace('.', '_'), torch.zeros_like(v))
net = Net()
net.load_state_dict({k.replace('.', '_'): v for k, v in got.items()}, strict=True)
",
    );
}

/// A file of the legacy format whose tensor `w` claims this many elements, and has one.
fn claiming(elements: u64) -> Vec<u8> {
    let number = [&b"\x8a\x08"[..], &elements.to_le_bytes()].concat();
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    [
        head,
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        number.clone(),
        b"NtQK\0".to_vec(),
        number,
        b"\x85K\x01\x85\x89}tRs.\x80\x02]".to_vec(),
        text("0"),
        b"a.".to_vec(),
        elements.to_le_bytes().to_vec(),
        1f32.to_le_bytes().to_vec(),
    ]
    .concat()
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    assert_eq!(from.len(), to.len());
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..][..from.len()] == from {
            out[at..][..to.len()].copy_from_slice(to);
        }
    }
    out
}

#[test]
fn files_of_strangers_are_refused_in_one_line() {
    let bench = Bench::new();
    let refused = |name: &str, bytes: &[u8], what: &str| {
        fs::write(bench.path().join(name), bytes).unwrap();
        // With little memory: nothing is taken for what a file merely claims.
        let limited =
            format!("ulimit -v 4000000; exec '{}' convert {name} out.safetensors", end_to_end::binary("jcs").display());
        let out = Command::new("bash").args(["-c", &limited]).current_dir(bench.path()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(3), "{name}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{name}: {said}");
        assert!(said.contains(what) && said.contains(name), "{name}: {said}");
        assert!(!bench.path().join("out.safetensors").exists());
    };
    // A pickle that would make a file: magic number, version, system info, then `os.system('touch ran')`.
    let mut pickle = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    pickle.extend(b"\x80\x02cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R.");
    refused("evil.pth", &pickle, "posix.system");
    assert!(!bench.path().join("ran").exists(), "it was run");
    refused("cut.pth", &pickle[..20], "");
    refused("vast.pth", &claiming(1 << 60), "4611686018427387904 bytes");
    let header = br#"{"w":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}"#;
    refused("vast.safetensors", &[&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat(), "");
    let entry = |name: &[u8]| {
        fs::write(bench.path().join("ours.pth"), claiming(1)).unwrap();
        assert!(bench.run("jcs", &["convert", "ours.pth", "zip.pth"]).status.success());
        replaced(&fs::read(bench.path().join("zip.pth")).unwrap(), b"archive/", name)
    };
    refused("outside.pth", &entry(b"../../x/"), "../../x/");
    refused("absolute.pth", &entry(b"/tmp/xy/"), "/tmp/xy/");
    let whole = entry(b"archive/");
    for length in (0..whole.len()).step_by(whole.len().div_ceil(16)).skip(1) {
        refused("short.pth", &whole[..length], "");
    }
    refused("page.pth", b"<!DOCTYPE html><html></html>", "HTML");
    refused("nothing.pt", b"", "empty");
    refused("junk.safetensors", b"junk", "");
}
