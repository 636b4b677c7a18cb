// SPDX-License-Identifier: GPL-2.0

//! Single sequences of events. The crate's documentation shows how to add one.

use flush_model::{
    engine::{
        Dead,
        Ended,
        Engine,
        NotSent,
        Port,
        Refused,
        Responses,
        Timer,
        Used,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    Event::{
        self,
        *, //
    },
    How::*,
    Kind::*,
    List,
    Real,
    Setup,
    World, //
};

/// Plays events in a world, and checks how many callers have succeeded and failed then.
macro_rules! play {
    ($world:ident: $($event:expr),+ => $done:expr, $failed:expr) => {
        play(&mut $world, &[$($event),+], ($done, $failed))
    };
}

fn play(world: &mut World<Real>, events: &[Event], ended: (u64, u64)) {
    if let Err(violation) = world.play(events) {
        panic!("{violation}");
    }
    assert_eq!(world.ended(), ended);
}

/// R1, R2.
#[test]
fn any_number_of_callers_costs_two_flushes() {
    let mut world = World::probed(Setup::default());
    play(&mut world, &[Arrive(Sync); 20], (0, 0));
    play!(world: Answer(0, Done), Interrupt => 1, 0);
    play!(world: Answer(0, Done), Interrupt => 20, 0);
}

#[test]
fn callers_wait_for_probe() {
    let mut world = World::new(Setup::default());
    play!(world: Arrive(Sync), Arrive(Bio), Restore => 0, 0);
    play!(world: Answer(0, Done), Interrupt, Work => 2, 0);
}

#[test]
fn an_error_hits_its_batch_alone() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Arrive(Sync) => 0, 0);
    play!(world: Answer(0, Error), Interrupt => 0, 1);
    play!(world: Answer(0, Done), Interrupt => 1, 1);
}

#[test]
fn a_request_that_comes_back_empty_is_an_error() {
    let mut world = World::probed(Setup::default());
    for failed in 1..100 {
        play!(world: Arrive(Sync), Answer(0, Empty), Interrupt => 0, failed);
    }
    play!(world: Arrive(Sync), Answer(0, Done), Interrupt => 1, 99);
}

#[test]
fn want_of_memory_fails_no_caller() {
    let mut world = World::probed(Setup::default());
    play!(world: NoMemory, Arrive(Sync), Wake, Wake, Memory, Wake => 0, 0);
    play!(world: Answer(0, Done), Interrupt => 1, 0);
}

#[test]
fn suspend_waits_for_the_answer_and_callers_wait_for_resume() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Freeze, Arrive(Sync) => 0, 0);
    play!(world: Answer(0, Done), Interrupt, Frozen, Arrive(Bio) => 1, 0);
    play!(world: Restore, Answer(0, Done), Interrupt, Work => 3, 0);
}

#[test]
fn an_aborted_suspend_fails_no_caller() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Freeze, Arrive(Sync), Thaw => 0, 0);
    play!(world: Answer(0, Done), Interrupt, Answer(0, Done), Interrupt => 2, 0);
}

#[test]
fn a_host_that_forgets_on_reset_is_asked_again() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), ForcedReset(false), Restore => 0, 0);
    play!(world: Answer(0, Done), Interrupt => 1, 0);
}

/// R3, R5: a late answer, as QEMU gives it.
#[test]
fn a_late_answer_acknowledges_no_caller() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), ForcedReset(true), Arrive(Sync), Restore => 0, 0);
    // The answer to the flush before the reset has the descriptor id of the flush after it.
    play!(world: Answer(0, Done), Interrupt, Arrive(Sync) => 0, 0);
    // The answer to the second flush finds no descriptor. Now the host has no flush left.
    play!(world: Answer(0, Done), Interrupt, Recover(true), Restore => 0, 0);
    play!(world: Answer(0, Done), Interrupt => 3, 0);
}

/// R6: the thread pool of the host may finish the later flush first.
#[test]
fn a_late_answer_may_come_after_its_successors() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), ForcedReset(true), Restore, Answer(1, Done) => 0, 0);
    play!(world: Interrupt => 1, 0);
    // No caller waits when the late answer comes; it must be gone when the next one arrives.
    play!(world: Answer(0, Done), Interrupt, Arrive(Sync) => 1, 0);
    play!(world: Recover(true), Restore, Answer(0, Done), Interrupt => 2, 0);
}

