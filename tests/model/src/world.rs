// SPDX-License-Identifier: GPL-2.0

//! The driver around the engine, and everything that can happen to it.

use crate::{
    broken,
    callers::{
        Callers,
        End,
        Kind,
        List, //
    },
    engine::{
        Answered,
        Batch,
        NotSent,
        Pumped,
        Recovery,
        Refused, //
    },
    flush::{
        Flush,
        BUFFERS, //
    },
    host::{
        Host,
        How, //
    },
    Violation, //
};
use std::hash::{
    Hash,
    Hasher, //
};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A caller asks for a flush.
    Arrive(Kind),
    /// The host answers the flush of this number, counted from the oldest it works on.
    Answer(usize, How),
    /// The driver's callback runs and looks at the queue.
    Interrupt,
    /// The ordered work item completes the bios it was given.
    Work,
    /// The vIOMMU has no memory for a mapping.
    NoMemory,
    /// It has again.
    Memory,
    /// The driver tries again what failed for want of memory.
    Retry,
    /// Suspend begins: the driver waits for the answer in flight.
    Freeze,
    /// It came: the device is reset.
    Frozen,
    /// It did not come in time: suspend is aborted.
    Thaw,
    /// A function reset, or a suspend, that could not wait for the answer. Does the host keep on
    /// working on it?
    ForcedReset(bool),
    /// Probe, restore, `reset_done` or the recovery makes a new queue.
    Restore,
    /// The device stops and asks for a reset.
    NeedsReset,
    /// The recovery's work item runs. Does the host keep on working on what it has?
    Recover(bool),
    /// The device is pulled out.
    Vanish,
    /// The driver finds the queue broken, or no progress for too long.
    GiveUp,
    /// Orderly removal has unregistered the bus.
    Close,
    /// It has waited for the engine to be idle.
    Removed,
    /// It could not wait any longer.
    RemovedByForce,
    /// The driver is bound again.
    Rebind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    /// Before probe is done, while suspended, between the two halves of a reset.
    #[default]
    NoQueue,
    Running,
    Freezing,
    Unbound,
}

/// How many callers have ended well and badly. No part of the state.
#[derive(Clone, Debug, Default)]
struct Tally(u64, u64);

impl Hash for Tally {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The world.
#[derive(Clone, Debug, Default, Hash)]
pub struct World<F> {
    engine: F,
    callers: Callers,
    host: Host,
    stage: Stage,
    no_memory: bool,
    must_retry: bool,
    must_recover: bool,
    /// Callers have been told so.
    is_broken: bool,
    closing: bool,
    /// Recoveries since the last flush that was answered.
    recoveries: u8,
    /// No response buffer was left at the last reset.
    no_buffers: bool,
    tally: Tally,
}

impl<F: Flush> World<F> {
    /// A driver that is bound, has a queue, and nobody calls yet.
    pub fn probed() -> Self {
        let mut world = Self::default();
        world.play(&[Event::Restore]).expect("nothing to go wrong");
        world
    }

    /// Applies `events` in turn, checks the rules after each, and prints the story if one is
    /// violated.
    pub fn play(&mut self, events: &[Event]) -> Result<(), Violation> {
        for (number, &event) in events.iter().enumerate() {
            assert!(
                self.events(usize::MAX).contains(&event),
                "{event:?}, number {number}, cannot happen in {self:#?}"
            );
            self.step(event)?;
        }
        Ok(())
    }

    /// How many callers have succeeded and failed so far.
    pub fn ended(&self) -> (u64, u64) {
        (self.tally.0, self.tally.1)
    }

    /// Whether the driver has given the device up.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What can happen now, if no more than `most` callers may be here at a time.
    pub fn events(&self, most: usize) -> Vec<Event> {
        use Event::*;

        let mut events = vec![];
        let mut can = |event, condition: bool| {
            if condition {
                events.push(event);
            }
        };
        let bound = self.stage != Stage::Unbound;
        let running = self.stage == Stage::Running;
        let freezing = self.stage == Stage::Freezing;
        let works = self.host.has_ring() && !self.host.is_gone() && !self.is_broken;
        let quiet = self.engine.real().is_quiet();

        for kind in [Kind::Sync, Kind::Bio] {
            can(Arrive(kind), bound && self.callers.len() < most);
        }
        for index in 0..self.host.flushes() {
            can(Answer(index, How::Done), true);
            can(Answer(index, How::Error), true);
            can(Answer(index, How::Empty), self.host.may_be_empty(index));
            can(Answer(index, How::Lie), self.host.may_be_empty(index));
        }
        can(Interrupt, self.host.interrupts());
        can(Work, self.callers.has_work());
        can(NoMemory, bound && !self.no_memory && !self.is_broken);
        can(Memory, self.no_memory);
        can(Retry, self.must_retry);
        can(Freeze, running);
        can(Frozen, freezing && quiet);
        can(Thaw, freezing);
        for keeps in [true, false] {
            can(ForcedReset(keeps), running || freezing);
            let asked = self.host.needs_reset || self.must_recover;
            can(Recover(keeps), running && asked && !self.is_broken);
        }
        can(Restore, self.stage == Stage::NoQueue);
        can(NeedsReset, works && !self.host.needs_reset);
        can(Vanish, works);
        can(GiveUp, bound && !self.is_broken);
        can(Close, bound && !self.closing);
        can(Removed, self.closing && self.engine.real().is_idle());
        can(RemovedByForce, self.closing);
        can(Rebind, !bound && self.host.flushes() < BUFFERS);
        events
    }

