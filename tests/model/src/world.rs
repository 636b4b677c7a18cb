// SPDX-License-Identifier: GPL-2.0

//! The driver around the engine, and everything that can happen to it.

use crate::{
    broken,
    callers::Kind,
    desk::Desk,
    engine::Refused,
    flush::Flush,
    host::{
        How,
        Setup, //
    },
    Violation, //
};

/// How many flushes an earlier ring may leave with the host, so that the number of states stays
/// finite.
const LATE: usize = 2;

/// How often a callback looks at the ring, at most: it takes an answer, looks, adds, takes, looks.
const LOOKS: u8 = 5;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A caller asks for a flush.
    Arrive(Kind),
    /// The host answers the flush of this number, counted from the oldest it works on.
    Answer(usize, How),
    /// The driver's callback runs and looks at the queue.
    Interrupt,
    /// The same; and when it has looked so many times, the host answers the flush of this number.
    InterruptMeanwhile(u8, usize),
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
    /// Probe, restore, `reset_done` or the recovery makes a new queue, of which the driver does not
    /// know yet.
    Find,
    /// The driver gets the queue (with [`Event::Find`], if that was not before) and starts.
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
    /// The queue is there, and the driver does not have it yet.
    Found,
    Running,
    Freezing,
    Unbound,
}

/// The world.
#[derive(Clone, Debug, Default, Hash)]
pub struct World<F> {
    engine: F,
    desk: Desk,
    stage: Stage,
    must_recover: bool,
    closing: bool,
}

impl<F: Flush> World<F> {
    /// A driver before its queue was found.
    pub fn new(setup: Setup) -> Self {
        let mut world = Self::default();
        world.desk.host.setup = setup;
        world.desk.host.offered = setup;
        world.desk.strict = F::STRICT;
        world
    }

    /// A driver that is bound, has a queue, and no callers yet.
    pub fn probed(setup: Setup) -> Self {
        let mut world = Self::new(setup);
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
        (self.desk.tally.0, self.desk.tally.1)
    }

    /// Whether the driver has given the device up.
    pub fn is_broken(&self) -> bool {
        self.desk.is_broken
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
        let Desk {
            callers,
            host,
            no_memory,
            must_retry,
            is_broken,
            ..
        } = &self.desk;
        let works = host.has_ring() && !host.is_gone() && !is_broken;
        let quiet = self.engine.real().is_quiet();

        for kind in [Kind::Sync, Kind::Bio] {
            can(Arrive(kind), bound && callers.len() < most);
        }
        for index in 0..host.flushes() {
            can(Answer(index, How::Done), true);
            can(Answer(index, How::Error), true);
            can(Answer(index, How::Empty), host.may_be_empty(index));
            can(Answer(index, How::Lie), host.may_be_empty(index));
        }
        can(Interrupt, host.interrupts());
        for looks in 0..LOOKS {
            for index in 0..host.flushes() {
                can(InterruptMeanwhile(looks, index), host.interrupts());
            }
        }
        can(Work, callers.has_work());
        can(NoMemory, bound && !no_memory && !is_broken);
        can(Memory, *no_memory);
        can(Retry, *must_retry);
        can(Freeze, running);
        can(Frozen, freezing && quiet);
        can(Thaw, freezing);
        for keeps in [true, false] {
            let may_keep = !keeps || host.flushes() <= LATE;
            can(ForcedReset(keeps), may_keep && (running || freezing));
            let asked = host.needs_reset || self.must_recover;
            // While the driver is removed, the recovery does not get the device's lock.
            let can_recover = running && asked && !is_broken && !self.closing;
            can(Recover(keeps), may_keep && can_recover);
        }
        can(Find, self.stage == Stage::NoQueue && !is_broken);
        can(Restore, matches!(self.stage, Stage::NoQueue | Stage::Found));
        can(NeedsReset, works && !host.needs_reset);
        can(Vanish, works);
        can(GiveUp, bound && !is_broken);
        can(Close, bound && !self.closing);
        can(Removed, self.closing && self.engine.real().is_idle());
        can(RemovedByForce, self.closing);
        // The next driver cannot know that an answer may come to a request that is not mapped.
        let left = if host.setup.mapped { 0 } else { LATE - 1 };
        can(Rebind, !bound && host.flushes() <= left);
        events
    }

