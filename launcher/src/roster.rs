//! Which hosts take part in the next start. Pure: who failed and who is unfit is told.

use crate::nodes::{Node, Nodes};
use std::collections::BTreeMap;
use std::time::Duration;

/// A host that failed so many times in a row is left out, while enough others are there.
const STRIKES: u32 = 2;
/// A start that went well for so long makes up for what a host did before it.
const FORGIVEN: Duration = Duration::from_secs(3600);

/// The hosts of a job.
#[derive(Clone, Debug)]
pub struct Roster {
    least: usize,
    most: usize,
    hosts: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    node: Node,
    /// Failures in a row.
    strikes: u32,
}

/// Who takes part, and who does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// In the order of their ranks.
    pub hosts: Vec<Node>,
    /// The others, and why.
    pub left_out: Vec<(String, String)>,
}

impl Roster {
    /// All hosts that may take part.
    pub fn new(nodes: &Nodes) -> Roster {
        let hosts = nodes.list.iter().map(|node| Member { node: node.clone(), strikes: 0 }).collect();
        Roster { least: nodes.least, most: nodes.most, hosts }
    }

    /// Whether the job can run on fewer hosts than there are.
    pub fn is_elastic(&self) -> bool {
        self.least < self.hosts.len()
    }

    /// The job does not run on fewer hosts.
    pub fn least(&self) -> usize {
        self.least
    }

    /// The names of all hosts.
    pub fn names(&self) -> Vec<String> {
        self.hosts.iter().map(|member| member.node.name.clone()).collect()
    }

    /// For the next start, when the hosts in `unfit` cannot take part. Where too few are left, these are all there are; it is
    /// for the caller to see ([`Roster::is_enough`]).
    pub fn choose(&self, unfit: &BTreeMap<String, String>) -> Choice {
        let fit = |member: &&Member| !unfit.contains_key(&member.node.name);
        let steady = |member: &&Member| member.strikes < STRIKES;
        let steady_ones = self.hosts.iter().filter(fit).filter(steady).count();
        // Rather a host that failed than too few.
        let mut second_chances = self.least.saturating_sub(steady_ones);
        let mut choice = Choice::default();
        for member in &self.hosts {
            let name = member.node.name.clone();
            let reason = match unfit.get(&name) {
                Some(reason) => Some(reason.clone()),
                None if choice.hosts.len() == self.most => Some(format!("{} hosts are enough", self.most)),
                None if steady(&member) => None,
                None if second_chances > 0 => {
                    second_chances -= 1;
                    None
                }
                None => Some(format!("it failed {} times in a row", member.strikes)),
            };
            match reason {
                None => choice.hosts.push(member.node.clone()),
                Some(reason) => choice.left_out.push((name, reason)),
            }
        }
        choice
    }

    /// Whether a job can run on these.
    pub fn is_enough(&self, choice: &Choice) -> bool {
        choice.hosts.len() >= self.least
    }

    /// A start on these hosts failed after `lasted`, on `culprit` first where that is known. One that was left out is given
    /// another chance the next time, but fails for good the sooner.
    pub fn on_failure(&mut self, took_part: &Choice, culprit: Option<&str>, lasted: Duration) {
        for member in &mut self.hosts {
            let there = took_part.hosts.iter().any(|node| node.name == member.node.name);
            let before = if lasted < FORGIVEN { member.strikes } else { 0 };
            member.strikes = match (there, culprit) {
                (true, None) => before,
                (true, Some(culprit)) if culprit == member.node.name => before + 1,
                (true, Some(_)) => 0,
                (false, _) => member.strikes.min(STRIKES - 1),
            };
        }
    }

