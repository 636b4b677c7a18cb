// SPDX-License-Identifier: GPL-2.0

// The flush engine: turns callers who want their stores durable into flush requests to the host.
//
// A caller is covered only by a host flush that was made available after the caller arrived. One
// flush at most is in flight; everybody who arrives meanwhile shares the next one. So there are
// two batches: the callers that the flush in flight answers, and those that wait for the next.
//
// This is a state machine and nothing else: no lock, no allocation, no kernel type, every function
// takes constant time. The driver keeps it, together with the virtqueue, under one lock that is
// taken with interrupts off, tells it what happened, and does what it is told. The same file is
// compiled by KUnit and, on the build host, by a model checker (tests/model). That is why it needs
// `core` alone, has no inner attributes, and why its tests live in the crates that include it.
//
// A life:
//
//     new -> start -> (arrive | answered | stray, each followed by pump)*
//         -> quiesce -> reset -> start -> ...                       suspend, function reset
//         -> recover -> reset -> start -> ...                       the device asked for it
//         -> close -> quiesce -> reset -> break_down                removal
//
// # Why the answer in the ring is not believed
//
// A reset does not stop a host that is in the middle of a flush. QEMU delivers that answer into
// the queue that replaced the one it was asked in, under the same descriptor id. Such a late answer
// must not acknowledge the flush that happens to be there now. What tells them apart is where the
// answer is written: into the response buffer that was posted with the flush. So:
//
// - every flush is posted with its response buffer set to `UNANSWERED`, which no host sends; a used
//   element that leaves that value in place answers some other flush;
// - a buffer whose answer is missing is `missing`, and is not posted again before the answer is
//   seen to have been written to it. Otherwise the answer could be taken for that of a later flush.
//
// And once a late answer has used up the descriptor of the flush that is in flight, that flush's
// own answer will find no descriptor, or that of a later flush: from then on the ring is one answer
// ahead. Sending the flush again into this ring does not help; it only moves the mistake to the
// next batch. So the engine stops sending, waits until the host has delivered that last answer (it
// then has nothing left in flight), and asks for a reset. The callers just wait a little longer.

use core::mem;

/// How many response buffers a driver should keep.
///
/// One is enough until a reset loses a flush that is in flight. Each further one pays for one more
/// answer that went missing and, as a well-behaved host forgets a flush when it is reset, is
/// missing for good. When all are, the device is given up. At 128 bytes each these fill a page.
pub const SLOTS: usize = 32;

/// What a response buffer holds while it has no answer.
///
/// The specification knows 0 (done) and 1 (I/O error); this is also no negative errno.
pub const UNANSWERED: u32 = 0x7e57_a1e5;

/// The length of a response, which a host must report as used.
pub const RESPONSE_LEN: u32 = 4;

/// Callers in order of arrival.
///
/// The engine moves whole batches only, and needs that to take constant time. It is a pair of
/// intrusive lists in the driver and a vector in tests.
pub trait Batch: Default {
    /// Returns whether nobody is in it.
    fn is_empty(&self) -> bool;

    /// Moves all of `later` behind the callers that are here, and leaves `later` empty.
    fn append(&mut self, later: &mut Self);
}

/// A batch that takes a caller of type `C`.
pub trait Join<C>: Batch {
    /// Adds `caller` as the last one.
    fn join(&mut self, caller: C);
}

/// Why a caller was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The device is broken.
    Broken,
    /// The device is being removed, in good order: not worth a message.
    Closed,
}

/// Why a flush could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// For want of memory: nothing was made available to the host, and trying later can help.
    Again,
    /// The queue does not work (any more).
    Dead,
}

/// Why a flush failed, although the host answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The host's status, which is not zero.
    Status(u32),
    /// The answer has this length in place of [`RESPONSE_LEN`].
    Length(u32),
}

/// What a used element says about the flush it was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It is durable.
    Done,
    /// It may not be.
    Failed(Failure),
    /// Nothing: the response buffer was not written. The element has this length.
    Untouched(u32),
}

impl Answer {
    /// Judges a used element by the length it reports and by the value (in CPU byte order) that
    /// its response buffer holds.
    pub fn judge(len: u32, value: u32) -> Self {
        if value == UNANSWERED {
            Self::Untouched(len)
        } else if len != RESPONSE_LEN {
            Self::Failed(Failure::Length(len))
        } else if value != 0 {
            Self::Failed(Failure::Status(value))
        } else {
            Self::Done
        }
    }
}

/// What [`Engine::pump()`] did.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "callers may have to be ended, or the driver has to call again"]
pub enum Pumped<B> {
    /// There was nothing to send, or it could not be sent now and a later event will have it sent.
    Nothing,
    /// A flush is on its way.
    Sent,
    /// [`NotSent::Again`]: call [`Engine::pump()`] again, a little later.
    Again,
    /// The engine is broken from now on: end these callers with an I/O error.
    Broken(B),
}

