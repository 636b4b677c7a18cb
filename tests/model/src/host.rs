// SPDX-License-Identifier: GPL-2.0

//! The other side of the virtqueue: a host, the ring, and the response that both sides can access.
//!
//! Modelled after QEMU, the most difficult host: it works on requests in a thread pool, so answers
//! come in any order, and a reset stops none of them.

use crate::{
    engine::{
        Dead,
        NotSent,
        Responses,
        Used,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    violated,
    Violation, //
};
use std::{
    collections::VecDeque,
    fmt, //
};

/// How the host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// The stores are durable.
    Done,
    /// They could not be made durable.
    Error,
    /// The request comes back empty.
    Empty,
    /// The host reports the length of an answer that it has not written. No known host does that.
    Lie,
}

/// What the device offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Setup {
    /// The ring is packed, otherwise split.
    pub packed: bool,
    /// The driver names the used element for which it requests an interrupt.
    pub event_idx: bool,
    /// Requests are mapped while they are in the ring.
    pub mapped: bool,
    /// The driver gathers, and its clock is simulated.
    pub gathers: bool,
    /// The driver sends a flush again that is not answered, and the host may lose one.
    pub patient: bool,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}{}{}",
            if self.packed { "packed" } else { "split" },
            if self.event_idx { ", EVENT_IDX" } else { "" },
            if self.mapped { ", mapped" } else { "" },
            if self.gathers { ", gathering" } else { "" },
            if self.patient { ", patient" } else { "" },
        )
    }
}

impl Setup {
    /// Each kind of ring, with and without EVENT_IDX.
    pub fn rings(mapped: bool) -> impl Iterator<Item = Self> {
        (0..4).map(move |n| Self {
            packed: n & 1 != 0,
            event_idx: n & 2 != 0,
            mapped,
            ..Self::default()
        })
    }

    /// How the host reaches responses.
    pub fn responses(self) -> Responses {
        if self.mapped {
            Responses::Mapped
        } else {
            Responses::Direct
        }
    }
}

/// A flush that the host has taken from a ring and not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Taken {
    /// The answer goes to the driver's request. Otherwise that was given up (R4).
    ours: bool,
    /// The response was unmapped, so the host must not write it (R7).
    unmapped: bool,
    /// The callers that had arrived when it was made available, one bit each.
    covers: u32,
    /// The device was reset since.
    late: bool,
}

