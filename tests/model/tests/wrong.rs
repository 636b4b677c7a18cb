// SPDX-License-Identifier: GPL-2.0

//! Engines with a fault. Each must be found, and by the rule it violates: otherwise the rules would
//! not be worth much.
//!
//! `cargo test --test wrong -- --nocapture` prints the shortest story that shows each fault.

use flush_model::{
    engine::{
        self,
        Answered,
        NotSent,
        Pumped,
        Recovery,
        Refused, //
    },
    explore,
    Event::{
        self,
        *, //
    },
    Flush,
    How,
    List,
    Real,
    BUFFERS, //
};

/// Explores a world with this engine and an honest host. It must violate `rule`, also when a less
/// interesting way to find it is left out.
fn must_violate<F: Flush>(rule: &str, left_out: impl Fn(Event) -> bool) {
    let name = std::any::type_name::<F>();
    let allowed = |event| !left_out(event) && !matches!(event, Answer(_, How::Empty | How::Lie));
    match explore::<F>(2, allowed) {
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
    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        match self.real.answered(answer) {
            Answered::Ended(mut batch, result) => {
                batch.0.append(&mut self.late.0);
                Answered::Ended(batch, result)
            }
            other => other,
        }
    }
}

#[test]
fn a_flush_in_flight_does_not_count() {
    must_violate::<JoinsInFlight>("durability", |_| false);
}

wrong! {
    /// Believes the used element, whatever the response buffer says.
    BelievesTheRing {}

    const STRICT: bool = false;

    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        self.real.answered(match answer {
            engine::Answer::Untouched(_) => engine::Answer::Done,
            other => other,
        })
    }
}

#[test]
fn a_late_answer_does_not_count() {
    must_violate::<BelievesTheRing>("durability", |_| false);
}

wrong! {
    /// Posts a response buffer again while an answer to it is missing.
    ReusesBuffers {}

    const STRICT: bool = false;

    fn reset(&mut self, _: &dyn Fn(usize) -> bool) {
        self.real.reset(|_| true);
    }
}

#[test]
fn a_buffer_that_may_be_written_late_is_not_reused() {
    must_violate::<ReusesBuffers>("durability", |event| event == RemovedByForce);
}

wrong! {
    /// Sees that an answer is a late one, and sends the flush again into the same ring.
    SendsAgain { buffer: usize }

    const STRICT: bool = false;

    fn pump(&mut self, add: &mut dyn FnMut(usize) -> Result<(), NotSent>) -> Pumped<List> {
        let Self { real, buffer } = self;
        real.pump(|chosen| {
            *buffer = chosen;
            add(chosen)
        })
    }
    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        let answered = self.real.answered(answer);
        if let Answered::Stale = answered {
            self.real.reset(|buffer| buffer == self.buffer);
            self.real.start();
        }
        answered
    }
}

#[test]
fn a_ring_out_of_step_is_not_used() {
    must_violate::<SendsAgain>("durability", |event| event == NeedsReset);
}

wrong! {
    /// Sees that a ring is out of step, and does not wait until the host has nothing in flight.
    DoesNotWait {}

    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        match self.real.answered(answer) {
            Answered::Stale => self.real.stray(),
            other => other,
        }
    }
}

#[test]
fn a_ring_out_of_step_is_not_reset_too_early() {
    must_violate::<DoesNotWait>("count", |_| false);
}

wrong! {
    /// Forgets the batch in flight when the queue is lost.
    LosesOnReset {}

    fn reset(&mut self, is_written: &dyn Fn(usize) -> bool) {
        if self.real.expects_answer() {
            let _ = self.real.answered(engine::Answer::Done);
        }
        self.real.reset(is_written);
    }
}

#[test]
fn nobody_is_lost_on_reset() {
    must_violate::<LosesOnReset>("progress", |event| event == GiveUp);
}

wrong! {
    /// Ends a batch from its last caller to its first.
    Reverses {}

    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        match self.real.answered(answer) {
            Answered::Ended(mut batch, result) => {
                batch.0.reverse();
                Answered::Ended(batch, result)
            }
            other => other,
        }
    }
}

#[test]
fn bios_end_in_order() {
    must_violate::<Reverses>("order", |_| false);
}

wrong! {
    /// Ends the first caller of a batch twice.
    EndsTwice {}

    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        match self.real.answered(answer) {
            Answered::Ended(mut batch, result) => {
                let first = batch.0.first().copied();
                batch.0.extend(first);
                Answered::Ended(batch, result)
            }
            other => other,
        }
    }
}

#[test]
fn everyone_ends_once() {
    must_violate::<EndsTwice>("once", |_| false);
}

wrong! {
    /// Keeps the batch in flight when it breaks, and acknowledges it later.
    AcknowledgesAfterBreak { broken: bool }

    fn break_down(&mut self) -> List {
        if self.real.expects_answer() {
            self.broken = true;
            return List::default();
        }
        self.real.break_down()
    }
    fn pump(&mut self, add: &mut dyn FnMut(usize) -> Result<(), NotSent>) -> Pumped<List> {
        if self.broken {
            return Pumped::Nothing;
        }
        self.real.pump(add)
    }
}

#[test]
fn everyone_ends_on_break() {
    must_violate::<AcknowledgesAfterBreak>("broken", |_| false);
}

wrong! {
    /// Sends a second flush while one is in flight.
    SendsTwo {}

    fn pump(&mut self, add: &mut dyn FnMut(usize) -> Result<(), NotSent>) -> Pumped<List> {
        if self.real.expects_answer() {
            let _ = add(BUFFERS - 1);
            return Pumped::Nothing;
        }
        self.real.pump(add)
    }
}

#[test]
fn one_flush_is_in_flight() {
    must_violate::<SendsTwo>("coalescing", |_| false);
}

wrong! {
    /// Takes a failed flush for a good one.
    IgnoresErrors {}

    fn answered(&mut self, answer: engine::Answer) -> Answered<List> {
        self.real.answered(match answer {
            engine::Answer::Failed(_) => engine::Answer::Done,
            other => other,
        })
    }
}

#[test]
fn errors_are_reported() {
    must_violate::<IgnoresErrors>("durability", |_| false);
}

wrong! {
    /// Fails the callers that a reset takes the queue from.
    FailsOnReset {}

    fn recover(&mut self) -> Recovery<List> {
        Recovery::GiveUp(self.real.break_down())
    }
}

#[test]
fn nobody_fails_on_recovery() {
    must_violate::<FailsOnReset>("errors", |_| false);
}

wrong! {
    /// Forgets to send those who have waited for the queue.
    ForgetsTheWaiting { sent_before: bool }

    fn pump(&mut self, add: &mut dyn FnMut(usize) -> Result<(), NotSent>) -> Pumped<List> {
        let pumped = self.real.pump(add);
        if let Pumped::Again = pumped {
            return Pumped::Nothing;
        }
        pumped
    }
}

#[test]
fn want_of_memory_is_not_forgotten() {
    must_violate::<ForgetsTheWaiting>("progress", |_| false);
}
