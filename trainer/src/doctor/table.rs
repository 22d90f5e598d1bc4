//! The report as text, part by part: plain, aligned, fit to paste. Pure.

use super::facts::{Host, by_value};
use super::overlap::Overlap;
use super::report::{Problem, Report, Verdict};
use super::scientific;
use super::step::StepRow;

/// Longer lines of words are broken. The launcher puts the rank before each.
const WIDTH: usize = 98;

/// What there is: a row a host, then what is to be said of them.
pub(super) fn hosts(Report { workers, hosts, differences, .. }: &Report) -> String {
    let head = format!("jcs doctor: {} on {}", count(*workers, "worker"), count(hosts.len(), "host"));
    let mut rows = vec![cells(["", "host", "ranks", "cores", "threads", "memory", "GPUs", "driver", "CUDA", "NCCL"])];
    rows.extend(hosts.iter().map(host_row));
    let mut lines = vec![head, String::new(), "Hosts".into()];
    lines.extend(grid(&rows));
    let first = hosts.first().map(|host| host.facts.versions());
    let common = first.iter().flatten().take(3).filter(|(name, _)| !differences.iter().any(|d| starts(d, name)));
    let versions: Vec<String> = common.map(|(name, version)| versioned(name, version)).collect();
    if !versions.is_empty() {
        lines.extend(note(&versions.join(", ")));
    }
    differences.iter().for_each(|difference| lines.extend(note(&format!("different {difference}"))));
    for (why, names) in by_value(hosts, |facts| facts.no_gpu.clone()) {
        lines.extend(note(&format!("no GPU on {names}: {why}")));
    }
    for (why, names) in by_value(hosts, |facts| facts.no_nccl.clone()) {
        lines.extend(note(&format!("no NCCL on {names}: {why}")));
    }
    lines.extend(hosts.iter().flat_map(gpu_lines));
    joined(lines)
}

fn starts(difference: &str, name: &str) -> bool {
    difference.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "))
}

/// MPI's version has a name of its own.
fn versioned(name: &str, version: &str) -> String {
    if name == "MPI" { version.to_owned() } else { format!("{name} {version}") }
}

fn host_row(host: &Host) -> Vec<String> {
    let facts = &host.facts;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
    let gpus = if facts.gpus.is_empty() { "none".into() } else { facts.gpus.len().to_string() };
    cells([
        verdict(host.verdict),
        &facts.host,
        &ranges(&host.ranks),
        &facts.cores.to_string(),
        &facts.threads.to_string(),
        &memory(facts.memory_bytes),
        &gpus,
        &or_none(&facts.driver),
        &or_none(&facts.cuda),
        &or_none(&facts.nccl),
    ])
}

fn gpu_lines(host: &Host) -> Vec<String> {
    let gpus = host.facts.gpus.iter().enumerate();
    let line = |(i, gpu): (usize, &super::facts::Gpu)| {
        format!("         {} GPU {i}: {}, {}, {}", host.facts.host, gpu.name, memory(gpu.memory_bytes), gpu.uuid)
    };
    gpus.map(line).collect()
}

/// Whether sums are right, and how fast they come.
pub(super) fn sums(report: &Report) -> String {
    let (rows, by) = (&report.sums, report.collectives.as_deref().unwrap_or("none"));
    let mut lines =
        vec![String::new(), format!("All-reduce of whole numbers by {}; {by}", count(report.workers, "worker"))];
    if rows.iter().all(|row| row.verdict == Verdict::None) {
        lines.extend(grid(&[cells([verdict(Verdict::None), "alone: one worker has nothing to add up"])]));
        return joined(lines);
    }
    let mut table = vec![cells(["", "size", "type", "sums", "time", "bus bandwidth"])];
    table.extend(rows.iter().map(|row| {
        let wrong: Vec<usize> = row.wrong.iter().map(|wrong| wrong.rank).collect();
        let failed: Vec<usize> = row.failed.iter().map(|failed| failed.rank).collect();
        let sums = match row.verdict {
            Verdict::Ok => "right".into(),
            Verdict::Wrong if wrong.is_empty() => format!("failed on rank {}", ranges(&failed)),
            Verdict::Wrong => format!("wrong on rank {}", ranges(&wrong)),
            Verdict::None => "not tried".into(),
        };
        let (time, rate) = (option(row.seconds, time), option(row.bus_bandwidth, rate));
        cells([verdict(row.verdict), &row.size(), row.kind, &sums, &time, &rate])
    }));
    lines.extend(grid(&table));
    joined(lines)
}