/// The ring. There is one request at most, so it always has the same id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ring {
    /// The request is in it.
    posted: bool,
    /// The flush of which the host was not notified yet.
    unseen: Option<Taken>,
    /// The lengths of the used elements that the driver has not taken, from the position at which
    /// it takes the next one. In a packed ring a request that was added there overwrites them.
    used: VecDeque<Option<u32>>,
    /// The used element for which the driver has requested an interrupt, counted as above.
    event: usize,
    /// There was an interrupt, and no callback since.
    interrupt: bool,
    /// How many answers to flushes of earlier rings have come here.
    late: u8,
    /// The device is gone.
    broken: bool,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host {
    /// What was negotiated.
    pub setup: Setup,
    /// What the device offers.
    pub offered: Setup,
    taken: Vec<Taken>,
    ring: Option<Ring>,
    /// The driver has a request, whether or not it is in the ring, and what its response holds.
    has_request: bool,
    response: u32,
    /// The device has stopped and asks for a reset.
    pub needs_reset: bool,
    /// A flush was not answered as the specification demands, so that the driver may take its
    /// answer for that of another flush.
    pub lied: bool,
    /// The host has lost a flush since it was reset.
    pub lost: bool,
    /// A late answer came back empty. The driver may read its length with the status of another
    /// flush, which then fails without a reason. No known host does that.
    pub ambiguous: bool,
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
    /// Whether there is a used element that the driver can read.
    pub fn has_used(&self) -> bool {
        self.ring
            .as_ref()
            .is_some_and(|ring| !ring.broken && matches!(ring.used.front(), Some(Some(_))))
    }
    /// Whether the driver's callback is to run: the core checks for a used element first.
    pub fn interrupts(&self) -> bool {
        self.has_used() && self.ring.as_ref().is_some_and(|ring| ring.interrupt)
    }
    pub fn interrupted(&mut self) {
        self.ring.iter_mut().for_each(|ring| ring.interrupt = false);
    }
    pub fn flushes(&self) -> usize {
        self.taken.len()
    }

    /// Whether the driver can conclude that the host works on a flush: after more than one late
    /// answer it cannot.
    pub fn owes(&self) -> bool {
        let confused = self.ring.as_ref().is_none_or(|ring| ring.late > 1);
        !confused && self.taken.iter().any(|taken| !taken.late)
    }

    /// Makes a new queue.
    pub fn set_up(&mut self) {
        self.ring = Some(Ring::default());
        self.has_request = true;
    }

    /// Resets the device and takes its queue away. A host that `keeps` what it works on will
    /// answer it later. Returns the answer that the driver can find in the old queue.
    pub fn reset(&mut self, keeps: bool) -> Option<Used> {
        let ring = self.ring.take();

        self.lied = false;
        self.lost = false;
        self.ambiguous = false;
        self.needs_reset = false;
        if !keeps {
            self.taken.clear();
        }
        self.taken.iter_mut().for_each(|taken| taken.late = true);

        let ring = ring.filter(|ring| ring.posted)?;
        let len = ring.used.front().copied().flatten();
        let is_found = len.is_some() || !self.setup.mapped && self.response != UNANSWERED;
        is_found.then_some(Used {
            len: len.unwrap_or(RESPONSE_LEN),
            value: self.response,
        })
    }

    /// The host loses its flush number `index`, which it will never answer.
    pub fn lose(&mut self, index: usize) {
        self.taken.remove(index);
        self.lost = true;
    }

    /// The driver was unbound, and frees its request.
    pub fn unbound(&mut self) -> Result<(), Violation> {
        if self.taken.iter().any(|taken| taken.ours) {
            return violated("memory", "the host may write to a request that is freed");
        }
        self.has_request = false;
        self.setup = self.offered;
        Ok(())
    }

    /// The driver gives its request up (R4).
    pub fn give_up_request(&mut self) {
        self.has_request = false;
        self.ours().for_each(|taken| taken.ours = false);
    }

    /// The driver adds its request; the host was not notified yet.
    pub fn add(&mut self, covers: u32) -> Result<Result<(), NotSent>, Violation> {
        let Some(ring) = &mut self.ring else {
            return violated("queue", "a flush is sent without a queue");
        };
        if ring.broken {
            return Ok(Err(NotSent::Dead));
        }
        if ring.posted {
            return violated("coalescing", "two flushes in flight");
        }
        if !self.has_request {
            return violated("queue", "a flush is sent without a request");
        }
        ring.posted = true;
        if let (true, Some(element)) = (self.setup.packed, ring.used.front_mut()) {
            *element = None;
        }
        ring.unseen = Some(Taken {
            ours: true,
            unmapped: false,
            covers,
            late: false,
        });
        self.response = UNANSWERED;
        Ok(Ok(()))
    }

    /// The driver notifies the host, which takes the request.
    pub fn notified(&mut self) {
        let unseen = self.ring.as_mut().and_then(|ring| ring.unseen.take());
        if !self.needs_reset {
            self.taken.extend(unseen);
        }
    }

    /// The flushes whose answers go to the driver's request.
    fn ours(&mut self) -> impl Iterator<Item = &mut Taken> {
        let unseen = self.ring.iter_mut().flat_map(|ring| &mut ring.unseen);
        self.taken
            .iter_mut()
            .chain(unseen)
            .filter(|taken| taken.ours)
    }

    /// The driver takes its request from the ring, if it was used.
    pub fn take(&mut self) -> Result<Result<Option<Used>, Dead>, Violation> {
        let visible = self.has_used();
        let Some(ring) = &mut self.ring else {
            return Ok(Ok(None));
        };
        if ring.broken {
            return Ok(Err(Dead));
        }
        let Some(len) = ring.used.front().copied().flatten().filter(|_| visible) else {
            return Ok(Ok(None));
        };
        if !ring.posted {
            return violated("queue", "an element was taken that has no descriptor");
        }
        ring.used.pop_front();
        ring.posted = false;
        // Taking an element asks for an interrupt for the next one.
        ring.event = 0;
        if self.setup.mapped {
            self.ours().for_each(|taken| taken.unmapped = true);
        }
        Ok(Ok(Some(Used {
            len,
            value: self.response,
        })))
    }

    /// The driver asks for an interrupt for the next used element, and checks for one (R6).
    pub fn rearm(&mut self) -> bool {
        if let Some(ring) = &mut self.ring {
            ring.event = 0;
        }
        self.has_used()
    }

    /// The host answers its flush number `index`: returns which callers it covers, and whether the
    /// answer is reported to the driver.
    pub fn answer(&mut self, index: usize, how: How) -> Result<(u32, bool), Violation> {
        let Taken {
            ours,
            unmapped,
            covers,
            late,
        } = self.taken.remove(index);
        let (value, len) = match how {
            How::Done => (Some(0), RESPONSE_LEN),
            How::Error => (Some(1), RESPONSE_LEN),
            How::Empty => (None, 0),
            How::Lie => (None, RESPONSE_LEN),
        };
        match value {
            Some(_) if unmapped => {
                return violated("memory", "the host writes to memory that was unmapped")
            }
            Some(value) if ours => self.response = value,
            Some(_) => (),
            None => self.lied = true,
        }
        // A device that has stopped reports nothing any more, and without a ring it cannot.
        if let (Some(ring), false) = (&mut self.ring, self.needs_reset) {
            if !self.setup.event_idx || ring.event == ring.used.len() {
                ring.interrupt = true;
            }
            ring.used.push_back(Some(len));
            ring.late += u8::from(late);
        }
        self.ambiguous |= late && how == How::Empty;
        Ok((covers, ours && value.is_some()))
    }

    /// Whether a flush that the host has taken can come back empty: not one of an earlier ring or
    /// driver. The driver cannot distinguish that from the flush in flight.
    pub fn may_be_empty(&self, index: usize) -> bool {
        self.taken[index].ours
    }

    /// A caller has ended; its number may be used for another.
    pub fn forget(&mut self, caller: u8) {
        let unseen = self.ring.iter_mut().flat_map(|ring| &mut ring.unseen);
        self.taken
            .iter_mut()
            .chain(unseen)
            .for_each(|taken| taken.covers &= !(1 << caller));
    }
}
