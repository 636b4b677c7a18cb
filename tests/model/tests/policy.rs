// SPDX-License-Identifier: GPL-2.0

//! What the policy of gathering learns, and how long it then has flushes held back.

use flush_model::gather::{
    Learned,
    Policy,
    LONGEST,
    SHORTEST, //
};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// The callers of each flush.
const CALLERS: usize = 8;

/// Of these so many are most: the quorum.
const MOST: usize = 7;

/// A clock that must not be read.
fn no_clock() -> u64 {
    panic!("the clock is read")
}

/// A policy, and what its clock shows.
struct Load(Learned, u64);

impl Load {
    /// A host that takes `service`, and callers most of which are back after `back`.
    fn new(service: u64, back: u64) -> Self {
        let mut load = Self(Learned::default(), 3 * MS);

        assert_eq!(load.flush(service), 0);
        load.return_after(back);
        load
    }

    /// A flush that takes `service`. Returns for how long the next one may be held back.
    fn flush(&mut self, service: u64) -> u64 {
        self.flush_for(service, CALLERS, 0)
    }

    fn flush_for(&mut self, service: u64, answered: usize, waiting: usize) -> u64 {
        self.0.sent(Some(self.1));
        self.1 += service;
        self.0.answered(self.1, answered, waiting)
    }

    /// Most of its callers return.
    fn return_after(&mut self, back: u64) {
        self.0.present(MOST, || self.1 + back);
        self.0.present(MOST, no_clock);
    }

    /// The flush that was held back leaves after `time`.
    fn gathered(&mut self, time: u64, callers: usize) {
        self.0.gathered(self.1 + time, callers);
    }
}

#[test]
fn the_service_time_is_smoothed() {
    let mut load = Load(Learned::default(), 0);
    for (took, mean, limit) in [
        (8, 8 * MS, 4 * MS),
        (16, 9 * MS, 4 * MS + 500 * US),
        // A host may become faster suddenly.
        (1, 8 * MS, 500 * US),
        (1000, 132 * MS, LONGEST),
    ] {
        load.flush(took * MS);
        assert_eq!((load.0.mean, load.0.limit()), (mean, limit));
    }
}

#[test]
fn a_flush_that_was_not_timed_counts_for_nothing() {
    let mut policy = Learned::default();
    policy.sent(None);
    assert_eq!(policy.answered(MS, CALLERS, 0), 0);
    policy.present(CALLERS, || MS + US);
    assert_eq!((policy.mean, policy.limit()), (0, 0));
    // Nor does the time of a return, before the host's is known.
    let mut load = Load(policy, 2 * MS);
    assert_eq!(load.flush(8 * MS), 0);
    // Each measurement is used once.
    load.0.answered(load.1 + 100 * MS, 0, 0);
    assert_eq!(load.0.mean, 8 * MS);
}

#[test]
fn a_flush_is_held_back_as_long_as_the_callers_are_away() {
    let mut load = Load::new(8 * MS, 100 * US);
    assert_eq!(load.flush(8 * MS), 4 * 100 * US + SHORTEST);
    load.return_after(500 * US);
    assert_eq!(load.flush(8 * MS), 4 * 200 * US + SHORTEST);
    // They are not back when the next flush is answered, 8 ms later.
    assert_eq!(load.flush(8 * MS), 4 * MS);
    load.return_after(0);
    // 2.15 ms, smoothed.
    let back = 2150 * US - 2150 * US / 4;
    assert_eq!(load.flush_for(100 * MS, CALLERS, 0), 4 * back + SHORTEST);
}

#[test]
fn callers_that_were_away_for_long_are_forgotten_soon() {
    let mut load = Load::new(8 * MS, 100 * US);
    load.flush(8 * MS);
    load.return_after(1000 * MS);
    // At most twice the host's time counts: 0.1 ms - 0.025 ms + 4 ms, which is too long.
    assert_eq!(load.flush(8 * MS), 0);
    load.return_after(0);
    // 3.05625 ms.
    assert_eq!(load.flush(8 * MS), 4 * MS);
}