/// Whether a step comes out as it should.
pub(super) fn steps(rows: &[StepRow]) -> String {
    let mut lines =
        vec![String::new(), "One training step, beside the same on the CPU (on a CPU: beside its repetition)".into()];
    let head = ["", "rank", "host", "device", "loss differs", "weights differ", "tolerance", "a step", "on the CPU"];
    let mut table = vec![cells(head)];
    table.extend(rows.iter().filter(|row| row.failed.is_none()).map(step_row));
    if table.len() > 1 {
        lines.extend(grid(&table));
    }
    for row in rows {
        let rank = row.rank.map_or_else(String::new, |rank| format!("rank {rank}, "));
        let text =
            row.failed.as_ref().map(|failed| format!("{:<7}{rank}{}: {failed}", verdict(row.verdict), row.device));
        lines.extend(text.iter().flat_map(|text| wrapped(text, "  ", "         ")));
    }
    joined(lines)
}

fn step_row(row: &StepRow) -> Vec<String> {
    let tolerance = if row.tolerance == 0.0 { "exact".into() } else { format!("{:.0e}", row.tolerance) };
    cells([
        verdict(row.verdict),
        &option(row.rank, |rank| rank.to_string()),
        row.host.as_deref().unwrap_or_default(),
        &row.device,
        &scientific(row.loss_difference),
        &scientific(row.weights_difference),
        &tolerance,
        &option(row.seconds, time),
        &option(row.cpu_seconds, time),
    ])
}

/// What overlap hides.
pub(super) fn overlap(overlap: &Overlap) -> String {
    let mut lines = vec![String::new()];
    if let Some(why) = &overlap.none {
        lines.push("Overlap of backward pass and all-reduce".into());
        lines.extend(grid(&[cells([verdict(overlap.verdict), why])]));
        return joined(lines);
    }
    lines.push(format!(
        "Overlap of backward pass and all-reduce: {} of {side} × {side} a worker, {} of gradients",
        count(overlap.samples, "image"),
        memory(overlap.gradient_bytes as u64),
        side = overlap.side,
    ));
    let mut table = vec![cells(["", "overlap", "a step", "backward", "all-reduce", "exposed", "hidden"])];
    table.extend(overlap.rows.iter().map(|row| {
        let s = row.seconds;
        let [step, backward, communication, exposed] = [s.step, s.backward, s.communication, s.exposed].map(time);
        let (on, hidden) = (if row.overlap { "on" } else { "off" }, format!("{:.0} %", 100.0 * row.hidden));
        cells([verdict(overlap.verdict), on, &step, &backward, &communication, &exposed, &hidden])
    }));
    lines.extend(grid(&table));
    joined(lines)
}

/// The last words: of each rank what is wrong there first.
pub(super) fn end(problems: &[Problem]) -> String {
    let mut lines = vec![String::new()];
    if problems.is_empty() {
        lines.push("Nothing is wrong.".into());
    }
    let mut by_rank: Vec<(&Problem, usize)> = Vec::new();
    for problem in problems {
        match by_rank.iter_mut().find(|(first, _)| first.rank == problem.rank) {
            Some((_, more)) => *more += 1,
            None => by_rank.push((problem, 0)),
        }
    }
    for (Problem { rank, host, problem }, more) in by_rank {
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        lines.extend(wrapped(&format!("WRONG: rank {rank} on {host}: {problem}{more}"), "", "       "));
    }
    joined(lines)
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Wrong => "WRONG",
        Verdict::None => "none",
    }
}

