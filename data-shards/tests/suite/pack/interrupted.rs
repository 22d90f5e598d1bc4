//! A pack that is killed, stopped, or asked to go on with something else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_shards::pack::key_file;

use super::{noise, read, tree};

const IMAGES: usize = 1400;

fn source(folder: &Path) -> PathBuf {
    let source = folder.join("source");
    for at in 0..IMAGES {
        let patient = source.join(format!("covid/P{}", at / 4));
        fs::create_dir_all(&patient).unwrap();
        crate::png(&patient.join(format!("{at}.png")), 48, 48, &noise(at, 48 * 48));
    }
    // One that is only found out when it is decoded.
    let broken = source.join("covid/P3/13.png");
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    source
}

fn command(source: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-shards"));
    command.arg("pack").args([source, out]).args(["--jobs", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until a shard is finished and another begun.
fn begun(out: &Path, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_there = |name: &str| out.join(name).exists();
    while !is_there(".pack/data-000000.tar.json") || !is_there(".data-000001.tar.partial") {
        assert!(child.try_wait().unwrap().is_none(), "ended too early");
        assert!(Instant::now() < deadline, "no shard within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn killed_and_started_again_it_is_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let undisturbed = command(&source, &whole).output().unwrap();
    assert!(undisturbed.status.success(), "{}", said(&undisturbed.stderr));
    assert!(said(&undisturbed.stderr).contains("left out: ") && said(&undisturbed.stderr).contains("13.png"));
    fs::copy(key_file(&whole), key_file(&killed)).unwrap();
    let mut child = command(&source, &killed).spawn().unwrap();
    begun(&killed, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.join("index.json").exists());
    let first = fs::metadata(killed.join("data-000000.tar")).unwrap().modified().unwrap();
    let again = command(&source, &killed).output().unwrap();
    assert!(again.status.success(), "{}", said(&again.stderr));
    assert!(said(&again.stdout).contains("of it from an earlier run"), "{}", said(&again.stdout));
    assert_eq!(fs::metadata(killed.join("data-000000.tar")).unwrap().modified().unwrap(), first);
    assert_eq!(read(&killed).len(), IMAGES - 1);
    let (whole, killed) = (tree(&whole), tree(&killed));
    assert_eq!(whole.keys().collect::<Vec<_>>(), killed.keys().collect::<Vec<_>>());
    assert!(whole == killed, "the bytes differ");
    let private = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(private("whole.report.json"), private("killed.report.json"));
}

#[test]
fn stopped_it_leaves_nothing_half_written_and_guards_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let out = folder.path().join("out");
    let mut child = command(&source, &out).spawn().unwrap();
    begun(&out, &mut child);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(130), "{}", said(&stopped.stderr));
    assert!(said(&stopped.stderr).contains("the same command goes on"), "{}", said(&stopped.stderr));
    let left: Vec<PathBuf> = tree(&out).into_keys().filter(|path| path.to_string_lossy().contains("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
    let other = command(&source, &out).args(["--seed", "5"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(said(&other.stderr).contains("the options or the key changed"), "{}", said(&other.stderr));
    crate::png(&source.join("covid/P0/more.png"), 48, 48, &noise(7777, 48 * 48));
    let changed = command(&source, &out).output().unwrap();
    assert_eq!(changed.status.code(), Some(2));
    assert!(
        said(&changed.stderr).contains("the source changed") && said(&changed.stderr).contains("remove this folder")
    );
    fs::remove_file(source.join("covid/P0/more.png")).unwrap();
    assert!(command(&source, &out).output().unwrap().status.success());
    assert_eq!(read(&out).len(), IMAGES - 1);
}

#[test]
fn bad_arguments_and_bad_input_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    let code = |arguments: &[&str]| command(&source, &out).args(arguments).output().unwrap().status.code();
    assert_eq!(code(&[]), Some(3));
    for wrong in
        [["--split", "train=0.5"], ["--window", "1"], ["--mask-values", "0"], ["--format", "x"], ["--jobs", "0"]]
    {
        assert_eq!(code(&wrong), Some(2), "{wrong:?}");
    }
}