/// What an answer, or a used element that is none, means.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "callers may have to be ended"]
pub enum Answered<B> {
    /// End these callers with this result. Nobody is in the batch if the flush was sent only to
    /// see whether a recovered queue works.
    Ended(B, Result<(), Failure>),
    /// Nobody ends. The ring is out of step with the host, which still owes it an answer. When
    /// that comes, [`Engine::stray()`] is to be called; if it never does, the device is broken.
    Stale,
    /// Nobody ends. The ring is out of step with the host, which owes it nothing any more: recover
    /// ([`Engine::recover()`]).
    Recover,
    /// Nobody ends and there is nothing to do: the engine had broken before.
    Ignored,
}

/// What [`Engine::recover()`] decided.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the device has to be reset, or callers have to be ended"]
pub enum Recovery<B> {
    /// Reset the device, call [`Engine::reset()`], make a new queue, call [`Engine::start()`].
    Reset,
    /// It was of no use the last time. The engine is broken: end these callers with an I/O error.
    GiveUp(B),
}

/// Whether flushes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Gate {
    /// Not now: callers wait.
    #[default]
    Held,
    /// Yes.
    Open,
    /// Never again: callers are refused.
    Broken,
}

/// What the host owes the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Owed {
    #[default]
    Nothing,
    /// The answer to the batch in flight, in this response buffer.
    Answer(usize),
    /// An answer for which the ring has no descriptor any more.
    Stray,
    /// Nothing, but the ring holds a used element too many.
    Surplus,
}

/// The state machine, for a driver with `N` response buffers; see the top of this file.
///
/// After each of [`start()`], [`arrive()`] and [`answered()`] the driver calls [`pump()`], under
/// the same lock. Every caller that was taken comes back exactly once, as part of a batch that is
/// to be ended.
///
/// [`start()`]: Engine::start
/// [`arrive()`]: Engine::arrive
/// [`answered()`]: Engine::answered
/// [`pump()`]: Engine::pump
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Engine<B, const N: usize = SLOTS> {
    gate: Gate,
    closed: bool,
    owed: Owed,
    /// Callers that no flush has been sent for, or whose flush was lost.
    waiting: B,
    /// Callers of the flush that was sent last, until it is answered or a reset loses it.
    in_flight: B,
    /// Response buffers, one bit each, that the host may still write to though their flush is lost.
    missing: u32,
    /// The device was recovered at its own request, and has answered no flush since.
    recovered: bool,
    /// The device was recovered for a ring out of step, and has answered no flush since.
    resynced: bool,
    /// Callers taken and not yet reported by `completed()`.
    held: usize,
}

impl<B: Batch, const N: usize> Engine<B, N> {
    /// Makes an engine that has no queue yet: callers wait until [`Engine::start()`].
    pub fn new() -> Self {
        const { assert!(N >= 1 && N <= 32) };
        Self::default()
    }

    /// There is a queue, ready for use: callers that have waited for it are sent from now on.
    ///
    /// This also ends [`Engine::quiesce()`] when the device was not reset after all. It does
    /// nothing to a broken engine.
    pub fn start(&mut self) {
        if self.gate == Gate::Held {
            self.gate = Gate::Open;
        }
    }

    /// Takes a caller, whose own stores are visible already, or hands it back.
    pub fn arrive<C>(&mut self, caller: C) -> Result<(), (Refused, C)>
    where
        B: Join<C>,
    {
        if self.gate == Gate::Broken {
            return Err((Refused::Broken, caller));
        }
        if self.closed {
            return Err((Refused::Closed, caller));
        }
        self.waiting.join(caller);
        self.held += 1;
        Ok(())
    }

    /// Sends a flush if there is need of one and it can be sent now.
    ///
    /// `add` sets the response buffer of the given number (less than `N`) to [`UNANSWERED`],
    /// adds a request with it to the queue and notifies the host. If it reports
    /// [`NotSent::Again`], nothing must have been made available to the host.
    pub fn pump(&mut self, add: impl FnOnce(usize) -> Result<(), NotSent>) -> Pumped<B> {
        if self.gate != Gate::Open || self.owed != Owed::Nothing {
            return Pumped::Nothing;
        }
        // A recovered queue proves itself, even if nobody waits: otherwise two requests for a
        // recovery, far apart on an idle device, would look like a recovery that did not help.
        if self.waiting.is_empty() && !self.recovered && !self.resynced {
            return Pumped::Nothing;
        }
        let slot = self.missing.trailing_ones() as usize;
        if slot >= N {
            return Pumped::Broken(self.break_down());
        }
        match add(slot) {
            Ok(()) => {
                self.owed = Owed::Answer(slot);
                mem::swap(&mut self.in_flight, &mut self.waiting);
                Pumped::Sent
            }
            Err(NotSent::Again) => Pumped::Again,
            Err(NotSent::Dead) => {
                // It may have been made available before the queue was found not to work.
                self.missing |= 1 << slot;
                Pumped::Broken(self.break_down())
            }
        }
    }

    /// Returns the callers of the flush sent last, until it is answered or a reset loses it.
    pub fn in_flight(&self) -> &B {
        &self.in_flight
    }

