// SPDX-License-Identifier: GPL-2.0

//! Engines with a fault. Each must be found, and by the rule that it violates.
//!
//! `cargo test --test mutants -- --nocapture` prints the fewest events that show each fault.

use flush_model::{
    engine::{
        Dead,
        Ended,
        NotSent,
        Port,
        Refused,
        Responses,
        Timer,
        Used,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    explore,
    Event::{
        self,
        *, //
    },
    How,
    Kind,
    List,
    ModelPort,
    Real,
    Setup, //
    UnderTest,
    LIMIT,
};

/// Explores a world with this engine and a host without faults. The engine must violate `rule`,
/// also without the events that are `left_out`, by which another fault would be found first.
fn must_violate<F: UnderTest>(rule: &str, left_out: impl Fn(Event) -> bool) {
    must_violate_in::<F>(SPLIT, rule, left_out)
}

const SPLIT: Setup = Setup {
    packed: false,
    event_idx: true,
    mapped: false,
    gathers: false,
    patient: false,
};

const PATIENT: Setup = Setup {
    patient: true,
    ..SPLIT
};

const GATHERING: Setup = Setup {
    gathers: true,
    ..SPLIT
};

const PACKED: Setup = Setup {
    packed: true,
    ..SPLIT
};

const MAPPED: Setup = Setup {
    mapped: true,
    ..SPLIT
};

/// The same on a certain kind of ring.
fn must_violate_in<F: UnderTest>(setup: Setup, rule: &str, left_out: impl Fn(Event) -> bool) {
    let name = std::any::type_name::<F>();
    let allowed = |event| !left_out(event) && !matches!(event, Answer(_, How::Empty | How::Lie));
    match explore::<F>(setup, 2, allowed) {
        Ok(explored) => panic!("{name} was not found in {explored}"),
        Err((trace, violation)) => {
            println!("{name}: {violation}, after {trace:?}");
            assert_eq!(violation.rule, rule);
        }
    }
}

/// Declares an engine around the real one: its fields, and the functions that are faulty.
macro_rules! mutant {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* } $($function:item)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
        struct $name {
            real: Real,
            $($field: $type,)*
        }

        impl UnderTest for $name {
            fn real(&self) -> &Real {
                &self.real
            }
            fn real_mut(&mut self) -> &mut Real {
                &mut self.real
            }
            $($function)*
        }
    };
}

/// The port, with a fault between it and the engine.
struct Faulty<'a> {
    port: &'a mut ModelPort,
    /// Changes what was taken.
    taken: fn(&mut Used),
    /// Changes the batches that end.
    ended: &'a mut dyn FnMut(&mut List, &mut Ended),
    rearms: fn(&mut ModelPort) -> bool,
    gives_up: bool,
    ends: bool,
    patience: fn(&mut ModelPort, u64) -> Option<u64>,
}

impl<'a> Faulty<'a> {
    fn new(port: &'a mut ModelPort, ended: &'a mut dyn FnMut(&mut List, &mut Ended)) -> Self {
        Self {
            port,
            taken: |_| (),
            ended,
            rearms: |port| port.rearm(),
            gives_up: true,
            ends: true,
            patience: |port, waited| port.unanswered(waited),
        }
    }
}

fn unchanged(_: &mut List, _: &mut Ended) {}

impl Port<List> for Faulty<'_> {
    fn add(&mut self, batch: &List) -> Result<bool, NotSent> {
        self.port.add(batch)
    }
    fn take(&mut self) -> Result<Option<Used>, Dead> {
        let taken = self.port.take();
        taken.map(|used| {
            used.map(|mut used| {
                (self.taken)(&mut used);
                used
            })
        })
    }
    fn rearm(&mut self) -> bool {
        (self.rearms)(self.port)
    }
    fn give_up_request(&mut self) {
        if self.gives_up {
            self.port.give_up_request()
        }
    }
    fn now(&mut self) -> u64 {
        self.port.now()
    }
    fn is_timer_precise(&self) -> bool {
        self.port.is_timer_precise()
    }
    fn check_after(&self) -> Option<u64> {
        self.port.check_after()
    }
    fn unanswered(&mut self, waited: u64) -> Option<u64> {
        (self.patience)(self.port, waited)
    }
    fn gathered(&mut self, callers: usize, expected: usize) {
        self.port.gathered(callers, expected)
    }
    fn end(&mut self, mut batch: List, mut how: Ended) {
        (self.ended)(&mut batch, &mut how);
        if self.ends {
            self.port.end(batch, how)
        }
    }
    fn broke(&mut self, why: &'static str) {
        self.port.broke(why)
    }
}

