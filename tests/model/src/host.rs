// SPDX-License-Identifier: GPL-2.0

//! The far side of the virtqueue: a host, the ring, and the response buffers both can reach.
//!
//! Modelled after QEMU, the least convenient host there is: it works on requests in a thread pool,
//! so answers come in any order, and a reset stops none of them.

use crate::{
    broken,
    engine::{
        Answer,
        NotSent,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    Violation,
    BUFFERS, //
};

/// How the host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// It is durable.
    Done,
    /// It could not be made so.
    Error,
    /// The request comes back empty.
    Empty,
    /// The host says that it has written an answer, and has not. No host does that.
    Lie,
}

/// A flush that the host has taken from a ring and not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Taken {
    /// Where the answer goes; none if that memory is no longer part of this driver.
    buffer: Option<usize>,
    /// Who had arrived when it was made available, one bit each.
    covers: u32,
    /// The device was reset since.
    late: bool,
}

/// What lies in the ring. There is one request at most, so it always has the same id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ring {
    /// The response buffer of the request.
    posted: Option<usize>,
    /// The lengths of the used elements that the driver has not taken.
    used: Vec<u32>,
    /// How many answers to flushes of earlier rings have come here.
    late: u8,
    /// There are new ones since the driver was last interrupted.
    interrupt: bool,
    /// The device is gone.
    broken: bool,
}

/// The device as the driver sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host {
    taken: Vec<Taken>,
    ring: Option<Ring>,
    /// What the buffers hold.
    buffers: [u32; BUFFERS],
    /// The device has stopped and asks for a reset.
    pub needs_reset: bool,
    /// A flush was not answered as the specification demands, so that its answer may be taken for
    /// one that is yet to come.
    pub lied: bool,
    /// A late answer came back empty. Its length can meet the status of another flush, which then
    /// fails for nothing; no host is known to do that.
    pub muddled: bool,
}

impl Host {
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }
    pub fn is_gone(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.broken)
    }
    pub fn vanish(&mut self) {
        self.ring.iter_mut().for_each(|ring| ring.broken = true);
    }
    /// The response buffer of the flush in flight.
    pub fn posted(&self) -> Option<usize> {
        self.ring.as_ref().and_then(|ring| ring.posted)
    }
    pub fn has_used(&self) -> bool {
        self.ring
            .as_ref()
            .is_some_and(|ring| !ring.broken && !ring.used.is_empty())
    }
    pub fn interrupts(&self) -> bool {
        self.has_used() && self.ring.as_ref().is_some_and(|ring| ring.interrupt)
    }
    pub fn interrupted(&mut self) {
        self.ring.iter_mut().for_each(|ring| ring.interrupt = false);
    }
    pub fn flushes(&self) -> usize {
        self.taken.len()
    }

    /// Whether the driver can know that a flush is still being worked on: late answers have not
    /// confused it more than once.
    pub fn owes(&self) -> bool {
        let confused = self.ring.as_ref().is_none_or(|ring| ring.late > 1);
        !confused && self.taken.iter().any(|taken| !taken.late)
    }

    /// Makes a new queue.
    pub fn set_up(&mut self) {
        self.ring = Some(Ring::default());
    }

    /// Resets the device and takes its queue away. A host that `keeps` what it works on will
    /// answer it later. Returns the answer that was given already, but not taken.
    pub fn reset(&mut self, keeps: bool) -> Option<Answer> {
        let posted = self.posted();
        self.ring = None;
        self.lied = false;
        self.muddled = false;
        self.needs_reset = false;
        if !keeps {
            self.taken.clear();
        }
        self.taken.iter_mut().for_each(|taken| taken.late = true);
        let posted = posted.filter(|&buffer| self.is_written(buffer))?;
        let answer = Answer::judge(RESPONSE_LEN, self.buffers[posted]);
        self.buffers[posted] = 0;
        Some(answer)
    }

    /// The driver was unbound. If the host may write to its buffers, their memory is never used
    /// again.
    pub fn abandon(&mut self, leak: bool) -> Result<(), Violation> {
        if !leak && self.taken.iter().any(|taken| taken.buffer.is_some()) {
            return broken("memory", "the host may write to buffers that are freed");
        }
        self.taken.iter_mut().for_each(|taken| taken.buffer = None);
        self.buffers = Default::default();
        Ok(())
    }

    /// The driver adds a request and notifies the host.
    pub fn add(&mut self, buffer: usize, covers: u32) -> Result<Result<(), NotSent>, Violation> {
        let Some(ring) = &mut self.ring else {
            return broken("queue", "a flush is sent without a queue");
        };
        if ring.broken {
            return Ok(Err(NotSent::Dead));
        }
        if ring.posted.is_some() {
            return broken("coalescing", "two flushes in flight");
        }
        ring.posted = Some(buffer);
        self.buffers[buffer] = UNANSWERED;
        if !self.needs_reset {
            self.taken.push(Taken {
                buffer: Some(buffer),
                covers,
                late: false,
            });
        }
        Ok(Ok(()))
    }

    /// The host answers its flush number `index`: returns whom it covers.
    pub fn answer(&mut self, index: usize, how: How) -> u32 {
        let Taken {
            buffer,
            covers,
            late,
        } = self.taken.remove(index);
        let (value, len) = match how {
            How::Done => (Some(0), RESPONSE_LEN),
            How::Error => (Some(1), RESPONSE_LEN),
            How::Empty => (None, 0),
            How::Lie => (None, RESPONSE_LEN),
        };
        match (value, buffer) {
            (Some(value), Some(buffer)) if self.posted() == Some(buffer) => {
                self.buffers[buffer] = value;
            }
            // That it was written is all anybody will ask.
            (Some(_), Some(buffer)) => self.buffers[buffer] = 0,
            (None, _) => self.lied = true,
            _ => (),
        }
        // A device that has stopped reports nothing any more, and without a ring it cannot.
        if let (Some(ring), false) = (&mut self.ring, self.needs_reset) {
            ring.used.push(len);
            ring.interrupt = true;
            ring.late += u8::from(late);
        }
        self.muddled |= late && how == How::Empty;
        covers
    }

    /// Whether a flush that the host has taken can come back empty: not one that was left behind by
    /// an earlier driver (see the engine on what that would do; no host is known to).
    pub fn may_be_empty(&self, index: usize) -> bool {
        self.taken[index].buffer.is_some()
    }

    /// The driver takes a used element from the ring.
    pub fn get(&mut self) -> Result<Answer, Violation> {
        let ring = self.ring.as_mut().expect("there is an element");
        let len = ring.used.remove(0);
        let Some(buffer) = ring.posted.take() else {
            return broken("queue", "an element was taken that has no descriptor");
        };
        let answer = Answer::judge(len, self.buffers[buffer]);
        if self.buffers[buffer] != UNANSWERED {
            self.buffers[buffer] = 0;
        }
        Ok(answer)
    }

    pub fn is_written(&self, buffer: usize) -> bool {
        self.buffers[buffer] != UNANSWERED
    }

    /// A caller has ended; its number may be used for another.
    pub fn forget(&mut self, caller: u8) {
        self.taken
            .iter_mut()
            .for_each(|taken| taken.covers &= !(1 << caller));
    }
}