#[test]
fn a_recovery_fails_no_caller() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), NeedsReset, Arrive(Bio), Recover(false), Restore => 0, 0);
    play!(world: Answer(0, Done), Interrupt, Work => 2, 0);
}

/// R8: the late answer to the flush that a recovery interrupted does not show that it did not help.
#[test]
fn a_recovery_may_be_followed_by_that_of_the_ring() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), NeedsReset, Recover(true), Restore => 0, 0);
    play!(world: Answer(0, Done), Interrupt, Answer(0, Done), Interrupt => 0, 0);
    play!(world: Recover(true), Restore, Answer(0, Done), Interrupt => 1, 0);
}

/// R8.
#[test]
fn a_recovery_that_does_not_help_is_the_last() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), NeedsReset, Recover(false), Restore => 0, 0);
    play!(world: NeedsReset, Recover(false) => 0, 1);
    assert!(world.is_broken());
}

/// R8: a recovered queue gets a flush without a caller, so an idle device can be recovered again.
#[test]
fn recoveries_that_help_may_be_many() {
    let mut world = World::probed(Setup::default());
    for _ in 0..10 {
        let events = [
            NeedsReset,
            Recover(false),
            Restore,
            Answer(0, Done),
            Interrupt,
        ];
        play(&mut world, &events, (0, 0));
    }
    assert!(!world.is_broken());
}

#[test]
fn flushes_may_be_lost_any_number_of_times() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync) => 0, 0);
    for _ in 0..100 {
        play!(world: ForcedReset(false), Restore => 0, 0);
    }
    play!(world: Answer(0, Done), Interrupt => 1, 0);
}

/// R6: the answer to the lost flush follows that to the flush in flight before the driver's
/// callback runs; a host with EVENT_IDX gives no second interrupt.
#[test]
fn a_surplus_answer_is_found_without_an_interrupt() {
    for setup in Setup::rings(false) {
        let mut world = World::probed(setup);
        play!(world: Arrive(Sync), ForcedReset(true), Restore => 0, 0);
        play!(world: Answer(1, Done), Answer(0, Done), Interrupt => 1, 0);
        play!(world: Arrive(Sync), Recover(true), Restore => 1, 0);
        play!(world: Answer(0, Done), Interrupt => 2, 0);
    }
}

/// R6: the late answer and its interrupt come when the queue was found and the driver does not have
/// it yet.
#[test]
fn a_late_answer_before_the_start_is_found() {
    for setup in Setup::rings(false) {
        let mut world = World::probed(setup);
        play!(world: Arrive(Sync), ForcedReset(true), Find => 0, 0);
        play!(world: Answer(0, Done), Interrupt, Restore, Recover(true), Restore => 0, 0);
        play!(world: Answer(0, Done), Interrupt => 1, 0);
    }
}

/// R5: the late answer uses up the descriptor of a request of which the host was not notified yet.
#[test]
fn a_late_answer_does_not_stop_a_notification() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), ForcedReset(true), Restore, Arrive(Sync) => 0, 0);
    // The answer to the flush in flight; the next request is added, and then the late answer comes.
    play!(world: Answer(1, Done), InterruptMeanwhile(3, 0) => 1, 0);
    play!(world: Answer(0, Done), Interrupt, Recover(true), Restore => 1, 0);
    play!(world: Answer(0, Done), Interrupt => 2, 0);
}

/// R6: the request of a caller that arrives before the driver's callback runs would overwrite it.
#[test]
fn a_surplus_answer_is_found_before_sending() {
    for setup in Setup::rings(false) {
        let mut world = World::probed(setup);
        play!(world: Arrive(Sync), ForcedReset(true), Restore => 0, 0);
        play!(world: Answer(1, Done), Interrupt, Answer(0, Done), Arrive(Sync) => 1, 0);
        play!(world: Interrupt, Recover(true), Restore, Answer(0, Done), Interrupt => 2, 0);
    }
}

