//! What was found out about the hosts, and how it is told: one table of what is wrong, and a last line. Pure.

use protocol::Exit;
use std::collections::BTreeMap;
use std::fmt;

/// What is said of at most this many hosts in the last line; the table has them all.
const NAMED: usize = 3;

/// What was found out about all hosts, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each host.
    pub hosts: Vec<HostReport>,
}

/// What was found out about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostReport {
    /// The host, as the user calls it.
    pub host: String,
    /// Whether it answered.
    pub reached: bool,
    /// Why it cannot take part.
    pub problems: Vec<Finding>,
    /// What may be wrong and stops nothing.
    pub warnings: Vec<Finding>,
    /// Whether its run directory is this machine's, too; `None` where that was not found out.
    pub shares_run_dir: Option<bool>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// What there was.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it can be reached, and answers.
    Reach,
    /// Its own name.
    Name,
    /// The working directory.
    Folder,
    /// The worker, and mpirun.
    Programs,
    /// Whether the worker is the same one as here.
    Version,
    /// The configuration's files.
    Config,
    /// Training and evaluation data.
    Data,
    /// Whether the run can write.
    RunDir,
    /// Room in the run directory.
    Disk,
    /// Room in `/dev/shm`.
    Shm,
    /// Room for mpirun's session.
    Tmp,
    /// Number and kind of the GPUs.
    Gpus,
    /// NVIDIA's driver.
    Driver,
    /// The time.
    Clock,
}

/// Hosts that cannot take part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unfit {
    /// The table, a line each.
    pub table: Vec<String>,
    /// How many of how many, and the first reasons.
    pub text: String,
    /// What the launcher ends with.
    pub exit: Exit,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Check::Reach => "reachable",
            Check::Name => "host name",
            Check::Folder => "working directory",
            Check::Programs => "programs",
            Check::Version => "version",
            Check::Config => "configuration",
            Check::Data => "data",
            Check::RunDir => "run directory",
            Check::Disk => "free disk",
            Check::Shm => "/dev/shm",
            Check::Tmp => "temporary files",
            Check::Gpus => "GPUs",
            Check::Driver => "driver",
            Check::Clock => "clock",
        })
    }
}

impl Report {
    /// The error, where a host cannot take part.
    pub fn unfit(&self) -> Option<Unfit> {
        let unfit: Vec<&HostReport> = self.hosts.iter().filter(|host| !host.problems.is_empty()).collect();
        let first = |host: &&HostReport| host.problems.first().map(|p| format!("{}: {}", host.host, p.found));
        let mut reasons: Vec<String> = unfit.iter().filter_map(first).take(NAMED).collect();
        if unfit.len() > NAMED {
            reasons.push(format!("and {} more", unfit.len() - NAMED));
        }
        let (all, s) = (self.hosts.len(), if self.hosts.len() == 1 { "" } else { "s" });
        let text = format!("{} of {all} host{s} cannot take part: {}", unfit.len(), reasons.join("; "));
        (!unfit.is_empty()).then(|| Unfit { table: self.table(), text, exit: self.exit() })
    }

    /// By host: the first reason why it cannot take part.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        let first = |host: &HostReport| Some((host.host.clone(), host.problems.first()?.found.clone()));
        self.hosts.iter().filter_map(first).collect()
    }

    /// A path that is wrong on every host was given wrongly, and no host is to blame: it ends as the worker itself would end.
    fn exit(&self) -> Exit {
        let everywhere = |check: Check| {
            let only = |host: &HostReport| !host.problems.is_empty() && host.problems.iter().all(|p| p.check == check);
            self.hosts.iter().all(only)
        };
        match () {
            () if everywhere(Check::RunDir) => Exit::Usage,
            () if everywhere(Check::Data) => Exit::BadData,
            () => Exit::Preflight,
        }
    }

    /// Whether there is something to tell.
    pub fn is_spotless(&self) -> bool {
        self.hosts.iter().all(|host| host.problems.is_empty() && host.warnings.is_empty())
    }

    /// A row for every problem and every warning under a row of titles; nothing where all is well.
    pub fn table(&self) -> Vec<String> {
        if self.is_spotless() {
            return Vec::new();
        }
        let row = |host: &HostReport, finding: &Finding, mark: &str| {
            let check = format!("{}{mark}", finding.check);
            [host.host.clone(), check, finding.found.clone(), finding.remedy.clone()]
        };
        let mut rows = vec![["host", "check", "found", "what to do"].map(String::from)];
        for host in &self.hosts {
            rows.extend(host.problems.iter().map(|finding| row(host, finding, "")));
            rows.extend(host.warnings.iter().map(|finding| row(host, finding, " (warning)")));
        }
        aligned(&rows)
    }

    /// Which hosts see the run directory that this machine sees, in a line; nothing where that was not found out.
    pub fn sharing(&self) -> Option<String> {
        let those = |shares: bool| {
            let all = self.hosts.iter().filter(|host| host.shares_run_dir == Some(shares));
            all.map(|host| host.host.as_str()).collect::<Vec<_>>().join(", ")
        };
        match (those(true), those(false)) {
            (yes, no) if yes.is_empty() && no.is_empty() => None,
            (yes, no) if no.is_empty() => Some(format!("the run directory is shared by all hosts: {yes}")),
            (yes, no) if yes.is_empty() => Some(format!("the run directory here is seen on no host: {no}")),
            (yes, no) => Some(format!("the run directory here is seen on {yes}, and not on {no}")),
        }
    }
}