    /// Returns whether a flush is in flight, so that a used element can be taken from the queue.
    ///
    /// A used element while there is none is for [`Engine::stray()`]; taking it from the queue
    /// would find no descriptor and break the queue.
    pub fn expects_answer(&self) -> bool {
        matches!(self.owed, Owed::Answer(_))
    }

    /// A used element was taken from the queue.
    pub fn answered(&mut self, answer: Answer) -> Answered<B> {
        let Owed::Answer(slot) = self.owed else {
            return self.stray();
        };
        let result = match answer {
            Answer::Done => Ok(()),
            Answer::Failed(failure) => Err(failure),
            // Hosts that refuse a request return it empty. While an answer is missing, it could
            // also be that one.
            Answer::Untouched(len) if len != RESPONSE_LEN && self.missing == 0 => {
                Err(Failure::Length(len))
            }
            Answer::Untouched(_) => {
                // The answer to a flush that an earlier reset lost. The one in flight is not lost
                // on the host, but its own answer can no longer be told from others.
                self.missing |= 1 << slot;
                self.owed = Owed::Stray;
                return if self.gate == Gate::Broken {
                    Answered::Ignored
                } else {
                    Answered::Stale
                };
            }
        };
        self.owed = Owed::Nothing;
        if self.gate == Gate::Broken {
            return Answered::Ignored;
        }
        self.recovered = false;
        self.resynced = false;
        Answered::Ended(mem::take(&mut self.in_flight), result)
    }

    /// The queue holds a used element, although no flush is in flight.
    pub fn stray(&mut self) -> Answered<B> {
        debug_assert!(!self.expects_answer());
        self.owed = Owed::Surplus;
        if self.gate == Gate::Broken {
            Answered::Ignored
        } else {
            Answered::Recover
        }
    }

    /// Sends nothing more until [`Engine::start()`]; callers are still taken, and wait.
    pub fn quiesce(&mut self) {
        if self.gate == Gate::Open {
            self.gate = Gate::Held;
        }
    }

    /// Returns whether the host owes no answer, so that a reset loses none; a broken engine does
    /// not wait for answers.
    pub fn is_quiet(&self) -> bool {
        self.is_broken() || matches!(self.owed, Owed::Nothing | Owed::Surplus)
    }

    /// The device was reset and its queue is gone, with the flush in flight, if there was one: its
    /// callers wait again, before all others.
    ///
    /// To be called when the host can no longer use the old queue and not yet the new one, and the
    /// old one has been looked at a last time: an answer that nobody reads takes its error with it.
    /// `is_written` tells whether the response buffer of this number (less than `N`) holds
    /// anything but [`UNANSWERED`].
    pub fn reset(&mut self, is_written: impl Fn(usize) -> bool) {
        if let Owed::Answer(slot) = self.owed {
            self.missing |= 1 << slot;
        }
        for slot in 0..N {
            if self.missing & 1 << slot != 0 && is_written(slot) {
                self.missing &= !(1 << slot);
            }
        }
        self.owed = Owed::Nothing;
        self.requeue();
        self.quiesce();
    }

    /// The device asks for a reset, or [`Answered::Recover`] did. Quiesces.
    ///
    /// The device is given up if it was recovered for the same reason before and has not answered
    /// a single flush since.
    pub fn recover(&mut self) -> Recovery<B> {
        let again = match self.owed {
            Owed::Nothing | Owed::Answer(_) => mem::replace(&mut self.recovered, true),
            Owed::Stray | Owed::Surplus => mem::replace(&mut self.resynced, true),
        };
        if again || self.gate == Gate::Broken {
            return Recovery::GiveUp(self.break_down());
        }
        self.quiesce();
        Recovery::Reset
    }

    /// The device does not work, or is gone: returns everybody, to be ended with an I/O error.
    ///
    /// From now on every caller is refused and no answer acknowledges anything. Calling it again
    /// is harmless and returns nobody.
    #[must_use = "these callers have to be ended"]
    pub fn break_down(&mut self) -> B {
        self.gate = Gate::Broken;
        self.requeue();
        mem::take(&mut self.waiting)
    }

    /// Returns whether the engine is broken.
    pub fn is_broken(&self) -> bool {
        self.gate == Gate::Broken
    }

    /// Refuses new callers; those that are here are still served.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The driver has ended `callers` more of those it got back.
    pub fn completed(&mut self, callers: usize) {
        debug_assert!(callers <= self.held);
        self.held = self.held.saturating_sub(callers);
    }

    /// Returns whether nobody is left, also not with the driver ([`Engine::completed()`]), and it
    /// [is quiet](Engine::is_quiet).
    pub fn is_idle(&self) -> bool {
        self.held == 0 && self.is_quiet()
    }

    /// Returns whether the host may still write to a response buffer, even after a reset: then
    /// their memory must not be used for anything else.
    pub fn host_may_write(&self) -> bool {
        self.missing != 0 || self.expects_answer()
    }

    /// Puts the batch in flight back, before those who wait.
    fn requeue(&mut self) {
        self.in_flight.append(&mut self.waiting);
        mem::swap(&mut self.in_flight, &mut self.waiting);
    }
}