/// R7: the request stays mapped, so the host may write it, and its answer unmaps no other.
#[test]
fn a_flush_lost_behind_a_mapping_is_the_end() {
    for setup in Setup::rings(true) {
        let mut world = World::probed(setup);
        play!(world: Arrive(Sync), ForcedReset(true), Restore, Arrive(Sync) => 0, 1);
        play!(world: Answer(0, Done) => 0, 1);
        assert!(world.is_broken());
    }
}

#[test]
fn a_device_that_vanishes_fails_all_callers() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Arrive(Bio), Vanish => 0, 0);
    play!(world: GiveUp => 0, 2);
    // Only when the work item has completed the bio, no caller is left.
    play!(world: Work, Arrive(Sync), Close, Removed => 0, 2);
}

#[test]
fn a_caller_finds_the_queue_broken() {
    let mut world = World::probed(Setup::default());
    play!(world: Vanish, Arrive(Sync) => 0, 1);
    assert!(world.is_broken());
}

#[test]
fn orderly_removal_serves_the_earlier_callers() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Bio), Close, Arrive(Sync), Answer(0, Done), Interrupt => 1, 0);
    assert!(!world.events(0).contains(&Removed));
    play!(world: Work, Removed, Rebind => 1, 0);
}

/// R3, R5: the host still works on a flush of the driver that was bound before.
#[test]
fn a_late_answer_may_be_for_an_earlier_driver() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Close, RemovedByForce, Rebind => 0, 1);
    play!(world: Arrive(Sync), Restore, Answer(0, Done), Interrupt => 0, 1);
    play!(world: Answer(0, Done), Interrupt, Recover(true), Restore => 0, 1);
    play!(world: Answer(0, Done), Interrupt => 1, 1);
}

/// R8: each late answer costs a recovery of its own, and each of these helps.
#[test]
fn late_answers_to_an_idle_engine_may_be_many() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Close, RemovedByForce, Rebind, Restore => 0, 1);
    play!(world: Arrive(Sync), ForcedReset(true), Restore, Answer(2, Done), Interrupt => 1, 1);
    for _ in 0..2 {
        play!(world: Answer(0, Done), Interrupt, Recover(true), Restore => 1, 1);
        let proof = world
            .events(0)
            .iter()
            .filter(|event| matches!(event, Answer(_, Done)))
            .count();
        play!(world: Answer(proof - 1, Done), Interrupt => 1, 1);
    }
    assert!(!world.is_broken());
}

/// An answer that is there when the device is reset counts, and so does an error.
#[test]
fn an_unread_answer_is_not_lost_on_reset() {
    let mut world = World::probed(Setup::default());
    play!(world: Arrive(Sync), Arrive(Bio), Answer(0, Error), ForcedReset(true) => 0, 1);
    play!(world: Restore, Answer(0, Done), NeedsReset, Recover(true), Work => 1, 1);
}

fn gathering() -> World<Real> {
    World::probed(Setup {
        gathers: true,
        ..Setup::default()
    })
}

/// R10: the flush for the second caller waits for the first, which is back soon.
#[test]
fn one_flush_answers_all_callers() {
    let mut world = gathering();
    play!(world: Arrive(Sync), Arrive(Sync), Answer(0, Done), Interrupt => 1, 0);
    for done in [3, 5, 7] {
        play!(world: Arrive(Sync), Answer(0, Done), Interrupt => done, 0);
        play!(world: Tick, Arrive(Sync) => done, 0);
    }
}

/// R10, R11: the first caller does not come back.
#[test]
fn a_gathering_has_an_end() {
    let mut world = gathering();
    play!(world: Arrive(Sync), Arrive(Sync), Answer(0, Done), Interrupt => 1, 0);
    play!(world: Wake, Tick, Wake, Tick => 1, 0);
    play!(world: Wake, Answer(0, Done), Interrupt => 2, 0);
    // The second caller was alone then.
    play!(world: Arrive(Sync), Answer(0, Done), Interrupt => 3, 0);
}

