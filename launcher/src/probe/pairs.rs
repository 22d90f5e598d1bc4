//! What the workers of the preflight said, taken together: who is missing, which sums are wrong, which connections are slow.
//! Pure.

use super::exchange::ExchangeError;
use crate::tags;
use protocol::pairs::{Measured, Report, pairs_of};

/// A pair slower than this part of what is usual is warned of.
const SLOW: f64 = 0.25;

/// All that was said, and how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// What the workers reported.
    pub reports: Vec<Report>,
    /// Other lines, of mpirun and of workers.
    pub others: Vec<String>,
    /// Whether mpirun ended by itself, and well.
    pub ended_well: bool,
    /// Whether it had to be stopped, after so many seconds.
    pub stopped_after: Option<u64>,
}

/// The connections between the hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections {
    /// A line for each pair.
    pub table: Vec<String>,
    /// A line for each slow pair.
    pub warnings: Vec<String>,
}

/// Judges what the workers said, one on each of `hosts`.
pub fn judge(hosts: &[String], said: &Said) -> Result<Connections, ExchangeError> {
    let host = |rank: usize| hosts.get(rank).map_or("?", String::as_str);
    let measured: Vec<Measured> = said.reports.iter().filter_map(measured).collect();
    let wrong = |m: &&Measured| !m.correct;
    if let Some(m) = measured.iter().find(wrong) {
        return Err(ExchangeError::WrongSum { a: host(m.a).into(), b: host(m.b).into() });
    }
    if !said.ended_well || measured.len() != pairs_of(hosts.len()).len() {
        return Err(failure(hosts, said, &measured));
    }
    let usual = usual_speed(hosts.len(), &measured);
    let slow = measured.iter().filter(|m| m.bytes_per_second < SLOW * usual);
    let warning = |m: &Measured| {
        format!(
            "the connection between {} and {} is slow: {}, where {} is usual here",
            host(m.a),
            host(m.b),
            speed(m.bytes_per_second),
            speed(usual)
        )
    };
    let row = |m: &Measured| {
        format!("{} – {}: {}, {:.0} µs", host(m.a), host(m.b), speed(m.bytes_per_second), m.latency * 1e6)
    };
    Ok(Connections { table: measured.iter().map(row).collect(), warnings: slow.map(warning).collect() })
}

fn measured(report: &Report) -> Option<Measured> {
    if let Report::Measured(measured) = report { Some(*measured) } else { None }
}

/// The median of what each host reaches at best: one host with a bad connection spoils every pair that it is in, of three
/// hosts most pairs, but not what the others reach.
fn usual_speed(hosts: usize, measured: &[Measured]) -> f64 {
    let best = |rank: usize| {
        let own = measured.iter().filter(|m| m.a == rank || m.b == rank);
        own.map(|m| m.bytes_per_second).fold(0.0, f64::max)
    };
    let mut best: Vec<f64> = (0..hosts).map(best).collect();
    best.sort_by(f64::total_cmp);
    best.get(hosts / 2).copied().unwrap_or_default()
}

/// Who is to blame: those who did not start, else those who did not connect, else the pair whose turn it was.
fn failure(hosts: &[String], said: &Said, measured: &[Measured]) -> ExchangeError {
    let missing = |has: &dyn Fn(&Report, usize) -> bool| {
        let silent = |rank: &usize| !said.reports.iter().any(|report| has(report, *rank));
        let names = (0..hosts.len()).filter(silent).filter_map(|rank| hosts.get(rank));
        names.cloned().collect::<Vec<_>>().join(", ")
    };
    let unstarted = missing(&|report, r| matches!(report, Report::Started { rank, .. } if *rank == r));
    let unconnected = missing(&|report, r| matches!(report, Report::Connected { rank } if *rank == r));
    let next = pairs_of(hosts.len()).into_iter().find(|pair| !measured.iter().any(|m| (m.a, m.b) == *pair));
    let name = |rank: usize| hosts.get(rank).map_or("?", String::as_str);
    let spoken = last_worker(&said.others, hosts.len());
    let has_started = |of: usize| said.reports.iter().any(|r| matches!(r, Report::Started { rank, .. } if *rank == of));
    // One that ends before it starts takes the others with it, and they may not have started yet, either.
    if let Some((rank, words)) = spoken.as_ref().filter(|(rank, _)| !has_started(*rank)) {
        return ExchangeError::Failed {
            who: format!("the worker on {} ended", name(*rank)),
            after: None,
            words: words.clone(),
        };
    }
    let who = match (unstarted.as_str(), unconnected.as_str(), next) {
        ("", "", Some((a, b))) => format!("no sum came of {} and {}", name(a), name(b)),
        ("", "", None) => "the workers did not end".to_owned(),
        ("", unconnected, _) => format!("not connected: {unconnected}"),
        (unstarted, _, _) => format!("no worker started on {unstarted}"),
    };
    let words = spoken.map_or_else(|| first_words(&said.others), |(rank, words)| format!("{}: {words}", name(rank)));
    ExchangeError::Failed { who, after: said.stopped_after, words }
}

