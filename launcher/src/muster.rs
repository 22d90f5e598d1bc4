//! The hosts of the next start: asks all that may take part whether they can, and plans for those that do. Prints nothing,
//! and decides nothing itself: [`crate::roster`], [`crate::probe`] and [`crate::plan`] do.

use crate::addresses;
use crate::machine::Machine;
use crate::mpirun::Programs;
use crate::nodes::Reach;
use crate::plan::{self, Plan, PlanError, Request, Share};
use crate::probe::wanted::Wanted;
use crate::probe::{self, Report, exchange};
use crate::remote::Patience;
use crate::roster::{Choice, Roster};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// How long hosts may take before another start, where those that do not answer are left out. One that lives but is slow, as
/// hosts are while the workers of the last start are still dying there, is not.
const AGAIN: Patience = Patience { first: Duration::from_secs(6), whole: probe::WITHIN };

/// What the starts of a job are made from.
pub struct Muster {
    /// What was asked for.
    pub request: Request,
    /// This machine.
    pub machine: Machine,
    /// What runs.
    pub programs: Programs,
    /// What the configuration needs.
    pub wanted: Wanted,
    /// The parts of all hosts, in their order.
    pub shares: Vec<Share>,
    /// All hosts.
    pub roster: Roster,
    /// Whether hosts are asked (`--preflight`).
    pub asks: bool,
}

/// The hosts of a start, and what runs where.
#[derive(Clone, Debug)]
pub struct Team {
    /// Who takes part and who does not.
    pub choice: Choice,
    /// What runs where.
    pub plan: Plan,
    /// Where this machine listens for the workers.
    pub addresses: Vec<IpAddr>,
    /// Lines for the user.
    pub warnings: Vec<String>,
    /// Lines for launcher.log.
    pub notes: Vec<String>,
}

impl Muster {
    /// The team of the first start. `plan` is for all hosts that were asked for.
    pub fn first(&self, plan: &Plan) -> Result<Team, PlanError> {
        let mut team = self.team(plan, probe::WITHIN.into())?;
        if self.asks && team.plan.nodes.len() > 1 {
            connect(&mut team)?;
        }
        Ok(team)
    }

    /// The team of another start.
    pub fn again(&self, plan: &Plan) -> Result<Team, PlanError> {
        // A host that is slow to answer must not end a job that it was good enough for before.
        self.team(plan, if self.roster.is_elastic() { AGAIN } else { probe::WITHIN.into() })
    }

    fn team(&self, plan: &Plan, patience: Patience) -> Result<Team, PlanError> {
        let began = Instant::now();
        let report = match self.asks {
            true => self.ask(plan, patience),
            false => Report::default(),
        };
        let choice = self.roster.choose(&report.reasons());
        let enough = self.request.nodes.reach != Reach::Here && self.roster.is_enough(&choice);
        if let (false, Some(unfit)) = (enough, report.unfit()) {
            return Err(unfit.into());
        }
        let hosts: Vec<String> = choice.hosts.iter().map(|node| node.name.clone()).collect();
        let addresses = match self.request.nodes.reach {
            Reach::Here => vec![Ipv4Addr::LOCALHOST.into()],
            Reach::Ssh | Reach::Slurm => addresses::towards(&hosts),
        };
        let mut notes = vec![format!("preflight: hosts asked in {:.2} s", began.elapsed().as_secs_f64())];
        notes.extend(report.sharing());
        Ok(Team { plan: self.plan(&choice)?, choice, addresses, warnings: report.table(), notes })
    }

    fn ask(&self, plan: &Plan, patience: Patience) -> Report {
        let expected = plan.expected(&self.machine, &self.wanted);
        probe::examine(&self.shares, &expected, self.request.nodes.reach, &self.machine, patience)
    }

    fn plan(&self, choice: &Choice) -> Result<Plan, PlanError> {
        let mut request = self.request.clone();
        request.nodes.list = choice.hosts.clone();
        // It was read for the whole job, and a smaller one may lack some of its ranks.
        request.ranks_filter = None;
        plan::plan(&request, &self.machine, &self.programs)
    }
}

/// Has the hosts add up numbers with each other.
fn connect(team: &mut Team) -> Result<(), PlanError> {
    let began = Instant::now();
    let connections = exchange::run(&team.plan)?;
    team.notes.push(format!("preflight: connections measured in {:.2} s", began.elapsed().as_secs_f64()));
    team.warnings.extend(connections.warnings);
    team.notes.extend(connections.table);
    Ok(())
}