    /// Makes `event` happen.
    pub fn step(&mut self, event: Event) -> Result<(), Violation> {
        use Event::*;

        match event {
            Arrive(kind) => self.arrive(kind)?,
            Answer(index, how) => {
                self.desk.answer(index, how)?;
            }
            Interrupt => self.interrupt(),
            InterruptMeanwhile(looks, index) => {
                self.desk.meanwhile = Some((looks, index));
                self.interrupt();
                self.desk.meanwhile = None;
            }
            Work => self.work(),
            NoMemory => self.desk.no_memory = true,
            Memory => self.desk.no_memory = false,
            Retry => {
                self.desk.must_retry = false;
                self.engine.pump(&mut self.desk);
            }
            Freeze => {
                self.engine.real_mut().quiesce();
                self.stage = Stage::Freezing;
            }
            Frozen => self.reset(true),
            Thaw => {
                self.engine.real_mut().resume();
                self.engine.pump(&mut self.desk);
                self.stage = Stage::Running;
            }
            ForcedReset(keeps) => self.reset(keeps),
            Find => {
                self.desk.host.set_up();
                self.stage = Stage::Found;
            }
            Restore => {
                // A driver that has given up finds no queue.
                if !self.desk.is_broken {
                    if self.stage == Stage::NoQueue {
                        self.desk.host.set_up();
                    }
                    self.desk.attached = true;
                    self.engine.start(&mut self.desk);
                    self.must_recover |= self.engine.real().is_out_of_step();
                }
                self.stage = Stage::Running;
            }
            NeedsReset => self.desk.host.needs_reset = true,
            Recover(keeps) => self.recover(keeps)?,
            Vanish => self.desk.host.vanish(),
            GiveUp => self.engine.fail(&mut self.desk),
            Close => {
                self.closing = true;
                self.engine.real_mut().close();
            }
            Removed => {
                if self.desk.callers.len() != 0 {
                    return broken("count", "removed while a caller is left");
                }
                self.remove()?;
            }
            RemovedByForce => {
                self.engine.fail(&mut self.desk);
                self.work();
                self.remove()?;
            }
            Rebind => {
                self.engine = F::default();
                self.stage = Stage::NoQueue;
            }
        }
        if self.engine.real_mut().take_notify() {
            self.desk.host.notified();
        }
        self.complete();
        self.desk.verdict()?;
        self.check()
    }

    /// Rules that always hold between two events.
    fn check(&self) -> Result<(), Violation> {
        let engine = self.engine.real();
        let Desk {
            callers,
            host,
            is_broken,
            ..
        } = &self.desk;

        if *is_broken && callers.anybody_waits() {
            return broken("broken", "a caller is left with a broken engine");
        }
        if engine.is_idle() && callers.len() != 0 {
            return broken("count", "idle, but a caller is left");
        }
        let at_rest = engine.is_quiet() || engine.is_idle();
        if F::STRICT && at_rest && host.owes() && !is_broken {
            return broken("count", "quiet, but a reset would lose an answer");
        }
        Ok(())
    }

    /// The driver's callback.
    fn interrupt(&mut self) {
        self.desk.host.interrupted();
        self.engine.drain(&mut self.desk);
        self.must_recover |= self.engine.real().is_out_of_step();
    }

    /// Reports to the engine how many callers have ended.
    fn complete(&mut self) {
        let completed = std::mem::take(&mut self.desk.completed);
        self.engine.real_mut().completed(completed);
    }

    fn arrive(&mut self, kind: Kind) -> Result<(), Violation> {
        let caller = self.desk.callers.arrive(kind);
        match self.engine.arrive(caller) {
            Ok(()) => {
                self.engine.pump(&mut self.desk);
                Ok(())
            }
            Err(why) => {
                self.desk.callers.leave();
                match why {
                    Refused::Broken if self.desk.is_broken => Ok(()),
                    Refused::Closed if self.closing => Ok(()),
                    _ => broken("errors", format!("a caller is refused: {why:?}")),
                }
            }
        }
    }

    fn work(&mut self) {
        let done = self.desk.callers.work();
        self.desk.completed(&done);
    }

    /// The driver gives its queue up.
    fn reset(&mut self, keeps: bool) {
        let is_owed = self.engine.real().expects_answer();
        let unread = self.desk.host.reset(keeps).filter(|_| is_owed);
        self.engine.reset(unread, &mut self.desk);
        self.desk.callers.reset();
        self.desk.attached = false;
        // R9.
        self.desk.host.setup.packed &= !self.engine.has_lost();
        self.must_recover = false;
        self.stage = Stage::NoQueue;
    }

    fn recover(&mut self, keeps: bool) -> Result<(), Violation> {
        if self.engine.recover(&mut self.desk) {
            // Once at the device's request, once for a ring out of step.
            if self.desk.recoveries >= 2 {
                return broken("progress", "recoveries without end");
            }
            self.desk.recoveries += 1;
            self.reset(keeps);
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Violation> {
        self.reset(true);
        let left = self.desk.tally.clone();
        self.engine.real_mut().break_down(&mut self.desk);
        if (left.0, left.1) != self.ended() {
            return broken("once", "a caller appears after the removal");
        }
        self.complete();
        self.desk.verdict()?;
        self.desk.host.unbound()?;
        *self = Self {
            desk: Desk {
                host: self.desk.host.clone(),
                tally: self.desk.tally.clone(),
                strict: F::STRICT,
                ..Desk::default()
            },
            stage: Stage::Unbound,
            ..Self::default()
        };
        Ok(())
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
                    broken::<()>("progress", "a caller waits for ever").unwrap_err(),
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

        let host = &self.desk.host;
        let last = host.flushes().saturating_sub(1);
        let answer = Answer(if newest_first { last } else { 0 }, How::Done);
        // Without the lock a ring out of step is not recovered, and the watchdog ends the removal.
        let stuck = host.is_gone() || host.lied || self.closing;
        let late = [answer, Recover(true), Recover(false)];
        let early = [Recover(true), Recover(false), answer];
        let order = [Memory, Interrupt, Work, Retry, Frozen, Restore]
            .into_iter()
            .chain(if recover_late { late } else { early })
            .chain([Thaw])
            .chain(stuck.then_some(GiveUp));
        let events = self.events(0);
        order.into_iter().find(|event| events.contains(event))
    }
}