    /// All numbers of workers that the job may come to have, when the hosts have so many of them; ascending.
    pub fn worlds(&self, workers: &[usize]) -> Vec<usize> {
        // By number of hosts: the sums that so many of them can make.
        let mut sums = vec![std::collections::BTreeSet::new(); self.most + 1];
        sums[0].insert(0);
        for workers in workers {
            for hosts in (0..self.most).rev() {
                let with: Vec<usize> = sums[hosts].iter().map(|sum| sum + workers).collect();
                sums[hosts + 1].extend(with);
            }
        }
        let all: std::collections::BTreeSet<usize> = sums.into_iter().skip(self.least).flatten().collect();
        all.into_iter().filter(|world| *world > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::Reach;

    fn roster(least: usize, most: usize, hosts: &[&str]) -> Roster {
        let list = hosts.iter().map(|host| Node::new(*host, None)).collect();
        Roster::new(&Nodes { list, reach: Reach::Ssh, least, most })
    }

    fn names(choice: &Choice) -> String {
        choice.hosts.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn unfit(hosts: &[&str]) -> BTreeMap<String, String> {
        hosts.iter().map(|host| ((*host).to_owned(), "no answer".to_owned())).collect()
    }

    #[test]
    fn the_first_hosts_that_are_fit_take_part() {
        let r = roster(1, 2, &["a", "b", "c"]);
        assert_eq!(names(&r.choose(&unfit(&[]))), "a b");
        let choice = r.choose(&unfit(&["a"]));
        assert_eq!(
            (names(&choice).as_str(), &choice.left_out[..]),
            ("b c", &[("a".to_owned(), "no answer".to_owned())][..])
        );
        assert!(r.is_enough(&choice) && !r.is_enough(&r.choose(&unfit(&["a", "b", "c"]))));
    }

    #[test]
    fn two_failures_in_a_row_leave_a_host_out_for_one_start() {
        let mut r = roster(1, 3, &["a", "b", "c"]);
        let fail = |r: &mut Roster, culprit| {
            let choice = r.choose(&unfit(&[]));
            r.on_failure(&choice, culprit, Duration::from_secs(5));
            names(&r.choose(&unfit(&[])))
        };
        assert_eq!(fail(&mut r, Some("b")), "a b c");
        assert_eq!(fail(&mut r, Some("a")), "a b c");
        assert_eq!(fail(&mut r, Some("b")), "a b c");
        assert_eq!(fail(&mut r, Some("b")), "a c");
        assert_eq!(fail(&mut r, None), "a b c");
        assert_eq!(fail(&mut r, Some("b")), "a c");
    }

    #[test]
    fn a_host_that_failed_is_better_than_too_few() {
        let mut r = roster(2, 2, &["a", "b"]);
        for _ in 0..3 {
            let choice = r.choose(&unfit(&[]));
            assert_eq!(names(&choice), "a b");
            r.on_failure(&choice, Some("b"), Duration::ZERO);
        }
    }

    #[test]
    fn of_hosts_that_failed_only_as_many_as_needed_get_a_chance() {
        let mut r = roster(2, 3, &["a", "b", "c"]);
        assert_eq!(r.names(), ["a", "b", "c"]);
        for member in &mut r.hosts[1..] {
            member.strikes = STRIKES;
        }
        let choice = r.choose(&unfit(&[]));
        assert_eq!(names(&choice), "a b");
        assert_eq!(choice.left_out, [("c".to_owned(), format!("it failed {STRIKES} times in a row"))]);
    }

    #[test]
    fn nobody_knows_or_long_ago_is_no_failure_in_a_row() {
        let mut r = roster(1, 2, &["a", "b"]);
        let fail = |r: &mut Roster, culprit, lasted| {
            let choice = r.choose(&unfit(&[]));
            r.on_failure(&choice, culprit, lasted);
            names(&r.choose(&unfit(&[])))
        };
        assert_eq!(fail(&mut r, Some("b"), Duration::ZERO), "a b");
        assert_eq!(fail(&mut r, Some("b"), FORGIVEN), "a b");
        assert_eq!(fail(&mut r, None, Duration::ZERO), "a b");
        assert_eq!(fail(&mut r, Some("b"), Duration::ZERO), "a");
    }

    #[test]
    fn all_reachable_worlds_are_known() {
        let slots = &[2, 2, 8];
        assert_eq!(roster(1, 3, &["a", "b", "c"]).worlds(slots), [2, 4, 8, 10, 12]);
        assert_eq!(roster(3, 3, &["a", "b", "c"]).worlds(slots), [12]);
        assert_eq!(roster(2, 2, &["a", "b", "c"]).worlds(slots), [4, 10]);
    }
}
