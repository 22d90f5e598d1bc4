//! Tests of the first cause.

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn gone(at: u64, rank: usize) -> Trouble {
    Trouble { at: ms(at), rank: Rank(rank), what: What::Gone }
}

fn failed(at: u64, rank: usize, exit: Exit, cause: &str) -> Trouble {
    Trouble { at: ms(at), rank: Rank(rank), what: What::Failed { step: Step(7), exit, cause: cause.into() } }
}

fn ended(at: u64, death: Death) -> Option<MpirunEnd> {
    Some(MpirunEnd { at: ms(at), death })
}

fn named(rank: usize, death: Death) -> Option<Named> {
    Some(Named { rank: Rank(rank), death })
}

fn summary(cause: Cause) -> (Option<usize>, Exit, String) {
    (cause.rank.map(|r| r.0), cause.exit, cause.text)
}

#[test]
fn the_earliest_failure_is_the_cause() {
    let troubles =
        [failed(900, 0, Exit::WorkerFailed, "lost rank 1"), failed(100, 1, Exit::WorkerFailed, "NaN"), gone(2000, 2)];
    let cause = first_cause(&troubles, None, ended(2100, Death::Code(4)));
    assert_eq!(cause.step, Some(Step(7)));
    assert_eq!(summary(cause), (Some(1), Exit::WorkerFailed, "NaN".into()));
}

#[test]
fn a_death_comes_before_the_peers_complaints() {
    let troubles = [gone(100, 1), failed(130, 0, Exit::WorkerFailed, "lost rank 1")];
    let cause = first_cause(&troubles, named(1, Death::Signal(9)), ended(300, Death::Code(137)));
    assert_eq!(summary(cause), (Some(1), Exit::WorkerFailed, "killed by signal 9 (SIGKILL)".into()));
}

#[test]
fn a_death_wins_even_if_a_peers_complaint_overtakes_it() {
    let troubles = [failed(100, 0, Exit::WorkerFailed, "lost rank 1"), gone(130, 1)];
    let cause = first_cause(&troubles, named(1, Death::Signal(11)), ended(300, Death::Code(139)));
    assert_eq!(summary(cause), (Some(1), Exit::WorkerFailed, "killed by signal 11 (SIGSEGV)".into()));
}

#[test]
fn a_death_long_after_a_failure_is_its_consequence() {
    let troubles = [failed(100, 0, Exit::Hang, "all-reduce of bucket 3 timed out"), gone(1500, 1)];
    let cause = first_cause(&troubles, named(1, Death::Signal(6)), None);
    assert_eq!(summary(cause), (Some(0), Exit::Hang, "all-reduce of bucket 3 timed out".into()));
}

#[test]
fn what_no_restart_mends_wins_over_lost_peers() {
    let troubles = [failed(100, 0, Exit::WorkerFailed, "lost rank 1"), failed(1900, 1, Exit::BadData, "bad image")];
    assert_eq!(summary(first_cause(&troubles, None, None)), (Some(1), Exit::BadData, "bad image".into()));
    let too_late = [failed(100, 0, Exit::WorkerFailed, "NaN"), failed(2200, 1, Exit::BadData, "bad image")];
    assert_eq!(summary(first_cause(&too_late, None, None)), (Some(0), Exit::WorkerFailed, "NaN".into()));
}

#[test]
fn mpirun_tells_which_of_two_deaths_was_first() {
    let troubles = [gone(100, 0), gone(105, 1)];
    let cause = first_cause(&troubles, named(1, Death::Code(17)), ended(300, Death::Code(17)));
    assert_eq!(summary(cause), (Some(1), Exit::WorkerFailed, "ended with exit code 17".into()));
}

#[test]
fn mpiruns_exit_code_explains_a_silent_death() {
    let text = |code| summary(first_cause(&[gone(1, 0)], None, ended(2, Death::Code(code))));
    assert_eq!(text(139), (Some(0), Exit::WorkerFailed, "killed by signal 11 (SIGSEGV)".into()));
    assert_eq!(text(2), (Some(0), Exit::Usage, "ended with exit code 2".into()));
    assert_eq!(text(0).2, "its connection to the launcher closed");
}

#[test]
fn mpiruns_exit_code_is_that_of_the_only_death() {
    let end = ended(300, Death::Code(139));
    let killed = (Some(1), Exit::WorkerFailed, "killed by signal 11 (SIGSEGV)".to_owned());
    let complaint = failed(130, 0, Exit::WorkerFailed, "lost rank 1");
    assert_eq!(summary(first_cause(&[gone(100, 1), complaint], None, end)), killed);
    // What goes long afterwards goes because of it.
    assert_eq!(summary(first_cause(&[gone(100, 1), gone(2000, 0)], None, end)), killed);
}

#[test]
fn mpiruns_exit_code_is_nobodys_when_several_died_at_once() {
    // Rank 1 was killed on another host; rank 0 lost its connection to it, and MPI ended it with code 14.
    let cause = first_cause(&[gone(100, 1), gone(140, 0)], None, ended(200, Death::Code(14)));
    assert_eq!(summary(cause), (Some(1), Exit::WorkerFailed, "its connection to the launcher closed".into()));
}

#[test]
fn a_killed_mpirun_is_a_cause_of_its_own() {
    let killed = ended(1000, Death::Signal(9));
    let expected = (None, Exit::WorkerFailed, "mpirun was killed by signal 9 (SIGKILL)".to_owned());
    assert_eq!(summary(first_cause(&[], None, killed)), expected);
    assert_eq!(summary(first_cause(&[gone(990, 0), gone(1100, 1)], None, killed)), expected);
    assert_eq!(first_cause(&[gone(100, 0)], None, killed).rank, Some(Rank(0)));
}

#[test]
fn workers_that_never_reported_are_named_by_mpirun() {
    let cause = first_cause(&[], named(1, Death::Code(127)), ended(50, Death::Code(127)));
    assert_eq!(summary(cause), (Some(1), Exit::WorkerFailed, "ended with exit code 127".into()));
    let cause = first_cause(&[], None, ended(50, Death::Code(213)));
    assert_eq!(summary(cause), (None, Exit::WorkerFailed, "mpirun ended with exit code 213".into()));
}

#[test]
fn a_worker_that_ended_before_it_could_report_wins_over_those_killed_for_it() {
    let cause = first_cause(&[gone(100, 0)], named(1, Death::Code(3)), ended(300, Death::Code(3)));
    assert_eq!(summary(cause), (Some(1), Exit::BadData, "ended with exit code 3".into()));
}
