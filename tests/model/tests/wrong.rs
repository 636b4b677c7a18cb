// SPDX-License-Identifier: GPL-2.0

//! Engines with a fault. Each must be found, and by the rule it violates: otherwise the rules would
//! not be worth much.
//!
//! `cargo test --test wrong -- --nocapture` prints the shortest story that shows each fault.

use flush_model::{
    engine::{
        Dead,
        Ended,
        NotSent,
        Port,
        Refused,
        Responses,
        Used,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    explore,
    Desk,
    Event::{
        self,
        *, //
    },
    Flush,
    How,
    List,
    Real,
    Setup, //
};

/// Explores a world with this engine and an honest host. It must violate `rule`, also when a less
/// interesting way to find it is left out.
fn must_violate<F: Flush>(rule: &str, left_out: impl Fn(Event) -> bool) {
    must_violate_in::<F>(SPLIT, rule, left_out)
}

const SPLIT: Setup = Setup {
    packed: false,
    event_idx: true,
    mapped: false,
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
fn must_violate_in<F: Flush>(setup: Setup, rule: &str, left_out: impl Fn(Event) -> bool) {
    let name = std::any::type_name::<F>();
    let allowed = |event| !left_out(event) && !matches!(event, Answer(_, How::Empty | How::Lie));
    match explore::<F>(setup, 2, allowed) {
        Ok(explored) => panic!("{name} was not found in {explored}"),
        Err((story, violation)) => {
            println!("{name}: {violation}, after {story:?}");
            assert_eq!(violation.rule, rule);
        }
    }
}

/// Declares an engine around the real one: its fields, and the functions that are faulty.
macro_rules! wrong {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* } $($function:item)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
        struct $name {
            real: Real,
            $($field: $type,)*
        }

        impl Flush for $name {
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
    desk: &'a mut Desk,
    /// Changes what was taken.
    taken: fn(&mut Used),
    /// Changes the batches that end.
    ended: &'a mut dyn FnMut(&mut List, &mut Ended),
    rearms: fn(&mut Desk) -> bool,
    gives_up: bool,
    retries: bool,
    tells: bool,
}

impl<'a> Faulty<'a> {
    fn new(desk: &'a mut Desk, ended: &'a mut dyn FnMut(&mut List, &mut Ended)) -> Self {
        Self {
            desk,
            taken: |_| (),
            ended,
            rearms: |desk| desk.rearm(),
            gives_up: true,
            retries: true,
            tells: true,
        }
    }
}

fn unchanged(_: &mut List, _: &mut Ended) {}

impl Port<List> for Faulty<'_> {
    fn add(&mut self, batch: &List) -> Result<bool, NotSent> {
        let added = self.desk.add(batch);
        if !self.retries {
            self.desk.must_retry = false;
        }
        added
    }
    fn take(&mut self) -> Result<Option<Used>, Dead> {
        let taken = self.desk.take();
        taken.map(|used| {
            used.map(|mut used| {
                (self.taken)(&mut used);
                used
            })
        })
    }
    fn rearm(&mut self) -> bool {
        (self.rearms)(self.desk)
    }
    fn give_up_request(&mut self) {
        if self.gives_up {
            self.desk.give_up_request()
        }
    }
    fn end(&mut self, mut batch: List, mut how: Ended) {
        (self.ended)(&mut batch, &mut how);
        if self.tells {
            self.desk.end(batch, how)
        }
    }
    fn broke(&mut self, why: &'static str) {
        self.desk.broke(why)
    }
}

wrong! {
    /// Lets callers join the flush that is in flight already.
    JoinsInFlight { late: List }

    fn arrive(&mut self, caller: u8) -> Result<(), Refused> {
        if self.real.expects_answer() {
            self.late.0.push(caller);
            return Ok(());
        }
        self.real.arrive(caller).map_err(|(why, _)| why)
    }
    fn drain(&mut self, desk: &mut Desk) {
        let Self { real, late } = self;
        real.drain(&mut Faulty::new(desk, &mut |batch, _| batch.0.append(&mut late.0)))
    }
}

#[test]
fn a_flush_in_flight_does_not_count() {
    must_violate::<JoinsInFlight>("durability", |_| false);
}

wrong! {
    /// Believes the used element, whatever the response says.
    BelievesTheRing {}

    const STRICT: bool = false;

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(&mut Faulty {
            taken: |used| {
                if used.value == UNANSWERED {
                    used.value = 0;
                }
            },
            ..Faulty::new(desk, &mut unchanged)
        })
    }
}

