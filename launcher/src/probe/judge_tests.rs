//! Made-up answers, and what they come to.

use super::super::script::RunDir;
use super::*;

fn expected() -> Expected {
    Expected {
        worker: "/opt/jcs".into(),
        programs: vec!["/opt/mpirun".into()],
        folder: "/work".into(),
        files: vec!["a.toml".into()],
        data: vec![("data.train".into(), "t.txt".into())],
        run_dir: Some("runs/a".into()),
        gpus: Gpus::None,
    }
}

fn good(name: &str) -> Answer {
    Answer {
        name: Some(name.into()),
        clock: Some((1000.0, 1001.0)),
        worker: Worker::Runs { version: "jcs 0.1.0".into(), sum: Some("sha256:aaaaaaaaaaaa".into()) },
        files: vec![Some("sha256:cc".into())],
        run_dir: Some(RunDir { folder: "runs".into(), closed: None, free: Some(5 * GIB), shared: true }),
        shm: Some(64 * MIB),
        tmp: Some(("/tmp".into(), GIB)),
        gpus: Some(4),
        driver: Some("580.65.06".into()),
        whole: true,
        ..Answer::default()
    }
}

fn heard(answer: Answer) -> Heard {
    Heard { answer: Ok(answer), began: 999.5, ended: 1001.5 }
}

/// The report on a host b, which answers so, beside a, which is here and well.
fn on_b_with(expected: &Expected, workers: usize, answer: Heard) -> HostReport {
    let hosts = ["a", "b"].map(|host| Share { host: host.into(), workers });
    let here = heard(good("a"));
    let mut report = judge(&hosts, &[here.clone(), answer], expected, &Here { host: "a", heard: &here });
    assert!(report.hosts[0].problems.is_empty() && report.hosts[0].warnings.is_empty(), "{report:?}");
    report.hosts.remove(1)
}

fn on_b(change: impl FnOnce(&mut Answer)) -> HostReport {
    let mut answer = good("b");
    change(&mut answer);
    on_b_with(&expected(), 2, heard(answer))
}

fn problem(change: impl FnOnce(&mut Answer)) -> (Check, String) {
    let report = on_b(change);
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    (problem.check, problem.found.clone())
}

fn warning(change: impl FnOnce(&mut Answer)) -> Option<(Check, String)> {
    let report = on_b(change);
    assert!(report.problems.is_empty(), "{report:?}");
    report.warnings.first().map(|warning| (warning.check, warning.found.clone()))
}

#[test]
fn a_good_host_has_no_findings() {
    let report = on_b(|_| ());
    let well = HostReport { host: "b".into(), reached: true, shares_run_dir: Some(true), ..HostReport::default() };
    assert_eq!(report, well);
}

#[test]
fn programs_must_be_there_and_the_same() {
    let of = |worker: Worker| problem(|b| b.worker = worker);
    let runs = |version: &str, sum: &str| Worker::Runs { version: version.into(), sum: Some(sum.into()) };
    assert_eq!(of(Worker::Missing), (Check::Programs, "no program /opt/jcs there".into()));
    let broken = "/opt/jcs does not start there: no libtorch.so".to_owned();
    assert_eq!(of(Worker::Broken("no libtorch.so".into())), (Check::Programs, broken));
    let version = "jcs 0.2.0 there, jcs 0.1.0 on a".to_owned();
    assert_eq!(of(runs("jcs 0.2.0", "sha256:bb")), (Check::Version, version));
    let build = "another build of jcs 0.1.0: sha256 bbbbbbbb… there, sha256 aaaaaaaa… on a".to_owned();
    assert_eq!(of(runs("jcs 0.1.0", "sha256:bbbbbbbbbbbb")), (Check::Version, build));
    assert_eq!(problem(|b| b.no_programs.push(0)), (Check::Programs, "no program /opt/mpirun there".into()));
    // A host without sha256sum is compared by what it says of its version.
    assert_eq!(warning(|b| b.worker = runs("jcs 0.1.0", "cksum:1-2")), None);
}

#[test]
fn files_data_and_folders_must_be_there() {
    assert_eq!(problem(|b| b.files[0] = None), (Check::Config, "no file a.toml there".into()));
    let differs = "a.toml has another content there than on a".to_owned();
    assert_eq!(problem(|b| b.files[0] = Some("sha256:dd".into())), (Check::Config, differs));
    assert_eq!(problem(|b| b.no_data.push(0)), (Check::Data, "no data.train there: t.txt".into()));
    let nowhere = Answer { name: Some("b".into()), no_folder: true, whole: true, ..Answer::default() };
    assert_eq!(problem(|b| *b = nowhere), (Check::Folder, "no directory /work there".into()));
}

