// SPDX-License-Identifier: GPL-2.0

//! The driver around the engine, and the events that can happen to it.

use crate::{
    callers::Kind,
    engine::{
        Refused,
        Timer, //
    },
    host::{
        How,
        Setup, //
    },
    port::{
        ModelPort,
        PATIENCE,
        RESENT, //
    },
    under_test::{
        UnderTest,
        LIMIT, //
    },
    violated,
    Violation, //
};

/// The most flushes of earlier rings that the host may have, so that the number of states stays
/// finite.
const LATE: usize = 2;

/// How often a callback accesses the ring at most: it takes an answer, checks, adds, takes, checks.
const ACCESSES: u8 = 5;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A caller asks for a flush.
    Arrive(Kind),
    /// The host answers the flush of this number, counted from the oldest that it works on.
    Answer(usize, How),
    /// The host loses the flush of this number, as by a snapshot, and never answers it.
    Lose(usize),
    /// The driver's callback runs.
    Interrupt,
    /// The same; after so many accesses to the ring the host answers the flush of this number.
    InterruptMeanwhile(u8, usize),
    /// The ordered work item completes the bios it was given.
    Work,
    /// The vIOMMU has no memory for a mapping.
    NoMemory,
    /// It has memory again.
    Memory,
    /// The clock advances by a step.
    Tick,
    /// The driver's timer ends. It may have been started for an earlier gathering.
    Wake,
    /// Gathering is switched on or off.
    Switch(bool),
    /// Suspend begins: the driver waits for the answer in flight.
    Freeze,
    /// The answer has come: the device is reset.
    Frozen,
    /// The answer did not come in time: suspend is aborted.
    Thaw,
    /// A function reset, or a suspend, that could not wait for the answer. Does the host keep on
    /// working on it?
    ForcedReset(bool),
    /// Probe, restore, `reset_done` or the recovery makes a new queue, which the driver does not
    /// have yet.
    Find,
    /// The driver gets the queue (after [`Event::Find`], if that has not happened) and starts.
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
    /// The removal has waited until the engine is idle.
    Removed,
    /// The removal could not wait any longer.
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
    port: ModelPort,
    stage: Stage,
    must_recover: bool,
    closing: bool,
    gathers: bool,
}

impl<F: UnderTest> World<F> {
    /// A driver before its queue was found.
    pub fn new(setup: Setup) -> Self {
        let mut world = Self::default();
        world.port.host.setup = setup;
        world.port.host.offered = setup;
        world.port.strict = F::STRICT;
        world.switch(setup.gathers);
        world
    }

    /// A driver that is bound, has a queue, and no callers yet.
    pub fn probed(setup: Setup) -> Self {
        let mut world = Self::new(setup);
        world.play(&[Event::Restore]).expect("no rule is violated");
        world
    }