/// R11: no caller was here when the deadline passed, so there was no timer.
#[test]
fn a_gathering_ends_without_a_caller() {
    let mut world = gathering();
    play!(world: Arrive(Sync), Arrive(Sync), Answer(0, Done), Interrupt => 1, 0);
    play!(world: Arrive(Sync), Answer(0, Done), Interrupt, Wake, Tick, Tick => 3, 0);
    play!(world: Arrive(Sync), Answer(0, Done), Interrupt => 4, 0);
}

/// R12.
#[test]
fn a_gathering_ends_when_the_driver_is_removed() {
    let mut world = gathering();
    play!(world: Arrive(Sync), Arrive(Sync), Answer(0, Done), Interrupt => 1, 0);
    play!(world: Close, Answer(0, Done), Interrupt, Removed => 2, 0);
}

/// R12.
#[test]
fn no_flush_is_held_back_after_an_error() {
    let mut world = gathering();
    play!(world: Arrive(Sync), Arrive(Sync), Answer(0, Error), Interrupt => 0, 1);
    play!(world: Answer(0, Done), Interrupt => 1, 1);
}

fn patient() -> World<Real> {
    World::probed(Setup {
        patient: true,
        ..Setup::default()
    })
}

/// R14: the host has lost the flush, as when a snapshot of its state is restored.
#[test]
fn a_flush_without_an_answer_is_sent_again() {
    let mut world = patient();
    play!(world: Arrive(Sync), Lose(0), Wake => 0, 0);
    assert!(!world.events(0).contains(&Recover(true)));
    play!(world: Wake, Arrive(Sync), Recover(true), Restore => 0, 0);
    play!(world: Answer(0, Done), Interrupt => 2, 0);
}

/// R14: the host was slow.
#[test]
fn an_answer_ends_the_wait() {
    let mut world = patient();
    play!(world: Arrive(Sync), Wake, Wake, Answer(0, Done), Interrupt => 1, 0);
    play!(world: Arrive(Sync), Recover(true), Answer(0, Done), Interrupt => 2, 0);
}

/// R15: the host was slow, and answers all that was sent.
#[test]
fn a_slow_host_is_not_given_up() {
    let mut world = patient();
    play!(world: Arrive(Sync) => 0, 0);
    for _ in 0..2 {
        play!(world: Wake, Wake, Recover(true), Restore => 0, 0);
    }
    for _ in 0..2 {
        // A late answer, and the one after it, which finds no descriptor.
        play!(world: Answer(0, Done), Interrupt, Answer(0, Done), Interrupt => 0, 0);
        play!(world: Recover(true), Restore => 0, 0);
    }
    play!(world: Answer(0, Done), Interrupt => 1, 0);
    assert!(!world.is_broken());
}

/// R14: time by a clock.
#[test]
fn patience_doubles_and_has_an_end() {
    for (responses, recovers) in [(Responses::Direct, true), (Responses::Mapped, false)] {
        let mut engine = Real::new();
        let mut script = Script {
            now: Some(1000),
            ..Script::default()
        };
        engine.start(responses, &mut script);
        engine.arrive(7).unwrap();
        engine.pump(&mut script);
        for patience in [PATIENCE, 2 * PATIENCE, 4 * PATIENCE] {
            let mut waited = 0;
            while !engine.is_overdue() && waited < 1000 {
                let Some(Timer::Start(time)) = engine.take_timer() else {
                    panic!("no timer");
                };
                assert_eq!(time, script.now.unwrap() + CHECK);
                script.now = Some(time);
                engine.wake(&mut script);
                waited += CHECK;
            }
            assert_eq!(engine.is_overdue(), recovers);
            if !recovers {
                break;
            }
            // The first check begins the wait.
            assert_eq!(waited, patience + CHECK);
            assert!(engine.recover(&mut script));
            engine.reset(None, &mut script);
            engine.start(responses, &mut script);
        }
    }
}

/// R13.
#[test]
fn a_read_only_engine_sends_nothing() {
    let mut engine = Real::new();
    let mut script = Script::default();
    engine.set_read_only(true);
    for _ in 0..2 {
        engine.start(Responses::Direct, &mut script);
        assert_eq!(engine.arrive(7), Err((Refused::ReadOnly, 7)));
        engine.pump(&mut script);
        assert!(engine.is_idle() && !engine.takes_callers());
        if engine.recover(&mut script) {
            engine.reset(None, &mut script);
        }
    }
    assert_eq!(script.sent, 0);
    assert!(engine.is_broken());
}

