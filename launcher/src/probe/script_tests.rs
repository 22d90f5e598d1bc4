//! What /bin/sh makes of the script, here.

use super::*;
use crate::nodes::Reach;
use crate::remote;
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(13);

fn text(s: impl AsRef<Path>) -> String {
    s.as_ref().to_string_lossy().into_owned()
}

fn printed(script: &str) -> String {
    remote::run(Reach::Here, "here", script, Duration::from_secs(10)).unwrap()
}

fn run(expected: &Expected, nonce: Option<&str>) -> Answer {
    let answer = Answer::read(&format!("Welcome to the lab!\n{}", printed(&expected.script(nonce, true, SOON))));
    assert!(answer.whole);
    answer
}

#[test]
fn a_host_that_has_everything_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("it's \"$odd\"");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("a b.toml"), "x").unwrap();
    std::fs::write(odd.join(".nonce"), "").unwrap();
    let expected = Expected {
        worker: "/bin/true".into(),
        programs: vec!["/bin/sh".into()],
        folder: text(&odd),
        files: vec!["a b.toml".into()],
        data: vec![("data.train".into(), text(&odd))],
        run_dir: Some("runs/it's new/deep".into()),
        gpus: Gpus::Perhaps,
    };
    let answer = run(&expected, Some(&text(odd.join(".nonce"))));
    assert_eq!(answer.name.as_deref(), Some(protocol::side_channel::host_name().as_str()));
    assert_eq!((answer.no_folder, &answer.no_programs, &answer.no_data), (false, &vec![], &vec![]));
    let Worker::Runs { sum: Some(sum), .. } = &answer.worker else { panic!("{answer:?}") };
    assert!(sum.starts_with("sha256:") && sum.len() == 71, "{sum}");
    assert_eq!(
        answer.files,
        [Some("sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881".to_owned())]
    );
    let run_dir = answer.run_dir.unwrap();
    assert_eq!((run_dir.folder.as_str(), run_dir.closed, run_dir.shared), (".", None, true));
    assert!(run_dir.free.unwrap() > 0 && answer.shm.unwrap() > 0 && answer.tmp.unwrap().1 > 0);
    let (first, last) = answer.clock.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(first <= last && (now - last).abs() < 5.0, "{first} {last} {now}");
    let left: Vec<_> = std::fs::read_dir(&odd).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "the host's own probes are gone: {left:?}");
}

#[test]
fn what_is_missing_is_said() {
    let expected = Expected {
        worker: "/nonexistent/jcs".into(),
        programs: vec!["/bin/sh".into(), "/nonexistent/mpirun".into()],
        folder: "/".into(),
        files: vec!["no such.toml".into()],
        data: vec![("data.train".into(), "/bin/sh".into()), ("data.eval".into(), "no such".into())],
        run_dir: Some("/proc/none/run".into()),
        gpus: Gpus::None,
    };
    let answer = run(&expected, Some("/nonexistent/nonce"));
    assert_eq!(answer.worker, Worker::Missing);
    assert_eq!((answer.no_programs, answer.files, answer.no_data), (vec![1], vec![None], vec![1]));
    let run_dir = answer.run_dir.unwrap();
    assert!(!run_dir.shared && run_dir.folder == "/proc", "{run_dir:?}");
    assert!(run_dir.closed.is_some_and(|why| !why.is_empty() && !why.contains("jcs-probe")));
    let nowhere = run(&Expected { folder: "/no where".into(), ..expected.clone() }, None);
    assert!(nowhere.no_folder && nowhere.name.is_some() && nowhere.worker == Worker::Untried);
    let file = run(&Expected { run_dir: Some("/bin/sh/run".into()), ..expected }, None);
    assert_eq!(file.run_dir.unwrap().closed.as_deref(), Some("is no directory"));
}

#[test]
fn a_worker_that_does_not_start_says_why() {
    // ls knows no option of this name, and says so.
    let script =
        Expected { worker: "/bin/ls".into(), folder: "/".into(), ..Expected::default() }.script(None, true, SOON);
    let answer = Answer::read(&printed(&script.replace("--version", "--no-such-option")));
    assert!(matches!(&answer.worker, Worker::Broken(why) if !why.is_empty()), "{answer:?}");
}

#[test]
fn without_others_to_compare_with_it_is_quick() {
    let expected = Expected {
        worker: "/bin/sh".into(),
        folder: "/".into(),
        run_dir: Some("/tmp/a/b".into()),
        ..Expected::default()
    };
    let began = Instant::now();
    let answer = Answer::read(&printed(&expected.script(None, false, SOON)));
    assert!(answer.whole && answer.worker == Worker::Untried && answer.run_dir.is_some());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn drivers_say_their_version_in_two_ways() {
    for (line, version) in [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
    ] {
        let answer = Answer::read(&format!("{MARK} driver {line}\n{MARK} gpu-unfit 1 too old\n{MARK} clock 12.N"));
        assert_eq!(answer.driver.as_deref(), Some(version));
        assert_eq!((answer.gpus_unfit, answer.clock), (vec![(1, "too old".to_owned())], Some((12.0, 12.0))));
    }
}

#[test]
fn an_answer_that_breaks_off_tells_where() {
    let text = format!("{MARK} host a\n{MARK} at the working directory\n{MARK} at the run directory\nrubbish");
    assert_eq!(Answer::last_station(&text), Some("the run directory"));
    assert!(!Answer::read(&text).whole && Answer::last_station("").is_none());
}