    /// Makes `event` happen.
    pub fn step(&mut self, event: Event) -> Result<(), Violation> {
        use Event::*;

        match event {
            Arrive(kind) => self.arrive(kind)?,
            Answer(index, how) => {
                let covers = self.host.answer(index, how);
                self.callers.flushed(covers, how == How::Done);
            }
            Interrupt => self.interrupt()?,
            Work => self.work(),
            NoMemory => self.no_memory = true,
            Memory => self.no_memory = false,
            Retry => self.pump()?,
            Freeze => {
                self.engine.real_mut().quiesce();
                self.stage = Stage::Freezing;
            }
            Frozen => self.reset(true)?,
            Thaw => {
                self.engine.start();
                self.stage = Stage::Running;
                self.pump()?;
            }
            ForcedReset(keeps) => self.reset(keeps)?,
            Restore => {
                self.host.set_up();
                self.engine.start();
                self.stage = Stage::Running;
                self.pump()?;
            }
            NeedsReset => self.host.needs_reset = true,
            Recover(keeps) => self.recover(keeps)?,
            Vanish => self.host.vanish(),
            GiveUp => self.give_up()?,
            Close => {
                self.closing = true;
                self.engine.real_mut().close();
            }
            Removed => {
                if self.callers.len() != 0 {
                    return broken("count", "removed while somebody is left");
                }
                self.remove()?;
            }
            RemovedByForce => {
                self.give_up()?;
                self.work();
                self.remove()?;
            }
            Rebind => {
                self.engine = F::default();
                self.stage = Stage::NoQueue;
            }
        }
        self.check()
    }

    /// Rules that always hold between two events.
    fn check(&self) -> Result<(), Violation> {
        let engine = self.engine.real();

        if self.is_broken && self.callers.anybody_waits() {
            return broken("broken", "somebody is left with a broken engine");
        }
        if engine.is_idle() && self.callers.len() != 0 {
            return broken("count", "idle, but somebody is left");
        }
        let at_rest = engine.is_quiet() || engine.is_idle();
        if F::STRICT && at_rest && self.host.owes() && !self.is_broken {
            return broken("count", "quiet, but a reset would lose an answer");
        }
        Ok(())
    }

    fn arrive(&mut self, kind: Kind) -> Result<(), Violation> {
        let caller = self.callers.arrive(kind);
        match self.engine.arrive(caller) {
            Ok(()) => self.pump(),
            Err(why) => {
                self.callers.leave();
                match why {
                    Refused::Broken if self.is_broken => Ok(()),
                    Refused::Closed if self.closing => Ok(()),
                    _ => broken("errors", format!("a caller is refused: {why:?}")),
                }
            }
        }
    }

    /// What the driver does after each event that may make a flush possible.
    fn pump(&mut self) -> Result<(), Violation> {
        let Self {
            engine,
            callers,
            host,
            ..
        } = self;
        let nobody = !callers.anybody_waits() && self.recoveries == 0;
        let mut sent = None;
        let pumped = engine.pump(&mut |buffer| {
            let added = if nobody {
                broken("coalescing", "a flush goes out for nobody")
            } else if self.no_memory && !host.is_gone() {
                Ok(Err(NotSent::Again))
            } else {
                let covers = callers.sent(F::STRICT);
                covers.and_then(|covers| host.add(buffer, covers))
            };
            let result = added.clone().unwrap_or(Err(NotSent::Dead));
            sent = Some(added);
            result
        });
        let sent = sent.transpose()?;
        self.must_retry = matches!(pumped, Pumped::Again);
        match pumped {
            Pumped::Broken(batch) => {
                if sent != Some(Err(NotSent::Dead)) && !self.no_buffers {
                    return broken("errors", "the engine breaks for nothing");
                }
                self.end_all(&batch)
            }
            _ => Ok(()),
        }
    }

    fn interrupt(&mut self) -> Result<(), Violation> {
        self.host.interrupted();
        while self.host.has_used() {
            let in_flight = self.engine.real().expects_answer();
            let answered = if in_flight {
                let answer = self.host.get()?;
                self.engine.answered(answer)
            } else {
                self.engine.stray()
            };
            self.answered(answered)?;
            if !in_flight {
                break;
            }
            self.pump()?;
        }
        Ok(())
    }