#[test]
fn room_is_needed_on_disk_and_in_memory() {
    let with_run_dir = |change: &dyn Fn(&mut RunDir)| problem(|b| change(b.run_dir.as_mut().unwrap()));
    let closed = with_run_dir(&|dir| dir.closed = Some("Read-only file system".into()));
    assert_eq!(closed, (Check::RunDir, "cannot write runs/a: runs: Read-only file system".into()));
    let small = with_run_dir(&|dir| dir.free = Some(GIB - 1));
    assert_eq!(small, (Check::Disk, "1023 MiB free for runs/a, 1.0 GiB needed".into()));
    assert_eq!(problem(|b| b.shm = Some(31 * MIB)), (Check::Shm, "31 MiB free, 2 workers need 32 MiB".into()));
    let tmp = problem(|b| b.tmp = Some(("/tmp".into(), 100)));
    assert_eq!(tmp, (Check::Tmp, "100 KiB free in /tmp, mpirun needs 16 MiB".into()));
    assert_eq!(problem(|b| b.tmp_closed = Some("no".into())).0, Check::Tmp);
    // A worker that is alone on its host shares memory with nobody.
    assert!(on_b_with(&expected(), 1, heard(Answer { shm: Some(1), ..good("b") })).problems.is_empty());
}

#[test]
fn gpus_are_counted_and_their_drivers_compared() {
    let with = |gpus, workers, change: fn(&mut Answer)| {
        let mut answer = good("b");
        answer.shm = None;
        change(&mut answer);
        let mut report = on_b_with(&Expected { gpus, ..expected() }, workers, heard(answer));
        let text = |all: &mut Vec<Finding>| all.drain(..).map(|f| f.found).collect::<Vec<_>>().join("; ");
        (text(&mut report.problems), text(&mut report.warnings))
    };
    let said = |problem: &str, warning: &str| (problem.to_owned(), warning.to_owned());
    assert_eq!(with(Gpus::Perhaps, 4, |b| b.gpus = Some(2)), said("2 GPUs, 4 workers planned", ""));
    assert_eq!(with(Gpus::None, 4, |b| b.gpus = Some(0)), said("", ""));
    let none: fn(&mut Answer) = |b| (b.gpus, b.driver) = (Some(0), None);
    assert!(with(Gpus::Required, 4, none).0.starts_with("no GPU and no NVIDIA driver, and the configuration asks for"));
    assert_eq!(with(Gpus::None, 4, none), said("", ""));
    // MIG: this machine has 4 of 5 by this count, and its workers were planned by another.
    let here = heard(Answer { shm: None, ..good("a") });
    let hosts = [Share { host: "a".into(), workers: 5 }];
    let mig = Expected { gpus: Gpus::Required, ..expected() };
    let report = judge(&hosts, std::slice::from_ref(&here), &mig, &Here { host: "a", heard: &here });
    assert!(report.is_spotless(), "{report:?}");
    let other = "NVIDIA driver 535.104.05 there, 580.65.06 on a";
    let older: fn(&mut Answer) = |b| b.driver = Some("535.104.05".into());
    assert_eq!(with(Gpus::Required, 4, older), said("", other));
    let untold: fn(&mut Answer) = |b| b.gpus_untold = Some("no end within 8 s".into());
    assert_eq!(with(Gpus::Required, 4, untold), said("", "no end within 8 s"));
    let spare: fn(&mut Answer) = |b| b.gpus_unfit = vec![(4, "for the screen".into())];
    assert_eq!(with(Gpus::Required, 4, spare), said("", ""));
    let unfit: fn(&mut Answer) = |b| b.gpus_unfit = vec![(3, "the driver serves CUDA up to 12.2".into())];
    assert_eq!(with(Gpus::Required, 4, unfit), said("the driver serves CUDA up to 12.2", ""));
    assert_eq!(with(Gpus::Perhaps, 4, unfit), said("", "the driver serves CUDA up to 12.2"));
    assert_eq!(with(Gpus::None, 4, unfit), said("", ""));
}

#[test]
fn clocks_are_compared_by_their_middles() {
    let at = |clock| warning(|b| b.clock = Some(clock));
    assert_eq!(at((1004.0, 1006.0)), None);
    assert_eq!(at((1007.0, 1009.0)), Some((Check::Clock, "8 s ahead".into())));
    assert_eq!(at((900.0, 901.0)), Some((Check::Clock, "100 s behind".into())));
}

#[test]
fn hosts_without_an_answer_of_their_own_are_named() {
    let silent = on_b_with(&expected(), 1, Heard::silent("not reached over ssh: no such host"));
    assert!(!silent.reached && silent.problems[0].found == "not reached over ssh: no such host");
    assert_eq!(problem(|b| b.whole = false), (Check::Reach, "the answer makes no sense".into()));
    assert_eq!(problem(|b| b.name = None).0, Check::Reach);
    assert_eq!(problem(|b| b.name = Some("a".into())), (Check::Name, "a and b both call themselves a".into()));
    assert_eq!(
        judge(
            &[Share { host: "x".into(), workers: 1 }],
            &[],
            &expected(),
            &Here { host: "a", heard: &Heard::silent("x") }
        )
        .unfit()
        .unwrap()
        .text,
        "1 of 1 host cannot take part: x: was not asked"
    );
}