mutant! {
    /// Lets callers join the flush in flight (R1).
    JoinsInFlight { late: List }

    fn arrive(&mut self, caller: u8) -> Result<(), Refused> {
        if self.real.expects_answer() {
            self.late.0.push(caller);
            return Ok(());
        }
        self.real.arrive(caller).map_err(|(why, _)| why)
    }
    fn drain(&mut self, port: &mut ModelPort) {
        let Self { real, late } = self;
        real.drain(&mut Faulty::new(port, &mut |batch, _| batch.0.append(&mut late.0)))
    }
}

#[test]
fn a_flush_in_flight_does_not_count() {
    must_violate::<JoinsInFlight>("durability", |_| false);
}

mutant! {
    /// Takes each used element for the answer to the flush in flight (R3).
    BelievesTheElement {}

    const STRICT: bool = false;

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(&mut Faulty {
            taken: |used| {
                if used.value == UNANSWERED {
                    used.value = 0;
                }
            },
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn a_late_answer_does_not_count() {
    must_violate::<BelievesTheElement>("durability", |_| false);
}

mutant! {
    /// Posts a request again while an answer to it is to come (R4).
    ReusesTheRequest {}

    const STRICT: bool = false;

    fn reset(&mut self, unread: Option<Used>, port: &mut ModelPort) {
        self.real.reset(unread, &mut Faulty {
            gives_up: false,
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn a_request_that_may_be_answered_late_is_not_reused() {
    must_violate::<ReusesTheRequest>("durability", |event| {
        matches!(event, Close | Removed | RemovedByForce)
    });
    must_violate::<ReusesTheRequest>("memory", |_| false);
}

mutant! {
    /// Sends the flush again into the same ring after a late answer (R5).
    SendsAgain {}

    const STRICT: bool = false;

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(&mut Faulty {
            gives_up: false,
            rearms: |_| false,
            ..Faulty::new(port, &mut unchanged)
        });
        if !self.real.is_quiet() && !self.real.expects_answer() {
            self.real.reset(None, port);
            self.real.start(Responses::Direct, port);
        }
    }
}

#[test]
fn a_ring_out_of_step_is_not_used() {
    must_violate::<SendsAgain>("durability", |event| {
        matches!(event, NeedsReset | Close | Removed | RemovedByForce)
    });
}

mutant! {
    /// Does not wait for the surplus answer (R5).
    DoesNotWait {}

    fn drain(&mut self, port: &mut ModelPort) {
        let expected = self.real.expects_answer();
        self.real.drain(port);
        if expected && !self.real.is_quiet() && !self.real.expects_answer() {
            // Claims that the element it waits for is there.
            self.real.drain(&mut Faulty {
                rearms: |_| true,
                ..Faulty::new(port, &mut unchanged)
            });
        }
    }
}

#[test]
fn a_ring_out_of_step_is_not_reset_too_early() {
    must_violate::<DoesNotWait>("count", |_| false);
}

mutant! {
    /// Does not check for a surplus answer when it takes the last answer (R6).
    DoesNotCheck {}

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(&mut Faulty {
            rearms: |_| false,
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn a_surplus_answer_without_an_interrupt_is_found() {
    must_violate::<DoesNotCheck>("progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish)
    });
}

mutant! {
    /// Does not check for a surplus answer before it sends (R6).
    OverwritesAnswers {}

    fn pump(&mut self, port: &mut ModelPort) {
        self.real.pump(&mut Faulty {
            rearms: |_| false,
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn a_surplus_answer_is_found_before_it_is_overwritten() {
    must_violate_in::<OverwritesAnswers>(PACKED, "progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish)
    });
}

mutant! {
    /// Keeps a packed ring after it has lost a flush (R9).
    KeepsThePackedRing {}

    fn has_lost(&self) -> bool {
        false
    }
}

#[test]
fn a_packed_ring_is_not_kept() {
    must_violate_in::<KeepsThePackedRing>(PACKED, "progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish)
    });
}

mutant! {
    /// Does not check for an answer that came before the driver had its queue (R6).
    StartsBlindly {}

    fn start(&mut self, port: &mut ModelPort) {
        self.real.start(port.host.setup.responses(), &mut Faulty {
            rearms: |_| false,
            ..Faulty::new(port, &mut unchanged)
        })
    }
    fn pump(&mut self, port: &mut ModelPort) {
        self.real.pump(&mut Faulty {
            rearms: |_| false,
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn an_answer_before_the_start_is_found() {
    must_violate::<StartsBlindly>("progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish | Recover(_))
    });
}

mutant! {
    /// Does not notify the host of a request whose descriptor a late answer has used up (R5).
    ForgetsToNotify {}

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(port);
        if !self.real.is_quiet() && !self.real.expects_answer() {
            self.real.take_notify();
        }
    }
}

#[test]
fn the_host_is_notified_in_spite_of_a_late_answer() {
    must_violate::<ForgetsToNotify>("progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish | Close)
    });
}

mutant! {
    /// Goes on after it has lost a flush behind a mapping (R7).
    IgnoresMappings {}

    fn start(&mut self, port: &mut ModelPort) {
        self.real.start(Responses::Direct, port)
    }
}

#[test]
fn a_mapped_request_is_not_lost() {
    must_violate_in::<IgnoresMappings>(MAPPED, "memory", |_| false);
}

mutant! {
    /// Forgets the batch in flight when the queue is lost.
    LosesOnReset {}

    fn reset(&mut self, _: Option<Used>, port: &mut ModelPort) {
        let unread = Used { len: RESPONSE_LEN, value: 0 };
        self.real.reset(Some(unread), &mut Faulty {
            ends: false,
            ..Faulty::new(port, &mut unchanged)
        });
    }
}

#[test]
fn no_caller_is_lost_on_reset() {
    must_violate::<LosesOnReset>("progress", |event| {
        matches!(event, GiveUp | Close | Removed | RemovedByForce | Vanish)
    });
}

mutant! {
    /// Ignores an answer that was not read before the reset.
    IgnoresTheUnread {}

    fn reset(&mut self, _: Option<Used>, port: &mut ModelPort) {
        self.real.reset(None, port);
    }
}

#[test]
fn an_error_is_reported() {
    must_violate::<IgnoresTheUnread>("errors", |event| {
        !matches!(
            event,
            Arrive(_) | Answer(..) | Interrupt | ForcedReset(true) | Restore
        )
    });
}

mutant! {
    /// Ends a batch from its last caller to its first.
    Reverses {}

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(&mut Faulty::new(port, &mut |batch, _| batch.0.reverse()))
    }
}

#[test]
fn bios_end_in_order() {
    must_violate::<Reverses>("order", |_| false);
}

mutant! {
    /// Ends the first caller of a batch twice.
    EndsTwice {}

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(&mut Faulty::new(port, &mut |batch, _| {
            let first = batch.0.first().copied();
            batch.0.extend(first);
        }))
    }
}

#[test]
fn each_caller_ends_once() {
    must_violate::<EndsTwice>("once", |_| false);
}

mutant! {
    /// Keeps the batch in flight when it breaks, and acknowledges it later.
    AcknowledgesAfterBreak { broken: bool }

    fn fail(&mut self, port: &mut ModelPort) {
        if self.real.expects_answer() {
            self.broken = true;
            port.broke(flush_model::GIVEN_UP);
            return;
        }
        self.real.fail(flush_model::GIVEN_UP, port)
    }
    fn pump(&mut self, port: &mut ModelPort) {
        if !self.broken {
            self.real.pump(port);
        }
    }
}

#[test]
fn each_caller_ends_on_break() {
    must_violate::<AcknowledgesAfterBreak>("broken", |_| false);
}

mutant! {
    /// Sends a second flush while one is in flight (R2).
    SendsTwo {}

    fn pump(&mut self, port: &mut ModelPort) {
        if self.real.expects_answer() {
            let _ = port.add(&List(vec![0]));
            return;
        }
        self.real.pump(port)
    }
}

#[test]
fn one_flush_is_in_flight() {
    must_violate::<SendsTwo>("coalescing", |_| false);
}

mutant! {
    /// Takes a failed flush for a successful one.
    IgnoresErrors {}

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(&mut Faulty {
            taken: |used| {
                if used.value != UNANSWERED {
                    used.value = 0;
                }
            },
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn errors_are_reported() {
    must_violate::<IgnoresErrors>("durability", |_| false);
}

mutant! {
    /// Fails the callers instead of recovering the device.
    FailsOnReset {}

    fn recover(&mut self, port: &mut ModelPort) -> bool {
        self.real.fail("a reset did not help", port);
        false
    }
}

#[test]
fn no_caller_fails_on_recovery() {
    must_violate::<FailsOnReset>("errors", |_| false);
}

mutant! {
    /// Recovers the device each time it needs that (R8).
    RecoversForEver {}

    fn recover(&mut self, _: &mut ModelPort) -> bool {
        self.real.quiesce();
        true
    }
}

#[test]
fn recoveries_end() {
    must_violate::<RecoversForEver>("progress", |_| false);
}

mutant! {
    /// Does not try again what failed for want of memory.
    DoesNotRetry {}

    fn take_timer(&mut self) -> Option<Timer> {
        None
    }
}

#[test]
fn want_of_memory_is_not_forgotten() {
    must_violate::<DoesNotRetry>("progress", |_| false);
}

mutant! {
    /// Does not end a gathering when the time has come (R10).
    GathersForEver {}

    fn wake(&mut self, _: &mut ModelPort) {}
}

#[test]
fn a_gathering_ends() {
    must_violate_in::<GathersForEver>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Asks for its timer a step too late (R11).
    EndsLate {}

    fn take_timer(&mut self) -> Option<Timer> {
        match self.real.take_timer() {
            Some(Timer::Start(time)) => Some(Timer::Start(time + 1)),
            other => other,
        }
    }
}

#[test]
fn a_gathering_ends_in_time() {
    must_violate_in::<EndsLate>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Does not start its timer again when that expires early (R11).
    LosesItsTimer {}

    fn wake(&mut self, port: &mut ModelPort) {
        self.real.wake(port);
        self.real.take_timer();
    }
}

#[test]
fn a_timer_may_expire_early() {
    must_violate_in::<LosesItsTimer>(GATHERING, "gathering", |event| event == NoMemory);
}

mutant! {
    /// Has no deadline any more when its queue was lost once (R11).
    ForgetsTheDeadline { reset: bool }

    fn reset(&mut self, unread: Option<Used>, port: &mut ModelPort) {
        self.reset = true;
        self.real.reset(unread, port);
    }
    fn take_timer(&mut self) -> Option<Timer> {
        self.real.take_timer().filter(|_| !self.reset)
    }
}

#[test]
fn a_gathering_has_a_deadline_after_a_reset() {
    must_violate_in::<ForgetsTheDeadline>(GATHERING, "gathering", |event| event == NoMemory);
}

mutant! {
    /// Goes on with a gathering although the queue was lost (R12).
    GathersAcrossAReset { reset: bool }

    fn reset(&mut self, unread: Option<Used>, port: &mut ModelPort) {
        self.reset = true;
        self.real.reset(unread, port);
    }
    fn start(&mut self, port: &mut ModelPort) {
        if self.reset {
            self.real.resume();
        } else {
            self.real.start(port.host.setup.responses(), port);
        }
    }
    fn wake(&mut self, port: &mut ModelPort) {
        self.real.pump(port);
    }
}

#[test]
fn a_reset_ends_a_gathering() {
    must_violate_in::<GathersAcrossAReset>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Goes on with a gathering after a pause without a reset (R12).
    GathersAcrossAPause { paused: bool }

    fn quiesce(&mut self) {
        self.paused = true;
        self.real.quiesce();
    }
    fn pump(&mut self, port: &mut ModelPort) {
        if !self.paused || !self.real.is_quiet() {
            self.real.pump(port);
        }
    }
}

#[test]
fn a_pause_ends_a_gathering() {
    must_violate_in::<GathersAcrossAPause>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Goes on with a gathering when the device is removed (R12).
    GathersWhenClosed { closed: bool }

    fn close(&mut self) {
        self.closed = true;
        self.real.close();
    }
    fn pump(&mut self, port: &mut ModelPort) {
        if !self.closed || !self.real.is_quiet() {
            self.real.pump(port);
        }
    }
}

#[test]
fn a_removal_ends_a_gathering() {
    must_violate_in::<GathersWhenClosed>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Waits for as many callers as there ever were, also for those that left (R10).
    WaitsForALeaver { most: usize }

    fn drain(&mut self, port: &mut ModelPort) {
        self.real.drain(port);
        self.most = self.most.max(port.crowd);
    }
    fn pump(&mut self, port: &mut ModelPort) {
        let waiting = port.callers.waiting();
        if !self.real.is_quiet() || waiting < port.crowd || waiting >= self.most {
            self.real.pump(port);
        }
    }
}

#[test]
fn a_caller_that_left_is_not_waited_for() {
    must_violate_in::<WaitsForALeaver>(GATHERING, "gathering", |event| {
        matches!(
            event,
            Switch(_) | Freeze | Close | ForcedReset(_) | Recover(_)
        )
    });
}

mutant! {
    /// Gathers also for a caller that is alone (R10).
    GathersAlone { asks: bool }

    fn pump(&mut self, port: &mut ModelPort) {
        self.asks = self.real.is_quiet() && port.callers.waiting() == 1;
        if !self.asks {
            self.real.pump(port);
        }
    }
    fn take_timer(&mut self) -> Option<Timer> {
        let timer = self.real.take_timer();
        match std::mem::take(&mut self.asks) {
            true => Some(Timer::Start(LIMIT.into())),
            false => timer,
        }
    }
    fn wake(&mut self, port: &mut ModelPort) {
        self.real.pump(port);
    }
}

#[test]
fn a_lone_caller_is_not_held_back() {
    must_violate_in::<GathersAlone>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Cannot be switched off (R12).
    IgnoresTheSwitch {}

    fn set_gathering(&mut self, gathers: bool) {
        if gathers {
            self.real.set_gathering(true);
        }
    }
}

#[test]
fn gathering_is_switched_off() {
    must_violate_in::<IgnoresTheSwitch>(GATHERING, "gathering", |_| false);
}

mutant! {
    /// Does not send a flush again that the host has lost (R14).
    WaitsForEver {}

    fn wake(&mut self, port: &mut ModelPort) {
        self.real.wake(&mut Faulty {
            patience: |_, _| None,
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn a_lost_flush_is_sent_again() {
    must_violate_in::<WaitsForEver>(PATIENT, "progress", |_| false);
}

mutant! {
    /// Sends a flush again at the first check (R14).
    IsImpatient {}

    fn wake(&mut self, port: &mut ModelPort) {
        self.real.wake(&mut Faulty {
            patience: |port, waited| port.unanswered(waited).map(|_| 0),
            ..Faulty::new(port, &mut unchanged)
        })
    }
}

#[test]
fn a_flush_has_its_time() {
    must_violate_in::<IsImpatient>(PATIENT, "patience", |_| false);
}

mutant! {
    /// Begins its checks with the first flush, and never again (R14).
    ChecksOnce { checked: bool }

    fn wake(&mut self, port: &mut ModelPort) {
        if !self.checked {
            self.real.wake(port);
        }
        self.checked |= self.real.is_quiet();
    }
}

#[test]
fn each_flush_is_checked() {
    must_violate_in::<ChecksOnce>(PATIENT, "progress", |_| false);
}

mutant! {
    /// Takes the late answers of a slow host for a broken ring (R15).
    CountsLateAnswers { resyncs: u8, ended: u64 }

    fn recover(&mut self, port: &mut ModelPort) -> bool {
        let ended = port.tally.0 + port.tally.1;
        if std::mem::replace(&mut self.ended, ended) != ended {
            self.resyncs = 0;
        }
        self.resyncs += u8::from(self.real.is_out_of_step());
        if self.resyncs > 1 {
            self.real.fail("a reset did not help", port);
            return false;
        }
        self.real.recover(port)
    }
}

#[test]
fn late_answers_are_no_fault() {
    must_violate_in::<CountsLateAnswers>(PATIENT, "errors", |event| {
        !matches!(
            event,
            Arrive(Kind::Sync) | Answer(0, How::Done) | Interrupt | Restore | Wake | Recover(true)
        )
    });
}