fn option<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "?".into(), text)
}

/// `1 host`, `2 hosts`.
fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Three digits.
fn digits(x: f64) -> String {
    match x {
        x if x >= 99.95 => format!("{x:.0}"),
        x if x >= 9.995 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{} s", digits(s)),
        s if s >= 1e-3 => format!("{} ms", digits(s * 1e3)),
        s => format!("{} µs", digits(s * 1e6)),
    }
}

fn rate(bytes_per_second: f64) -> String {
    format!("{} GB/s", digits(bytes_per_second / 1e9))
}

fn memory(bytes: u64) -> String {
    let (kib, mib, gib) = (1u64 << 10, 1 << 20, 1 << 30);
    match bytes {
        0 => "?".into(),
        b if b >= gib => format!("{} GiB", digits(b as f64 / gib as f64)),
        b if b >= mib => format!("{} MiB", digits(b as f64 / mib as f64)),
        b => format!("{} KiB", digits(b as f64 / kib as f64)),
    }
}

/// `0-3,5` of ascending numbers.
fn ranges(numbers: &[usize]) -> String {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => found.push((n, n)),
        }
    }
    let text =
        |&(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    found.iter().map(text).collect::<Vec<_>>().join(",")
}

fn cells<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Rows in columns, numbers to the right.
fn grid(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let column = |c: usize| rows.iter().filter_map(move |row| row.get(c));
    let widths: Vec<usize> =
        (0..columns).map(|c| column(c).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let is_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit());
    let to_the_right: Vec<bool> = (0..columns).map(|c| rows.len() > 1 && column(c).skip(1).any(is_number)).collect();
    let line = |row: &Vec<String>| {
        let cell = |(c, text): (usize, &String)| {
            // Room for every verdict, so that all parts begin alike.
            let width = if c == 0 { 5 } else { widths.get(c).copied().unwrap_or(0) };
            if to_the_right.get(c) == Some(&true) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        format!("  {}", cells.join("  ")).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A remark below a table.
fn note(text: &str) -> Vec<String> {
    wrapped(text, "         ", "           ")
}

/// Lines of at most [`WIDTH`], if words allow.
fn wrapped(text: &str, first: &str, later: &str) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    let mut empty = true;
    for word in text.split(' ') {
        let room = lines.last().is_none_or(|line| line.chars().count() + 1 + word.chars().count() <= WIDTH);
        if !room && !empty {
            lines.push(later.to_owned());
            empty = true;
        }
        if let Some(line) = lines.last_mut() {
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
    }
    lines
}

fn joined(lines: Vec<String>) -> String {
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::sums::SumRow;
    use super::*;

    fn assert_narrow(text: &str) {
        text.lines().for_each(|line| assert!(line.chars().count() <= WIDTH + 2, "{} {line}", line.chars().count()));
    }

    #[test]
    fn hosts_stand_in_rows_and_reasons_below() {
        let all = [Host::example("node-a", &[0, 1]), Host::example("node-b", &[2, 3, 5])];
        let text = hosts(&Report { hosts: all.to_vec(), ..Report::begun(5) });
        assert_eq!(
            text,
            "\
jcs doctor: 5 workers on 2 hosts

Hosts
         host    ranks  cores  threads    memory  GPUs  driver  CUDA  NCCL
  ok     node-a    0-1      2        1  8.00 GiB  none  none    none  none
  ok     node-b  2-3,5      2        1  8.00 GiB  none  none    none  none
         jcs 0.1.0 (0123456789ab), libtorch 2.13.0, Open MPI v5.0.11
         no GPU on node-a, node-b: there is no NVIDIA driver on this machine
         no NCCL on node-a, node-b: libnccl.so does not load
"
        );
    }

    #[test]
    fn gpus_have_a_line_each_and_differences_are_told() {
        let all = [Host::example("gpu01", &[0]).with_gpus(), Host::example("gpu02", &[1])];
        let differences = super::super::facts::differences(&all);
        let text = hosts(&Report { hosts: all.to_vec(), differences, ..Report::begun(2) });
        assert!(text.contains("gpu01 GPU 7: NVIDIA H100 80GB HBM3, 80.0 GiB, GPU-07070707-0707-"), "{text}");
        assert!(text.contains("different NVIDIA driver: 580.65.06 on gpu01; none on gpu02\n"), "{text}");
        assert!(text.contains("no GPU on gpu02: "), "{text}");
        assert_narrow(&text);
    }

    #[test]
    fn wrong_sums_are_seen() {
        let wrong = [1, 2, 3].map(|rank| super::super::sums::WrongSums { rank, elements: 1 }).to_vec();
        let failed = vec![Problem { rank: 1, host: "h".into(), problem: "no answer".into() }];
        let failed = SumRow { failed, seconds: None, bus_bandwidth: None, ..SumRow::example(Verdict::Wrong) };
        let rows = vec![SumRow::example(Verdict::Ok), SumRow { wrong, ..SumRow::example(Verdict::Wrong) }, failed];
        let said = |rows, workers| {
            sums(&Report { sums: rows, collectives: Some("mpi (Open MPI v5.0.11)".into()), ..Report::begun(workers) })
        };
        assert_eq!(
            said(rows, 2),
            "
All-reduce of whole numbers by 2 workers; mpi (Open MPI v5.0.11)
          size  type     sums                  time  bus bandwidth
  ok     1 MiB  float32  right              1.00 ms      1.05 GB/s
  WRONG  1 MiB  float32  wrong on rank 1-3  1.00 ms      1.05 GB/s
  WRONG  1 MiB  float32  failed on rank 1         ?              ?
"
        );
        let alone = SumRow { verdict: Verdict::None, ..SumRow::example(Verdict::None) };
        assert!(said(vec![alone], 1).ends_with("  none   alone: one worker has nothing to add up\n"));
    }

    #[test]
    fn steps_and_overlap_fit_the_width() {
        let failed =
            StepRow { failed: Some("out of memory ".repeat(20)), verdict: Verdict::Wrong, ..StepRow::example(1) };
        let text = steps(&[StepRow::example(0), failed, StepRow::no_gpu(false)]);
        assert!(
            text.contains(
                "  ok        0  gpu01  cuda:0        1.0e-5          2.0e-4       1e-3  4.00 ms     80.0 ms\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("  WRONG  rank 1, cuda:0: out of memory") && text.ends_with("  none   cuda: no GPU\n"),
            "{text}"
        );
        assert_narrow(&text);
        let text = overlap(&Overlap::example());
        assert!(text.contains("4 images of 64 × 64 a worker, 10.0 MiB of gradients\n"), "{text}");
        assert!(text.contains("  ok     on       100 ms   60.0 ms     40.0 ms  10.0 ms    75 %\n"), "{text}");
        assert_narrow(&text);
    }

    #[test]
    fn the_end_names_each_rank_once() {
        let problem = |rank, problem: &str| Problem { rank, host: "h".into(), problem: problem.into() };
        let text = end(&[problem(1, "a"), problem(0, "b"), problem(1, "c"), problem(1, "d")]);
        assert_eq!(text, "\nWRONG: rank 1 on h: a; and 2 more\nWRONG: rank 0 on h: b\n");
        assert_eq!(end(&[]), "\nNothing is wrong.\n");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([2.0, 0.1234, 0.05678, 1.5e-6].map(time), ["2.00 s", "123 ms", "56.8 ms", "1.50 µs"]);
        assert_eq!([0, 4 << 10, 10 << 20, 503 << 30].map(memory), ["?", "4.00 KiB", "10.0 MiB", "503 GiB"]);
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