/// Columns side by side; the last one has no end.
fn aligned(rows: &[[String; 4]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..3).map(width).collect();
    let cell = |(text, width): (&String, &usize)| format!("{text:<width$}  ");
    let line = |row: &[String; 4]| row.iter().zip(&widths).map(cell).collect::<String>() + &row[3];
    rows.iter().map(|row| line(row).trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: Check, found: &str) -> Finding {
        Finding { check, found: found.into(), remedy: "mend it".into() }
    }

    fn host(name: &str, problems: &[Finding], warnings: &[Finding]) -> HostReport {
        let (problems, warnings) = (problems.to_vec(), warnings.to_vec());
        HostReport { host: name.into(), reached: true, problems, warnings, shares_run_dir: None }
    }

    #[test]
    fn everything_that_is_wrong_stands_in_one_table() {
        let report = Report {
            hosts: vec![
                host("gpu01", &[], &[]),
                host("gpu2", &[finding(Check::Shm, "8 MiB free"), finding(Check::Data, "no data")], &[]),
                host("gpu3", &[], &[finding(Check::Clock, "7 s behind")]),
            ],
        };
        let table = [
            "host  check            found       what to do",
            "gpu2  /dev/shm         8 MiB free  mend it",
            "gpu2  data             no data     mend it",
            "gpu3  clock (warning)  7 s behind  mend it",
        ];
        assert_eq!(report.table(), table);
        let unfit = report.unfit().unwrap();
        assert_eq!(unfit.to_string(), "1 of 3 hosts cannot take part: gpu2: 8 MiB free");
        assert_eq!(unfit.exit, Exit::Preflight);
    }

    #[test]
    fn warnings_stop_nothing_and_a_good_host_says_nothing() {
        let warned = Report { hosts: vec![host("a", &[], &[finding(Check::Clock, "late")])] };
        assert!(warned.unfit().is_none() && warned.table().len() == 2);
        let good = Report { hosts: vec![host("a", &[], &[])] };
        assert!(good.unfit().is_none() && good.table().is_empty() && good.is_spotless());
    }

    #[test]
    fn the_last_line_stays_short() {
        let hosts = ["a", "b", "c", "d", "e"].map(|name| host(name, &[finding(Check::Reach, "down")], &[])).to_vec();
        let unfit = Report { hosts }.unfit().unwrap();
        assert_eq!(unfit.text, "5 of 5 hosts cannot take part: a: down; b: down; c: down; and 2 more");
        assert_eq!(unfit.table.len(), 6);
    }

    #[test]
    fn a_path_that_is_wrong_everywhere_is_the_users() {
        let exit = |a: &[Check], b: &[Check]| {
            let host = |name, checks: &[Check]| {
                host(name, &checks.iter().map(|check| finding(*check, "x")).collect::<Vec<_>>(), &[])
            };
            Report { hosts: vec![host("a", a), host("b", b)] }.unfit().unwrap().exit
        };
        assert_eq!(exit(&[Check::Data, Check::Data], &[Check::Data]), Exit::BadData);
        assert_eq!(exit(&[Check::RunDir], &[Check::RunDir]), Exit::Usage);
        assert_eq!(exit(&[Check::Data], &[]), Exit::Preflight);
        assert_eq!(exit(&[Check::Data, Check::Disk], &[Check::Data]), Exit::Preflight);
    }

    #[test]
    fn sharing_is_told_in_a_line() {
        let host = |name: &str, shares| HostReport { host: name.into(), shares_run_dir: shares, ..Default::default() };
        let report = |a, b| Report { hosts: vec![host("a", a), host("b", b)] };
        assert_eq!(report(Some(true), Some(true)).sharing().unwrap(), "the run directory is shared by all hosts: a, b");
        let some = report(Some(true), Some(false)).sharing().unwrap();
        assert_eq!(some, "the run directory here is seen on a, and not on b");
        assert_eq!(report(None, None).sharing(), None);
    }
}
