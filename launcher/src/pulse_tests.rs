//! Time is a number here.

use super::*;

const CAP: u64 = 300;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn beat(count: u64, step: u64, phase: Phase, waits_for: Option<(&str, Option<usize>)>) -> Beat {
    let bucket = waits_for.and_then(|(_, bucket)| bucket);
    let waits = 10 * step + u64::from(waits_for.is_some()) + bucket.map_or(0, |bucket| bucket as u64);
    Beat { count, waits, step: Step(step), phase, waits_for: waits_for.map(|(what, _)| what.into()), bucket }
}

const REDUCE: Option<(&str, Option<usize>)> = Some(("gradient all-reduce", Some(2)));

/// Both ranks have shown `steps` steps of two seconds, and are in the next one.
fn pulse(steps: u64) -> Pulse {
    let mut pulse = Pulse::new(2, s(CAP));
    for step in 0..=steps {
        pulse.on_step(s(2 * step), Step(step));
        for rank in 0..2 {
            pulse.on_beat(s(2 * step), Rank(rank), beat(step, step, Phase::Forward, None));
        }
    }
    pulse
}

#[test]
fn the_limit_is_learned_and_the_flag_is_its_cap() {
    let mut half = Pulse::new(2, s(CAP));
    half.on_beat(s(1), Rank(0), beat(1, 0, Phase::Start, None));
    assert_eq!(half.deadline(), None, "rank 1 may still load its libraries");
    half.on_beat(s(9), Rank(1), beat(1, 0, Phase::Start, None));
    assert_eq!(half.deadline(), Some(s(9 + CAP)));
    assert_eq!(pulse(5).deadline(), Some(s(10 + CAP)));
    assert_eq!(pulse(10).deadline(), Some(s(20 + 60)));
    let mut evaluated = pulse(10);
    evaluated.on_step(s(120), Step(11));
    assert_eq!(evaluated.deadline(), Some(s(20 + 60)), "one long interval says nothing");
    let mut capped = Pulse { cap: s(7), ..pulse(10) };
    assert_eq!(capped.deadline(), Some(s(27)));
    capped.on_progress(s(25));
    assert_eq!(capped.deadline(), Some(s(32)));
}

#[test]
fn the_next_stage_has_a_pace_of_its_own() {
    let mut pulse = pulse(10);
    pulse.on_step(s(20), Step(10));
    assert_eq!(pulse.deadline(), Some(s(80)));
    pulse.on_step(s(21), Step(1));
    assert_eq!(pulse.deadline(), Some(s(20 + CAP)));
}

#[test]
fn data_and_checkpoints_may_take_until_the_cap() {
    for phase in [Phase::Start, Phase::Data, Phase::Checkpoint, Phase::Evaluation, Phase::End] {
        let mut pulse = pulse(10);
        pulse.on_beat(s(21), Rank(1), beat(99, 10, phase, None));
        assert_eq!(pulse.deadline(), Some(s(21 + CAP)), "{phase}");
    }
}

#[test]
fn the_same_beat_again_is_no_progress() {
    let mut pulse = pulse(10);
    for at in 21..40 {
        pulse.on_beat(s(at), Rank(0), beat(10, 10, Phase::Forward, None));
    }
    assert_eq!(pulse.deadline(), Some(s(80)));
}

#[test]
fn a_silent_rank_is_named_with_its_last_place() {
    let mut pulse = pulse(10);
    for at in 21..=50 {
        pulse.on_beat(s(at), Rank(0), beat(11, 10, Phase::Backward, REDUCE));
    }
    let hang = pulse.hang(s(51)).unwrap();
    assert_eq!((hang.rank, hang.step), (Some(Rank(1)), Step(10)));
    assert_eq!(
        hang.text,
        "no progress for 30 s: it has given no sign of life for 31 s, and was in step 11 (forward pass) before; \
         rank 0 is waiting for the others in step 11 (gradient all-reduce, bucket 2)"
    );
}

#[test]
fn only_a_rank_that_lives_and_waits_tells_where() {
    let mut pulse = Pulse::new(4, s(CAP));
    let waits_at = |bucket| Some(("gradient all-reduce", Some(bucket)));
    for at in 0..=30 {
        pulse.on_beat(s(at), Rank(0), beat(1, 0, Phase::Backward, waits_at(1)));
        // It has come further, and waits for nobody.
        pulse.on_beat(s(at), Rank(2), beat(1, 5, Phase::Forward, None));
    }
    pulse.on_beat(s(0), Rank(1), beat(1, 0, Phase::Forward, None));
    // It waits further on, and has not been heard of for long.
    pulse.on_beat(s(1), Rank(3), beat(1, 5, Phase::Backward, waits_at(1)));
    let hang = pulse.hang(s(31)).unwrap();
    assert_eq!(hang.rank, Some(Rank(1)));
    let said = "; rank 0 is waiting for the others in step 1 (gradient all-reduce, bucket 1)";
    assert!(hang.text.ends_with(said), "{}", hang.text);
}

#[test]
fn of_ranks_that_live_the_one_that_does_not_wait_is_named() {
    let mut pulse = pulse(10);
    for at in 21..=50 {
        pulse.on_beat(s(at), Rank(0), beat(11, 10, Phase::Data, None));
        pulse.on_beat(s(at), Rank(1), beat(12, 10, Phase::Backward, REDUCE));
    }
    let hang = pulse.hang(s(51)).unwrap();
    assert_eq!(hang.rank, Some(Rank(0)));
    assert!(hang.text.contains("it is in step 11 (waiting for data); rank 1 is waiting"), "{}", hang.text);
}

#[test]
fn where_all_wait_the_last_one_is_named() {
    let mut pulse = pulse(10);
    for at in 21..=50 {
        pulse.on_beat(s(at), Rank(0), beat(11, 10, Phase::Backward, REDUCE));
        pulse.on_beat(s(at), Rank(1), beat(11, 10, Phase::Backward, Some(("gradient all-reduce", Some(1)))));
    }
    assert_eq!(pulse.hang(s(51)).unwrap().rank, Some(Rank(1)));
    for at in 51..=53 {
        pulse.on_beat(s(at), Rank(1), beat(12, 10, Phase::Backward, REDUCE));
        pulse.on_beat(s(at), Rank(0), beat(11, 10, Phase::Backward, REDUCE));
    }
    let nobody = pulse.hang(s(54)).unwrap();
    assert_eq!(nobody.rank, None);
    assert!(nobody.text.contains("every rank is waiting for the others in step 11"), "{}", nobody.text);
}

#[test]
fn a_launcher_that_slept_blames_nobody() {
    let mut pulse = pulse(10);
    pulse.forgive(s(1000));
    assert_eq!(pulse.deadline(), Some(s(1060)));
    let hang = pulse.hang(s(1001)).unwrap();
    assert!(!hang.text.contains("no sign of life"), "{}", hang.text);
}