    fn answered(&mut self, answered: Answered<List>) -> Result<(), Violation> {
        match answered {
            Answered::Ended(batch, result) => {
                self.recoveries = 0;
                self.host.lied = false;
                let how = match result {
                    Ok(()) => End::Done,
                    Err(_) if self.host.muddled => End::Excused,
                    Err(_) => End::Failed,
                };
                self.end(&batch, how)?;
            }
            Answered::Recover => self.must_recover = true,
            Answered::Stale | Answered::Ignored => (),
        }
        Ok(())
    }

    fn work(&mut self) {
        let done = self.callers.work();
        self.completed(&done);
    }

    fn reset(&mut self, keeps: bool) -> Result<(), Violation> {
        if let Some(answer) = self.host.reset(keeps) {
            let answered = self.engine.answered(answer);
            self.answered(answered)?;
        }
        let host = &self.host;
        self.engine.reset(&|buffer| host.is_written(buffer));
        self.no_buffers = (0..BUFFERS).all(|buffer| !host.is_written(buffer));
        self.callers.reset();
        self.must_recover = false;
        self.must_retry = false;
        self.stage = Stage::NoQueue;
        Ok(())
    }

    fn recover(&mut self, keeps: bool) -> Result<(), Violation> {
        match self.engine.recover() {
            Recovery::Reset => {
                // Once at the device's request, once for a ring out of step.
                if self.recoveries >= 2 {
                    return broken("progress", "recoveries without end");
                }
                self.recoveries += 1;
                self.reset(keeps)
            }
            Recovery::GiveUp(batch) => {
                if self.recoveries == 0 {
                    return broken("errors", "the first recovery gives up");
                }
                self.end_all(&batch)
            }
        }
    }

    fn give_up(&mut self) -> Result<(), Violation> {
        let batch = self.engine.break_down();
        self.end_all(&batch)
    }

    fn remove(&mut self) -> Result<(), Violation> {
        self.reset(true)?;
        let left = self.engine.break_down();
        if !left.is_empty() {
            return broken("once", "somebody appears after the removal");
        }
        self.host.abandon(self.engine.real().host_may_write())?;
        *self = Self {
            host: self.host.clone(),
            stage: Stage::Unbound,
            tally: self.tally.clone(),
            ..Self::default()
        };
        Ok(())
    }

    fn end_all(&mut self, batch: &List) -> Result<(), Violation> {
        self.is_broken = true;
        self.must_retry = false;
        self.must_recover = false;
        self.end(batch, End::Excused)
    }

    fn end(&mut self, batch: &List, how: End) -> Result<(), Violation> {
        if self.is_broken && how != End::Excused {
            return broken("broken", "an answer counts after the engine broke");
        }
        let woken = self.callers.end(batch, how)?;
        let count = batch.0.len() as u64;
        match how {
            End::Done => self.tally.0 += count,
            _ => self.tally.1 += count,
        }
        self.completed(&woken);
        Ok(())
    }

    fn completed(&mut self, callers: &[u8]) {
        callers.iter().for_each(|&caller| self.host.forget(caller));
        self.engine.real_mut().completed(callers.len());
    }

    /// Checks that the engine becomes idle if the host answers everything, however it orders that.
    ///
    /// `is_known` says whether this has been checked for a state that is reached on the way.
    pub fn check_progress(
        &self,
        newest_first: bool,
        recover_late: bool,
        mut is_known: impl FnMut(&Self) -> bool,
    ) -> Result<(), (Vec<Event>, Violation)> {
        let mut world = self.clone();
        let mut events = vec![];
        while !world.engine.real().is_idle() && !is_known(&world) {
            let Some(event) = world.help(newest_first, recover_late) else {
                return Err((
                    events,
                    broken::<()>("progress", "somebody waits for ever").unwrap_err(),
                ));
            };
            events.push(event);
            if let Err(violation) = world.step(event) {
                return Err((events, violation));
            }
            if events.len() > 100 {
                return Err((
                    events,
                    broken::<()>("progress", "all this is of no use").unwrap_err(),
                ));
            }
        }
        Ok(())
    }

    /// What a benevolent world does next.
    fn help(&self, newest_first: bool, recover_late: bool) -> Option<Event> {
        use Event::*;

        let last = self.host.flushes().saturating_sub(1);
        let answer = Answer(if newest_first { last } else { 0 }, How::Done);
        let stuck = self.host.is_gone() || self.host.lied;
        let late = [answer, Recover(true)];
        let early = [Recover(true), answer];
        let order = [Memory, Interrupt, Work, Retry, Frozen, Restore]
            .into_iter()
            .chain(if recover_late { late } else { early })
            .chain([Thaw])
            .chain(stuck.then_some(GiveUp));
        let events = self.events(0);
        order.into_iter().find(|event| events.contains(event))
    }
}