#[test]
fn a_late_answer_does_not_count() {
    must_violate::<BelievesTheRing>("durability", |_| false);
}

wrong! {
    /// Posts a request again while an answer to it is to come.
    ReusesTheRequest {}

    const STRICT: bool = false;

    fn reset(&mut self, unread: Option<Used>, desk: &mut Desk) {
        self.real.reset(unread, &mut Faulty {
            gives_up: false,
            ..Faulty::new(desk, &mut unchanged)
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

wrong! {
    /// Sees that an answer is a late one, and sends the flush again into the same ring.
    SendsAgain {}

    const STRICT: bool = false;

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(&mut Faulty {
            gives_up: false,
            rearms: |_| false,
            ..Faulty::new(desk, &mut unchanged)
        });
        if !self.real.is_quiet() && !self.real.expects_answer() {
            self.real.reset(None, desk);
            self.real.start(Responses::Direct, desk);
        }
    }
}

#[test]
fn a_ring_out_of_step_is_not_used() {
    must_violate::<SendsAgain>("durability", |event| {
        matches!(event, NeedsReset | Close | Removed | RemovedByForce)
    });
}

wrong! {
    /// Sees that a ring is out of step, and does not wait until the host has nothing in flight.
    DoesNotWait {}

    fn drain(&mut self, desk: &mut Desk) {
        let expected = self.real.expects_answer();
        self.real.drain(desk);
        if expected && !self.real.is_quiet() && !self.real.expects_answer() {
            // The element that it waits for seems to be there.
            self.real.drain(&mut Faulty {
                rearms: |_| true,
                ..Faulty::new(desk, &mut unchanged)
            });
        }
    }
}

#[test]
fn a_ring_out_of_step_is_not_reset_too_early() {
    must_violate::<DoesNotWait>("count", |_| false);
}

wrong! {
    /// Does not look for a surplus answer when nothing is in flight any more.
    DoesNotLook {}

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(&mut Faulty {
            rearms: |_| false,
            ..Faulty::new(desk, &mut unchanged)
        })
    }
}

#[test]
fn a_surplus_answer_without_an_interrupt_is_found() {
    must_violate::<DoesNotLook>("progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish)
    });
}

wrong! {
    /// Does not look for a surplus answer before it sends.
    OverwritesAnswers {}

    fn pump(&mut self, desk: &mut Desk) {
        self.real.pump(&mut Faulty {
            rearms: |_| false,
            ..Faulty::new(desk, &mut unchanged)
        })
    }
}

#[test]
fn a_surplus_answer_is_found_before_it_is_overwritten() {
    must_violate_in::<OverwritesAnswers>(PACKED, "progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish)
    });
}

wrong! {
    /// Keeps a packed ring after it has lost a flush.
    KeepsThePackedRing {}

    fn has_lost(&self) -> bool {
        false
    }
}

#[test]
fn a_packed_ring_does_not_stand_late_answers() {
    must_violate_in::<KeepsThePackedRing>(PACKED, "progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish)
    });
}

wrong! {
    /// Does not look for an answer that came before the driver had its queue.
    StartsBlindly {}

    fn start(&mut self, desk: &mut Desk) {
        self.real.start(desk.host.setup.responses(), &mut Faulty {
            rearms: |_| false,
            ..Faulty::new(desk, &mut unchanged)
        })
    }
    fn pump(&mut self, desk: &mut Desk) {
        self.real.pump(&mut Faulty {
            rearms: |_| false,
            ..Faulty::new(desk, &mut unchanged)
        })
    }
}

#[test]
fn an_answer_before_the_start_is_found() {
    must_violate::<StartsBlindly>("progress", |event| {
        matches!(event, GiveUp | NeedsReset | Vanish | Recover(_))
    });
}

