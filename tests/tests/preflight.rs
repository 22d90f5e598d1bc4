//! What is wrong with hosts is found before anything starts: on namespaces with a network between them, each with its own
//! mounts, so that one host lacks what the others have.

use end_to_end::hosts::{Family, Hosts};
use end_to_end::{Bench, binary, last_line, text};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

/// No answer may take longer.
const AT_MOST: Duration = Duration::from_secs(15);

/// Starts training on `nodes`, which must be refused in time with nothing created, and returns what was said.
fn refused(hosts: &Hosts, bench: &Bench, nodes: &str, settings: &[&str]) -> String {
    let began = Instant::now();
    let out = launch(hosts, bench, nodes, settings);
    let took = began.elapsed();
    assert_eq!(out.status.code(), Some(6), "{}", text(&out));
    assert!(took < AT_MOST, "{took:?}\n{}", text(&out));
    assert!(
        last_line(&out).starts_with("jcs-launch: ") && last_line(&out).ends_with("; exit code 6"),
        "{}",
        text(&out)
    );
    assert!(!bench.path().join("run/logs").exists(), "{nodes}");
    hosts.assert_nothing_left();
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn launch(hosts: &Hosts, bench: &Bench, nodes: &str, settings: &[&str]) -> Output {
    let arguments = [&["--nodes", nodes, "--max-restarts", "0", "small.toml", "run.dir=run"], settings].concat();
    hosts.launch(bench, &arguments).output().unwrap()
}

/// The rows of the table about a host, with its columns but the first.
fn rows(said: &str, host: &str) -> Vec<Vec<String>> {
    let columns = |line: &str| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(String::from).collect();
    let all = said.lines().map(columns).filter(|row: &Vec<String>| row.len() == 4);
    all.filter(|row| row[0] == host).map(|row| row[1..].to_vec()).collect()
}

/// One row about `host`, whose check and finding are these; every row says what to do.
fn assert_row(said: &str, host: &str, check: &str, found: &str) {
    let rows = rows(said, host);
    assert!(
        rows.iter().any(|row| row[0] == check && row[1].contains(found) && !row[2].is_empty()),
        "{host} {check}: {said}"
    );
}

/// Something that only host `i` sees.
fn on_host(hosts: &Hosts, i: usize, script: &str, arguments: &[&Path]) {
    let mut command = hosts.command(i, "/bin/sh");
    let out = command.args(["-ec", script, "sh"]).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
}

fn mount_tmpfs(hosts: &Hosts, i: usize, size: &str, place: &Path) {
    on_host(hosts, i, &format!("mount -t tmpfs -o size={size} tmpfs \"$1\""), &[place]);
}

#[test]
fn fit_hosts_start_and_a_shared_run_directory_is_found_out() {
    let bench = Bench::new();
    let name = "fit_hosts_start_and_a_shared_run_directory_is_found_out";
    let Some(hosts) = Hosts::new(name, 3, Family::V4, &bench) else { return };
    let note = |run: &str, settings: &[&str]| {
        let run = format!("run.dir={run}");
        let out = launch(&hosts, &bench, "host[1-3]:1", &[&["train.max_steps=1", run.as_str()], settings].concat());
        assert!(out.status.success(), "{}", text(&out));
        assert!(String::from_utf8_lossy(&out.stderr).starts_with("jcs-launch: 3 nodes"), "{}", text(&out));
        let log = run.trim_start_matches("run.dir=").to_owned() + "/logs/launcher.log";
        std::fs::read_to_string(bench.path().join(log)).unwrap()
    };
    let log = note("shared", &[]);
    assert!(log.contains("the run directory is shared by all hosts: host1, host2, host3"), "{log}");
    // /tmp is each host's own, and the bench's folder is none of it.
    let own = bench.path().join("own");
    std::fs::create_dir(&own).unwrap();
    mount_tmpfs(&hosts, 3, "2g", &own);
    let log = note("own/run", &[]);
    assert!(log.contains("the run directory here is seen on host1, host2, and not on host3"), "{log}");
    let log = note("asked-nobody", &["--no-preflight"]);
    assert!(!log.contains("the run directory"), "{log}");
    let left: Vec<_> = std::fs::read_dir(bench.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn hosts_that_are_not_there_are_named() {
    let bench = Bench::new();
    let Some(hosts) = Hosts::new("hosts_that_are_not_there_are_named", 2, Family::V4, &bench) else { return };
    let said = refused(&hosts, &bench, "host1:1,host9:1", &[]);
    assert!(said.starts_with("jcs-launch: 2 nodes × 1 worker"), "{said}");
    assert_row(&said, "host9", "reachable", "not reached over ssh");
    assert!(rows(&said, "host1").is_empty(), "{said}");
    // Its name leads somewhere, but nobody is there.
    hosts.cut_off(2);
    let said = refused(&hosts, &bench, "host[1-2]:1", &[]);
    assert_row(&said, "host2", "reachable", "over ssh");
}

#[test]
fn a_host_without_the_programs_is_named() {
    let bench = Bench::new();
    let Some(hosts) = Hosts::new("a_host_without_the_programs_is_named", 2, Family::V4, &bench) else { return };
    on_host(&hosts, 2, "mount -t tmpfs -o size=1m tmpfs \"$1\"", &[binary("jcs").parent().unwrap()]);
    let said = refused(&hosts, &bench, "host[1-2]:1", &[]);
    assert_row(&said, "host2", "programs", &format!("no program {} there", binary("jcs").display()));
    assert!(last_line_of(&said).contains("1 of 2 hosts cannot take part: host2: no program"), "{said}");
}

#[test]
fn another_version_and_another_build_are_told_apart() {
    let bench = Bench::new();
    let name = "another_version_and_another_build_are_told_apart";
    let Some(hosts) = Hosts::new(name, 3, Family::V4, &bench) else { return };
    let own = std::process::Command::new(binary("jcs")).arg("--version").output().unwrap();
    let own = String::from_utf8_lossy(&own.stdout).trim().to_owned();
    let disguise = |i: usize, version: &str| {
        let script = bench.path().join(format!("jcs{i}"));
        std::fs::write(&script, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
        on_host(&hosts, i, "chmod +x \"$1\"; mount --bind \"$1\" \"$2\"", &[&script, &binary("jcs")]);
    };
    disguise(2, "jcs 7.6.5");
    disguise(3, &own);
    let said = refused(&hosts, &bench, "host[1-3]:1", &[]);
    assert_row(&said, "host2", "version", &format!("jcs 7.6.5 there, {own} on host1"));
    assert_row(&said, "host3", "version", &format!("another build of {own}: sha256"));
}

#[test]
fn too_little_room_is_found_wherever_it_is_needed() {
    let bench = Bench::new();
    let name = "too_little_room_is_found_wherever_it_is_needed";
    let Some(hosts) = Hosts::new(name, 3, Family::V4, &bench) else { return };
    let run = bench.path().join("run");
    std::fs::create_dir(&run).unwrap();
    mount_tmpfs(&hosts, 2, "100m", &run);
    mount_tmpfs(&hosts, 3, "20m", Path::new("/dev/shm"));
    let said = refused(&hosts, &bench, "host[1-3]:2", &[]);
    assert_row(&said, "host2", "free disk", "100 MiB free for run, 1.0 GiB needed");
    assert_row(&said, "host3", "/dev/shm", "20 MiB free, 2 workers need 32 MiB");
    assert!(rows(&said, "host1").is_empty(), "{said}");
}

#[test]
fn all_that_is_wrong_stands_in_one_table() {
    let bench = Bench::new();
    let Some(hosts) = Hosts::new("all_that_is_wrong_stands_in_one_table", 3, Family::V4, &bench) else { return };
    let (own, config) = (bench.path().join("own.toml"), bench.path().join("small.toml"));
    let small = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&own, small.replace("lr = 1e-3", "lr = 1e-2")).unwrap();
    let empty = bench.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    on_host(&hosts, 2, "mount --bind \"$1\" \"$2\"", &[&own, &config]);
    on_host(&hosts, 2, "mount --bind \"$1\" \"$2\"", &[&empty, &bench.path().join("phantom")]);
    on_host(&hosts, 2, "mount -t tmpfs -o ro tmpfs \"$1\"", &[&empty]);
    let said = refused(&hosts, &bench, "host[1-3]:1,host9:1", &["run.dir=empty/run"]);
    let found: Vec<String> = rows(&said, "host2").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(found, ["configuration", "data", "data", "run directory"], "{said}");
    assert_row(&said, "host2", "configuration", "small.toml has another content there than on host1");
    assert_row(&said, "host2", "data", "phantom/eval.txt");
    assert_row(&said, "host9", "reachable", "not reached over ssh");
    assert!(rows(&said, "host1").is_empty() && rows(&said, "host3").is_empty(), "{said}");
    assert_eq!(said.matches("what to do").count(), 1, "{said}");
    let last = last_line_of(&said);
    assert!(last.contains("2 of 4 hosts cannot take part: host2: small.toml has another"), "{said}");
    assert!(last.contains("; host9: not reached"), "{said}");
}

#[test]
fn a_host_that_hangs_is_given_up_in_time() {
    let bench = Bench::new();
    let Some(hosts) = Hosts::new("a_host_that_hangs_is_given_up_in_time", 2, Family::V4, &bench) else { return };
    let script = bench.path().join("slow");
    std::fs::write(&script, "#!/bin/sh\nexec sleep 30\n").unwrap();
    on_host(&hosts, 2, "chmod +x \"$1\"; mount --bind \"$1\" \"$2\"", &[&script, &binary("jcs")]);
    let said = refused(&hosts, &bench, "host[1-2]:1", &[]);
    assert_row(&said, "host2", "programs", "does not start there: no end within 8 s");
    // Where nothing on the host limits it, the launcher does.
    let unlimited = bench.path().join("unlimited");
    std::fs::write(&unlimited, "#!/bin/sh\nshift\nexec \"$@\"\n").unwrap();
    on_host(&hosts, 2, "chmod +x \"$1\"; mount --bind \"$1\" \"$(command -v timeout)\"", &[&unlimited]);
    let began = Instant::now();
    let out = launch(&hosts, &bench, "host[1-2]:1", &[]);
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    assert_eq!(out.status.code(), Some(6), "{}", text(&out));
    let found = "host2: no answer over ssh within 13 s: it hangs at the start of";
    assert!(last_line(&out).contains(found), "{}", text(&out));
}

#[test]
fn a_slow_connection_is_named_and_all_are_noted() {
    let bench = Bench::new();
    let name = "a_slow_connection_is_named_and_all_are_noted";
    let Some(hosts) = Hosts::new(name, 3, Family::V4, &bench) else { return };
    if !hosts.slow_down(3, "20mbit") {
        return end_to_end::skip::cannot_run(name, "no tc, or a kernel without its tbf");
    }
    let out = launch(&hosts, &bench, "host[1-3]:1", &["train.max_steps=1"]);
    assert!(out.status.success(), "{}", text(&out));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.starts_with("jcs-launch: 3 nodes × 1 worker"), "{said}");
    let slow = |a: usize, b: usize| said.contains(&format!("the connection between host{a} and host{b} is slow: "));
    assert_eq!([slow(1, 2), slow(1, 3), slow(2, 3)], [false, true, true], "{said}");
    let log = std::fs::read_to_string(bench.path().join("run/logs/launcher.log")).unwrap();
    for pair in ["host1 – host2: ", "host1 – host3: ", "host2 – host3: "] {
        let line = log.lines().find(|line| line.contains(pair)).unwrap_or_default();
        assert!(line.contains(" MB/s, ") && line.ends_with(" µs"), "{pair}: {log}");
    }
    hosts.assert_nothing_left();
}

#[test]
fn hosts_that_do_not_work_together_are_named() {
    let bench = Bench::new();
    let Some(hosts) = Hosts::new("hosts_that_do_not_work_together_are_named", 2, Family::V4, &bench) else { return };
    let (real, disguise) = (bench.path().join("real-jcs"), bench.path().join("jcs"));
    std::fs::write(&real, "").unwrap();
    let text_of = |what: &str| {
        format!("#!/bin/sh\ncase $1:$(uname -n) in preflight:host2) {what};; esac\nexec {} \"$@\"\n", real.display())
    };
    std::fs::write(&disguise, text_of("exec sleep 60")).unwrap();
    for i in 1..=2 {
        let script = "chmod +x \"$3\"; mount --bind \"$1\" \"$2\"; mount --bind \"$3\" \"$1\"";
        on_host(&hosts, i, script, &[&binary("jcs"), &real, &disguise]);
    }
    let began = Instant::now();
    let refused = |found: &str| {
        let out = launch(&hosts, &bench, "host[1-2]:1", &[]);
        assert_eq!(out.status.code(), Some(6), "{}", text(&out));
        assert!(last_line(&out).contains(found), "{}", text(&out));
        hosts.assert_nothing_left();
    };
    refused("the hosts do not work together: no worker started on host2");
    assert!(began.elapsed() < 2 * AT_MOST, "{:?}", began.elapsed());
    std::fs::write(&disguise, text_of("echo jcs: a library is missing >&2; exit 1")).unwrap();
    refused("the worker on host2 ended: a library is missing");
    let out = launch(&hosts, &bench, "host[1-2]:1", &["--no-preflight", "train.max_steps=1"]);
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn one_host_alone_is_looked_at_too() {
    let bench = Bench::new();
    let missing = bench.try_train(2, "run", &["data.eval=nowhere.txt"]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing));
    assert!(last_line(&missing).contains("no data.eval there") && last_line(&missing).contains("nowhere.txt"));
    assert!(!bench.path().join("run").exists());
    let small = bench.path().join("small-disk");
    std::fs::create_dir(&small).unwrap();
    let mount = |arguments: &[&str]| std::process::Command::new("mount").args(arguments).output().unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=9m", "tmpfs", &small.to_string_lossy()]).status.success() {
        return end_to_end::skip::cannot_run(
            "one_host_alone_is_looked_at_too",
            "a tmpfs cannot be mounted (needs root)",
        );
    }
    let out = bench.try_train(2, "small-disk/run", &[]);
    let created = small.join("run").exists();
    std::process::Command::new("umount").arg(&small).output().unwrap();
    assert_eq!(out.status.code(), Some(6), "{}", text(&out));
    assert!(last_line(&out).contains("9 MiB free for") && last_line(&out).contains("1.0 GiB needed"), "{}", text(&out));
    assert!(!created);
}

fn last_line_of(said: &str) -> String {
    said.trim_end().lines().last().unwrap_or_default().to_owned()
}
