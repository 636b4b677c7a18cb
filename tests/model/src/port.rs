// SPDX-License-Identifier: GPL-2.0

//! The engine's port to the simulated world, which checks the rules of each call.

use crate::{
    callers::{
        Callers,
        End,
        List, //
    },
    engine::{
        Dead,
        Ended,
        NotSent,
        Port,
        Used, //
    },
    host::{
        Host,
        How, //
    },
    under_test::GIVEN_UP,
    violated,
    Violation, //
};
use std::hash::{
    Hash,
    Hasher, //
};

/// How many callers have succeeded and failed. Not part of the state.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub u64, pub u64);

impl Hash for Tally {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The driver's state besides the engine.
#[derive(Clone, Debug, Default, Hash)]
pub struct ModelPort {
    /// The callers that have not ended.
    pub callers: Callers,
    /// The device.
    pub host: Host,
    /// No mapping can be made.
    pub no_memory: bool,
    /// The timer is to end an attempt that failed for want of memory.
    pub must_retry: bool,
    /// The engine has broken, and its callers have failed.
    pub is_broken: bool,
    /// Recoveries since the last flush that was answered.
    pub recoveries: u8,
    /// How often a flush was sent again since then, because it was not answered.
    pub resent: u8,
    /// How often the engine has checked the wait for the flush in flight.
    pub checks: u8,
    /// How callers have ended.
    pub tally: Tally,
    /// Whether a flush too many is a violation.
    pub strict: bool,
    /// The driver has its queue.
    pub attached: bool,
    /// When the driver has accessed the ring so many more times, the host answers this flush.
    pub meanwhile: Option<(u8, usize)>,
    /// How many steps of the clock have passed since a flush succeeded.
    pub now: u8,
    /// How many callers there were then, or 0 if there is no reason to gather.
    pub crowd: usize,
    /// When the driver's timer ends, and whether it was started since a flush succeeded.
    pub timer: Option<(u8, bool)>,
    /// Callers that have ended, for the engine's count.
    pub completed: usize,
    /// The first violation; a port cannot fail.
    pub violation: Option<String>,
    /// Which rule that was.
    pub rule: &'static str,
}

/// How often a flush is sent again at most, so that the number of states stays finite.
pub const RESENT: u8 = 2;

/// The check at which the driver's patience is over.
pub const PATIENCE: u8 = 2;

impl ModelPort {
    /// Records a violation.
    fn check<T: Default>(&mut self, result: Result<T, Violation>) -> T {
        result.unwrap_or_else(|violation| {
            if self.violation.is_none() {
                self.rule = violation.rule;
                self.violation = Some(violation.what);
            }
            T::default()
        })
    }

    /// Returns the violation that was recorded.
    pub fn verdict(&self) -> Result<(), Violation> {
        match &self.violation {
            Some(what) => violated(self.rule, what.clone()),
            None => Ok(()),
        }
    }

    /// The host answers a flush.
    pub fn answer(&mut self, index: usize, how: How) -> Result<(), Violation> {
        let (covers, reported) = self.host.answer(index, how)?;
        self.callers.flushed(covers, how == How::Done, reported);
        Ok(())
    }

    /// The driver accesses the ring.
    fn access(&mut self) {
        match self.meanwhile {
            Some((0, index)) => {
                self.meanwhile = None;
                if index < self.host.flushes() {
                    let answered = self.answer(index, How::Done);
                    self.check(answered);
                }
            }
            Some((calls, index)) => self.meanwhile = Some((calls - 1, index)),
            None => (),
        }
    }

    /// Callers have ended.
    pub fn completed(&mut self, callers: &[u8]) {
        callers.iter().for_each(|&caller| self.host.forget(caller));
        self.completed += callers.len();
    }

    fn end_all(&mut self, batch: &List, how: End) -> Result<(), Violation> {
        if self.is_broken && how != End::Excused {
            return violated("broken", "an answer counts after the engine broke");
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
}

impl Port<List> for ModelPort {
    fn add(&mut self, batch: &List) -> Result<bool, NotSent> {
        self.access();
        if batch.0.is_empty() && self.recoveries == 0 {
            self.check::<()>(violated("coalescing", "a flush is sent without a caller"));
        }
        if self.no_memory && !self.host.is_gone() {
            self.must_retry = true;
            return Err(NotSent::Again(self.now.into()));
        }
        self.checks = 0;
        let sent = self.callers.sent(self.strict);
        let covers = self.check(sent);
        let added = self.host.add(covers);
        match added {
            Ok(result) => result.map(|()| true),
            Err(violation) => {
                self.check::<()>(Err(violation));
                Err(NotSent::Dead)
            }
        }
    }

    fn take(&mut self) -> Result<Option<Used>, Dead> {
        self.access();
        if !self.attached {
            return Ok(None);
        }
        let taken = self.host.take();
        taken.unwrap_or_else(|violation| {
            self.check::<()>(Err(violation));
            Err(Dead)
        })
    }

    fn rearm(&mut self) -> bool {
        self.access();
        self.attached && self.host.rearm()
    }

    fn give_up_request(&mut self) {
        self.host.give_up_request()
    }

    fn now(&mut self) -> u64 {
        self.now.into()
    }

    fn is_timer_precise(&self) -> bool {
        true
    }

    fn check_after(&self) -> Option<u64> {
        // Time stands still, but checks can come at any time.
        self.host.setup.patient.then_some(0)
    }

    fn unanswered(&mut self, _: u64) -> Option<u64> {
        self.checks = PATIENCE.min(self.checks + 1);
        let is_over = self.checks == PATIENCE;

        (self.resent < RESENT).then_some(if is_over { 0 } else { u64::MAX })
    }

    fn gathered(&mut self, _: usize, _: usize) {}

    fn end(&mut self, batch: List, how: Ended) {
        let how = match how {
            Ended::Done => End::Done,
            Ended::Failed(_) if self.host.ambiguous => End::Excused,
            Ended::Failed(_) => End::Failed,
            Ended::Broken => End::Excused,
        };
        if how != End::Excused {
            self.recoveries = 0;
            self.resent = 0;
            self.host.lied = false;
        }
        if let (End::Excused, false) = (how, self.is_broken || self.host.ambiguous) {
            self.check::<()>(violated(
                "errors",
                "callers fail, and the engine is not broken",
            ));
        }
        let ended = self.end_all(&batch, how);
        self.check(ended);
        self.now = 0;
        self.timer = self.timer.map(|(time, _)| (time, false));
        self.crowd = if how == End::Done {
            batch.0.len() + self.callers.waiting()
        } else {
            0
        };
    }

    fn broke(&mut self, why: &'static str) {
        let is_excused = match why {
            "no flush can be sent" | "the queue is broken" => self.host.is_gone(),
            // R15.
            "a reset did not help" if !self.host.needs_reset => self.recoveries > self.resent,
            "a reset did not help" => self.recoveries > 0,
            "a flush was lost behind an IOMMU or a bounce buffer" => self.host.setup.mapped,
            other => other == GIVEN_UP,
        };
        if !is_excused {
            self.check::<()>(violated("errors", format!("the engine breaks: {why}")));
        }
        self.is_broken = true;
    }
}