#[test]
fn most_callers_are_a_quorum() {
    let mut load = Load::new(8 * MS, 100 * US);
    load.flush_for(8 * MS, 16, 5);
    load.0.present(18, no_clock);
    load.0.present(19, || load.1 + 500 * US);
    load.0.present(19, no_clock);
    assert_eq!(load.flush(8 * MS), 4 * 200 * US + SHORTEST);
    // No caller was answered, so none returns.
    load.flush_for(8 * MS, 0, 5);
    load.0.present(CALLERS, no_clock);
}

#[test]
fn a_wait_must_pay_for_those_that_wait_already() {
    // Each caller that returns within 2 ms gains 6 ms.
    for (answered, waiting, time) in [(1, 2, 4 * MS), (1, 3, 0), (2, 5, 4 * MS), (2, 6, 0)] {
        let mut load = Load::new(8 * MS, 2 * MS);
        assert_eq!(load.flush_for(8 * MS, answered, waiting), time);
    }
    // No flush is held back for callers that need as long as it may be.
    assert_eq!(Load::new(8 * MS, 4 * MS).flush(8 * MS), 0);
    assert_eq!(Load::new(8 * MS, 4 * MS - 4).flush(8 * MS), 4 * MS);
}

#[test]
fn a_short_wait_is_not_worth_a_timer() {
    assert_eq!(Load::new(2 * SHORTEST, 0).flush(2 * SHORTEST), SHORTEST);
    assert_eq!(Load::new(2 * SHORTEST - 1, 0).flush(2 * SHORTEST - 1), 0);
}

#[test]
fn after_a_wait_in_vain_flushes_leave_at_once() {
    let mut load = Load::new(8 * MS, 100 * US);
    let mut waits = 0;

    for skipped in [2, 4, 8, 16, 32, 64, 64] {
        assert!(load.flush(8 * MS) > 0);
        load.return_after(100 * US);
        load.gathered(MS, 1);
        waits += 1;
        for _ in 0..skipped {
            assert_eq!(load.flush(8 * MS), 0);
            load.return_after(100 * US);
        }
        assert_eq!((load.0.gathered, load.0.in_vain), (waits, waits));
    }
    // One that pays ends the row.
    assert!(load.flush(8 * MS) > 0);
    load.gathered(MS, CALLERS);
    assert_eq!((load.0.gathered, load.0.in_vain), (waits + 1, waits));
    load.gathered(MS, 1);
    assert_eq!(load.flush(8 * MS), 0);
    load.return_after(100 * US);
    assert_eq!(load.flush(8 * MS), 0);
    load.return_after(100 * US);
    assert!(load.flush(8 * MS) > 0);
}

#[test]
fn a_wait_is_judged_by_what_it_cost() {
    // One caller more than the two that waited gains what is left of 8 ms.
    for (time, in_vain) in [(2 * MS, 0), (3 * MS, 1)] {
        let mut load = Load::new(8 * MS, 100 * US);
        load.flush_for(8 * MS, CALLERS, 2);
        load.gathered(time, 3);
        assert_eq!(load.0.in_vain, in_vain);
    }
    // Without the wait the flush would have left with the first caller.
    let mut load = Load::new(8 * MS, 100 * US);
    load.flush(8 * MS);
    load.gathered(4 * MS, 2);
    assert_eq!(load.0.in_vain, 1);
}

#[test]
fn measurements_that_have_begun_can_be_forgotten() {
    let mut load = Load::new(8 * MS, 100 * US);
    load.flush(8 * MS);
    load.0.sent(Some(load.1));
    load.0.forget();
    load.0.present(CALLERS, no_clock);
    load.0.answered(load.1 + 100 * MS, CALLERS, 0);
    assert_eq!(load.0.mean, 8 * MS);
}