/// How often a script with a clock checks for an answer, and its patience.
const CHECK: u64 = 10;
const PATIENCE: u64 = 30;

/// A port without a world, whose answers the test sets.
#[derive(Default)]
struct Script {
    used: Option<Used>,
    sent: usize,
    now: Option<u64>,
    ended: Vec<Ended>,
    given_up: bool,
}

impl Port<List> for Script {
    fn add(&mut self, _: &List) -> Result<bool, NotSent> {
        self.sent += 1;
        Ok(true)
    }
    fn take(&mut self) -> Result<Option<Used>, Dead> {
        Ok(self.used.take())
    }
    fn rearm(&mut self) -> bool {
        false
    }
    fn give_up_request(&mut self) {
        self.given_up = true;
    }
    fn now(&mut self) -> u64 {
        self.now.expect("no clock is read")
    }
    fn check_after(&self) -> Option<u64> {
        self.now.map(|_| CHECK)
    }
    fn unanswered(&mut self, _: u64) -> Option<u64> {
        Some(PATIENCE)
    }
    fn is_timer_precise(&self) -> bool {
        true
    }
    fn gathered(&mut self, _: usize, _: usize) {}
    fn end(&mut self, _: List, how: Ended) {
        self.ended.push(how);
    }
    fn broke(&mut self, _: &'static str) {}
}

/// Returns how the callers of a flush with this answer end, and whether its request is given up.
fn judge(responses: Responses, len: u32, value: u32) -> (Vec<Ended>, bool) {
    let mut engine = Real::new();
    let mut script = Script::default();
    engine.start(responses, &mut script);
    engine.arrive(7).unwrap();
    engine.pump(&mut script);
    script.used = Some(Used { len, value });
    engine.drain(&mut script);
    (script.ended, script.given_up)
}

/// R11.
#[test]
fn a_lone_caller_reads_no_clock() {
    let mut engine = Engine::<List>::new();
    let mut script = Script::default();
    engine.start(Responses::Direct, &mut script);
    engine.set_gathering(true);
    for ended in 1..10 {
        engine.arrive(7).unwrap();
        engine.pump(&mut script);
        script.used = Some(Used {
            len: RESPONSE_LEN,
            value: 0,
        });
        engine.drain(&mut script);
        assert_eq!(script.ended.len(), ended);
        assert_eq!(engine.take_timer(), None);
    }
}

#[test]
fn answers_are_judged_by_what_was_written() {
    use flush_model::engine::{
        Ended::*,
        Failure::*, //
    };
    use Responses::*;

    for len in [0, 1, 3, RESPONSE_LEN, 5, u32::MAX] {
        assert_eq!(judge(Direct, len, 0), (vec![Done], false));
        for status in [1, 2, u32::MAX, 0x8000_0000] {
            assert_eq!(
                judge(Direct, len, status),
                (vec![Failed(Status(status))], false)
            );
        }
        if len != RESPONSE_LEN {
            assert_eq!(
                judge(Direct, len, UNANSWERED),
                (vec![Failed(Length(len))], false)
            );
        }
    }
    // This answers another flush (R3).
    assert_eq!(judge(Direct, RESPONSE_LEN, UNANSWERED), (vec![], true));
}

/// R7: a mapping may discard the stored value, so the value alone proves nothing.
#[test]
fn answers_behind_a_mapping_are_judged_by_their_length() {
    use flush_model::engine::{
        Ended::*,
        Failure::*, //
    };
    use Responses::*;

    for len in [0, 1, 3] {
        assert_eq!(judge(Mapped, len, 0), (vec![Failed(Length(len))], false));
    }
    for len in [RESPONSE_LEN, 5, u32::MAX] {
        assert_eq!(judge(Mapped, len, 0), (vec![Done], false));
        assert_eq!(judge(Mapped, len, 1), (vec![Failed(Status(1))], false));
    }
    assert_eq!(
        judge(Mapped, RESPONSE_LEN, UNANSWERED),
        (vec![Broken], true)
    );
}