/// What a worker said before it ended, and its rank; mpirun puts that before the line.
fn last_worker(lines: &[String], hosts: usize) -> Option<(usize, String)> {
    lines.iter().rev().find_map(|line| {
        let pieces = tags::split(line.trim_end().as_bytes(), hosts);
        let (rank, text) = pieces.iter().find_map(|piece| Some((piece.source?.0, piece.text)))?;
        let text = String::from_utf8_lossy(text);
        text.strip_prefix("jcs: ").map(|words| (rank.0, words.to_owned()))
    })
}

/// The first line of mpirun's that says something: not a frame.
fn first_words(lines: &[String]) -> String {
    let telling = |line: &&String| line.bytes().filter(u8::is_ascii_alphabetic).count() > 8;
    lines.iter().find(telling).map_or_else(|| "mpirun said nothing".to_owned(), |line| line.trim().to_owned())
}

fn speed(bytes_per_second: f64) -> String {
    match bytes_per_second / 1e6 {
        mb if mb < 10.0 => format!("{mb:.1} MB/s"),
        mb => format!("{mb:.0} MB/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: usize, b: usize, mb: f64) -> Report {
        Report::Measured(Measured { a, b, bytes_per_second: mb * 1e6, latency: 2.5e-5, correct: true })
    }

    fn hosts(n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("h{i}")).collect()
    }

    fn well(reports: Vec<Report>) -> Said {
        Said { reports, ended_well: true, ..Said::default() }
    }

    #[test]
    fn pairs_are_told_and_slow_ones_warned_of() {
        let two = judge(&hosts(2), &well(vec![pair(0, 1, 2.0)])).unwrap();
        assert_eq!(two, Connections { table: vec!["h1 – h2: 2.0 MB/s, 25 µs".into()], warnings: vec![] });
        let three = judge(&hosts(3), &well(vec![pair(0, 1, 900.0), pair(0, 2, 12.0), pair(1, 2, 300.0)])).unwrap();
        assert_eq!(three.table.len(), 3);
        let warning = "the connection between h1 and h3 is slow: 12 MB/s, where 900 MB/s is usual here";
        assert_eq!(three.warnings, [warning]);
        let both = judge(&hosts(3), &well(vec![pair(0, 1, 900.0), pair(0, 2, 9.0), pair(1, 2, 8.0)])).unwrap();
        assert_eq!(both.warnings.len(), 2, "both pairs of the slow host, though they are two of three");
    }

    #[test]
    fn a_wrong_sum_is_an_error() {
        let wrong = Measured { a: 0, b: 1, bytes_per_second: 1e6, latency: 1e-5, correct: false };
        let error = judge(&hosts(2), &well(vec![Report::Measured(wrong)])).unwrap_err();
        assert!(error.to_string().starts_with("h1 and h2 add up wrongly"), "{error}");
    }

    #[test]
    fn who_did_not_report_is_named() {
        let started = |rank| Report::Started { rank, host: "x".into() };
        let connected = |rank| Report::Connected { rank };
        let error = |reports: Vec<Report>, others: &[&str]| {
            let others = others.iter().map(|line| (*line).to_owned()).collect();
            judge(&hosts(2), &Said { reports, others, ended_well: false, stopped_after: Some(20) })
                .unwrap_err()
                .to_string()
        };
        let said = error(vec![started(0)], &["-----", "A daemon failed to start."]);
        assert_eq!(
            said,
            "the hosts do not work together: no worker started on h2 (stopped after 20 s): A daemon failed to start."
        );
        assert!(error(vec![started(0), started(1)], &[]).contains("not connected: h1, h2"));
        let both = vec![started(0), started(1), connected(0), connected(1)];
        let said = error(both, &["[1,1]<stderr>: jcs: no answer", "PRTE has lost communication with a daemon"]);
        assert!(said.contains("no sum came of h1 and h2") && said.ends_with("h2: no answer"), "{said}");
        let early = Said { others: vec!["[1,1]<stderr>: jcs: no libtorch".into()], ..Said::default() };
        let error = judge(&hosts(2), &early).unwrap_err().to_string();
        assert_eq!(error, "the hosts do not work together: the worker on h2 ended: no libtorch");
    }
}