wrong! {
    /// Takes a late answer for a sign that the host has seen the request.
    ForgetsToNotify {}

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(desk);
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

wrong! {
    /// Goes on after it has lost a flush behind a mapping.
    IgnoresMappings {}

    fn start(&mut self, desk: &mut Desk) {
        self.real.start(Responses::Direct, desk)
    }
}

#[test]
fn a_mapped_request_is_not_lost() {
    must_violate_in::<IgnoresMappings>(MAPPED, "memory", |_| false);
}

wrong! {
    /// Forgets the batch in flight when the queue is lost.
    LosesOnReset {}

    fn reset(&mut self, _: Option<Used>, desk: &mut Desk) {
        let unread = Used { len: RESPONSE_LEN, value: 0 };
        self.real.reset(Some(unread), &mut Faulty {
            tells: false,
            ..Faulty::new(desk, &mut unchanged)
        });
    }
}

#[test]
fn no_caller_is_lost_on_reset() {
    must_violate::<LosesOnReset>("progress", |event| {
        matches!(event, GiveUp | Close | Removed | RemovedByForce | Vanish)
    });
}

wrong! {
    /// Does not tell what the host has answered before the reset.
    IgnoresTheUnread {}

    fn reset(&mut self, _: Option<Used>, desk: &mut Desk) {
        self.real.reset(None, desk);
    }
}

#[test]
fn an_error_is_told_once() {
    must_violate::<IgnoresTheUnread>("errors", |event| {
        !matches!(
            event,
            Arrive(_) | Answer(..) | Interrupt | ForcedReset(true) | Restore
        )
    });
}

wrong! {
    /// Ends a batch from its last caller to its first.
    Reverses {}

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(&mut Faulty::new(desk, &mut |batch, _| batch.0.reverse()))
    }
}

#[test]
fn bios_end_in_order() {
    must_violate::<Reverses>("order", |_| false);
}

wrong! {
    /// Ends the first caller of a batch twice.
    EndsTwice {}

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(&mut Faulty::new(desk, &mut |batch, _| {
            let first = batch.0.first().copied();
            batch.0.extend(first);
        }))
    }
}

#[test]
fn each_caller_ends_once() {
    must_violate::<EndsTwice>("once", |_| false);
}

wrong! {
    /// Keeps the batch in flight when it breaks, and acknowledges it later.
    AcknowledgesAfterBreak { broken: bool }

    fn fail(&mut self, desk: &mut Desk) {
        if self.real.expects_answer() {
            self.broken = true;
            desk.broke(flush_model::GIVEN_UP);
            return;
        }
        self.real.fail(flush_model::GIVEN_UP, desk)
    }
    fn pump(&mut self, desk: &mut Desk) {
        if !self.broken {
            self.real.pump(desk);
        }
    }
}

#[test]
fn each_caller_ends_on_break() {
    must_violate::<AcknowledgesAfterBreak>("broken", |_| false);
}

wrong! {
    /// Sends a second flush while one is in flight.
    SendsTwo {}

    fn pump(&mut self, desk: &mut Desk) {
        if self.real.expects_answer() {
            let _ = desk.add(&List(vec![0]));
            return;
        }
        self.real.pump(desk)
    }
}

#[test]
fn one_flush_is_in_flight() {
    must_violate::<SendsTwo>("coalescing", |_| false);
}

wrong! {
    /// Takes a failed flush for a good one.
    IgnoresErrors {}

    fn drain(&mut self, desk: &mut Desk) {
        self.real.drain(&mut Faulty {
            taken: |used| {
                if used.value != UNANSWERED {
                    used.value = 0;
                }
            },
            ..Faulty::new(desk, &mut unchanged)
        })
    }
}

#[test]
fn errors_are_reported() {
    must_violate::<IgnoresErrors>("durability", |_| false);
}

wrong! {
    /// Fails the callers from which a reset takes the queue.
    FailsOnReset {}

    fn recover(&mut self, desk: &mut Desk) -> bool {
        self.real.fail("a reset did not help", desk);
        false
    }
}

#[test]
fn no_caller_fails_on_recovery() {
    must_violate::<FailsOnReset>("errors", |_| false);
}

wrong! {
    /// Does not try again what failed for want of memory.
    ForgetsTheWaiting {}

    fn pump(&mut self, desk: &mut Desk) {
        self.real.pump(&mut Faulty {
            retries: false,
            ..Faulty::new(desk, &mut unchanged)
        })
    }
}

#[test]
fn want_of_memory_is_not_forgotten() {
    must_violate::<ForgetsTheWaiting>("progress", |_| false);
}
