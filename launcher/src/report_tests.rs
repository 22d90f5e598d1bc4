//! Tests of what is said and written.

use super::*;
use protocol::Rank;
use serde_json::json;

fn cause(rank: Option<usize>, step: Option<u64>) -> RootCause {
    let cause =
        Cause { rank: rank.map(Rank), step: step.map(Step), exit: Exit::WorkerFailed, text: "no\n  luck".into() };
    RootCause::new(&cause, rank.map(|r| format!("gpu{r}")))
}

#[test]
fn a_failure_names_rank_host_and_step_in_one_line() {
    let line = |c: RootCause| Final { exit: Exit::WorkerFailed, text: c.to_string() }.line();
    assert_eq!(line(cause(Some(1), Some(37))), "rank 1 on gpu1 failed after step 37: no luck; exit code 4");
    assert_eq!(line(cause(Some(1), Some(0))), "rank 1 on gpu1 failed before its first step: no luck; exit code 4");
    assert_eq!(line(cause(None, None)), "the job failed: no luck; exit code 4");
}

#[test]
fn ends_without_failure_say_where_the_work_stands() {
    let line = |outcome| good_end(&outcome, Some(Step(40)), 0).line();
    let preempted = |confirmed| line(Outcome::Preempted { confirmed });
    assert_eq!(preempted(true), "preempted after the checkpoint of step 40; exit code 143");
    assert_eq!(
        preempted(false),
        "stopped on request, but no new checkpoint was confirmed (the last is of step 40); exit code 143"
    );
    assert_eq!(line(Outcome::Signalled(2)), "stopped by signal 2 (SIGINT); exit code 130");
    assert_eq!(good_end(&Outcome::Done, None, 2).line(), "done, restarts: 2");
}

#[test]
fn the_summary_keeps_the_trainers_fields() {
    let dir = tempfile::tempdir().unwrap();
    let read =
        || -> Value { serde_json::from_slice(&std::fs::read(dir.path().join("summary.json")).unwrap()).unwrap() };
    std::fs::write(dir.path().join("summary.json"), r#"{"dice": 0.7}"#).unwrap();
    merge_summary(dir.path(), 1, Some(&cause(Some(1), Some(37)))).unwrap();
    let expected = json!({"rank": 1, "host": "gpu1", "step": 37, "cause": "no luck", "exit_code": 4});
    assert_eq!(read(), json!({"dice": 0.7, "restarts": 1, "root_cause": expected, "status": "failed"}));
    merge_summary(dir.path(), 0, None).unwrap();
    assert_eq!(read(), json!({"dice": 0.7, "restarts": 0}));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_unwritable_summary_is_named() {
    let error = merge_summary(Path::new("/nonexistent"), 0, None).unwrap_err().to_string();
    assert!(error.starts_with("cannot write /nonexistent/summary.json"), "{error}");
}

#[test]
fn words_are_quoted_for_a_shell() {
    let words = ["plain/x=1", "a b", "it's", "", "[1,2]"].map(String::from);
    assert_eq!(shell(&words), r"plain/x=1 'a b' 'it'\''s' '' '[1,2]'");
}