    /// Applies `events` in turn, and checks the rules after each.
    ///
    /// # Panics
    ///
    /// If an event cannot happen.
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
        (self.port.tally.0, self.port.tally.1)
    }

    /// Whether the driver has given the device up.
    pub fn is_broken(&self) -> bool {
        self.port.is_broken
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
        let ModelPort {
            callers,
            host,
            no_memory,
            is_broken,
            now,
            crowd,
            timer,
            resent,
            ..
        } = &self.port;
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
        let may_lose = host.setup.patient && !host.setup.mapped && !host.lost && *resent < RESENT;
        for index in 0..host.flushes() {
            can(Lose(index), may_lose);
        }
        can(Interrupt, host.interrupts());
        for accesses in 0..ACCESSES {
            for index in 0..host.flushes() {
                can(InterruptMeanwhile(accesses, index), host.interrupts());
            }
        }
        can(Work, callers.has_work());
        can(NoMemory, bound && !no_memory && !is_broken);
        can(Memory, *no_memory);
        let is_due = timer.is_some_and(|(time, _)| time <= *now);
        can(
            Tick,
            host.setup.gathers && *crowd > 1 && *now <= LIMIT && !is_due,
        );
        can(Wake, timer.is_some());
        can(Switch(!self.gathers), bound && host.setup.gathers);
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
        // The next driver has no record that an answer may come to a request that is not mapped.
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
                self.port.answer(index, how)?;
            }
            Lose(index) => self.port.host.lose(index),
            Interrupt => self.interrupt(),
            InterruptMeanwhile(accesses, index) => {
                self.port.meanwhile = Some((accesses, index));
                self.interrupt();
                self.port.meanwhile = None;
            }
            Work => self.work(),
            NoMemory => self.port.no_memory = true,
            Memory => self.port.no_memory = false,
            Tick => self.port.now += 1,
            Wake => {
                self.port.timer = None;
                self.port.must_retry = false;
                self.engine.wake(&mut self.port);
                self.must_recover |= self.engine.real().is_overdue();
            }
            Switch(gathers) => {
                self.switch(gathers);
                self.engine.pump(&mut self.port);
            }
            Freeze => {
                self.engine.quiesce();
                self.port.crowd = 0;
                self.stage = Stage::Freezing;
            }
            Frozen => self.reset(true),
            Thaw => {
                self.engine.real_mut().resume();
                self.port.crowd = 0;
                self.engine.pump(&mut self.port);
                self.stage = Stage::Running;
            }
            ForcedReset(keeps) => self.reset(keeps),
            Find => {
                self.port.host.set_up();
                self.stage = Stage::Found;
            }
            Restore => {
                // A driver that has given up finds no queue.
                if !self.port.is_broken {
                    if self.stage == Stage::NoQueue {
                        self.port.host.set_up();
                    }
                    self.port.attached = true;
                    self.engine.start(&mut self.port);
                    self.must_recover |= self.engine.real().is_out_of_step();
                }
                self.stage = Stage::Running;
            }
            NeedsReset => self.port.host.needs_reset = true,
            Recover(keeps) => self.recover(keeps)?,
            Vanish => self.port.host.vanish(),
            GiveUp => self.engine.fail(&mut self.port),
            Close => {
                self.closing = true;
                self.engine.close();
                self.engine.pump(&mut self.port);
            }
            Removed => {
                if self.port.callers.len() != 0 {
                    return violated("count", "removed while a caller is left");
                }
                self.remove()?;
            }
            RemovedByForce => {
                self.engine.fail(&mut self.port);
                self.work();
                self.remove()?;
            }
            Rebind => {
                self.engine = F::default();
                self.switch(self.port.host.setup.gathers);
                self.stage = Stage::NoQueue;
            }
        }
        if self.engine.real_mut().take_notify() {
            self.port.host.notified();
        }
        match self.engine.take_timer() {
            Some(Timer::Start(time)) => self.port.timer = Some((time as u8, true)),
            // It may have expired already.
            Some(Timer::Stop) => self.port.timer = self.port.timer.map(|(time, _)| (time, false)),
            None => (),
        }
        self.complete();
        self.port.verdict()?;
        self.check()
    }

    /// Rules that always hold between two events.
    fn check(&self) -> Result<(), Violation> {
        let engine = self.engine.real();
        let ModelPort {
            callers,
            host,
            is_broken,
            ..
        } = &self.port;

        if *is_broken && callers.waiting() > 0 {
            return violated("broken", "a broken engine has a caller");
        }
        if engine.is_idle() && callers.len() != 0 {
            return violated("count", "idle, but a caller is left");
        }
        let at_rest = engine.is_quiet() || engine.is_idle();
        if F::STRICT && at_rest && host.owes() && !is_broken {
            return violated("count", "quiet, but a reset would lose an answer");
        }
        if host.setup.gathers {
            self.check_gathering()?;
        }
        Ok(())
    }

    /// Rules on a flush that could be sent, and is not (R10 to R12).
    fn check_gathering(&self) -> Result<(), Violation> {
        let engine = self.engine.real();
        let ModelPort { callers, crowd, .. } = &self.port;
        let can_send =
            self.stage == Stage::Running && engine.is_quiet() && !engine.is_out_of_step();

        if !can_send || self.port.must_retry || callers.waiting() == 0 {
            return Ok(());
        }
        if *crowd < 2 || self.closing || !self.gathers {
            return violated("gathering", "a caller is held back without a reason");
        }
        if callers.waiting() >= *crowd {
            return violated("gathering", "a caller is held back, and all are here");
        }
        match self.port.timer {
            Some((time, true)) if time <= LIMIT => Ok(()),
            _ => violated("gathering", "no timer ends the gathering in time"),
        }
    }

    /// Switches gathering on or off.
    fn switch(&mut self, gathers: bool) {
        self.gathers = gathers;
        self.engine.set_gathering(gathers);
    }

    /// The driver's callback.
    fn interrupt(&mut self) {
        self.port.host.interrupted();
        self.engine.drain(&mut self.port);
        self.must_recover |= self.engine.real().is_out_of_step();
    }

    /// Reports to the engine how many callers have ended.
    fn complete(&mut self) {
        let completed = std::mem::take(&mut self.port.completed);
        self.engine.real_mut().completed(completed);
    }

    fn arrive(&mut self, kind: Kind) -> Result<(), Violation> {
        let caller = self.port.callers.arrive(kind);
        match self.engine.arrive(caller) {
            Ok(()) => {
                self.engine.pump(&mut self.port);
                Ok(())
            }
            Err(why) => {
                self.port.callers.leave();
                match why {
                    Refused::Broken if self.port.is_broken => Ok(()),
                    Refused::Closed if self.closing => Ok(()),
                    _ => violated("errors", format!("a caller is refused: {why:?}")),
                }
            }
        }
    }

    fn work(&mut self) {
        let done = self.port.callers.work();
        self.port.completed(&done);
    }

    /// The driver gives its queue up.
    fn reset(&mut self, keeps: bool) {
        let is_owed = self.engine.real().expects_answer();
        let unread = self.port.host.reset(keeps).filter(|_| is_owed);
        self.engine.reset(unread, &mut self.port);
        self.port.callers.reset();
        self.port.crowd = 0;
        self.port.attached = false;
        // R9.
        self.port.host.setup.packed &= !self.engine.has_lost();
        self.must_recover = false;
        self.stage = Stage::NoQueue;
    }

    fn recover(&mut self, keeps: bool) -> Result<(), Violation> {
        let is_overdue = self.engine.real().is_overdue();

        // An answer may have come meanwhile.
        self.must_recover = false;
        if !self.port.host.needs_reset && !self.engine.real().is_out_of_step() && !is_overdue {
            return Ok(());
        }
        if !self.engine.recover(&mut self.port) {
            return Ok(());
        }
        if is_overdue {
            if self.port.checks < PATIENCE || self.port.resent >= RESENT {
                return violated("patience", "a flush is sent again too early");
            }
            self.port.resent += 1;
        } else {
            // R8, R15: once at the device's request, once for a ring out of step.
            if self.port.recoveries >= 2 + self.port.resent {
                return violated("progress", "recoveries without end");
            }
            self.port.recoveries += 1;
        }
        self.reset(keeps);
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Violation> {
        self.reset(true);
        let left = self.port.tally.clone();
        self.engine.real_mut().break_down(&mut self.port);
        if (left.0, left.1) != self.ended() {
            return violated("once", "a caller appears after the removal");
        }
        self.complete();
        self.port.verdict()?;
        self.port.host.unbound()?;
        *self = Self {
            port: ModelPort {
                host: self.port.host.clone(),
                tally: self.port.tally.clone(),
                strict: F::STRICT,
                ..ModelPort::default()
            },
            stage: Stage::Unbound,
            ..Self::default()
        };
        Ok(())
    }

    /// Checks that the engine becomes idle if the host answers everything, in any order.
    ///
    /// `is_known` returns whether this was checked before for a state that is reached on the way.
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
                    violated::<()>("progress", "a caller waits for ever").unwrap_err(),
                ));
            };
            events.push(event);
            if let Err(violation) = world.step(event) {
                return Err((events, violation));
            }
            if events.len() > 100 {
                return Err((
                    events,
                    violated::<()>("progress", "callers still wait after 100 events").unwrap_err(),
                ));
            }
        }
        Ok(())
    }

    /// The next event in a world without faults.
    fn help(&self, newest_first: bool, recover_late: bool) -> Option<Event> {
        use Event::*;

        let host = &self.port.host;
        let last = host.flushes().saturating_sub(1);
        let answer = Answer(if newest_first { last } else { 0 }, How::Done);
        // During a removal a ring out of step is not recovered, and the watchdog ends the removal.
        let stuck = host.is_gone() || host.lied || self.closing;
        let late = [answer, Recover(true), Recover(false)];
        let early = [Recover(true), Recover(false), answer];
        // While an answer is to come, there is always a timer.
        let is_patient = host.setup.patient;
        let order = [Memory, Interrupt, Work, Tick]
            .into_iter()
            .chain((!is_patient).then_some(Wake))
            .chain([Frozen, Restore])
            .chain(if recover_late { late } else { early })
            .chain([Thaw])
            .chain(stuck.then_some(GiveUp))
            .chain([Wake]);
        let events = self.events(0);
        order.into_iter().find(|event| events.contains(event))
    }
}
