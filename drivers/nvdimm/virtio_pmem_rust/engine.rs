// SPDX-License-Identifier: GPL-2.0

// The flush engine: turns callers that want their stores durable into flush requests to the host.
//
// At most one host flush is in flight. The callers that arrive meanwhile share the next one. So
// there are two batches: the callers of the flush in flight, and those that wait for the next
// flush.
//
// This is a state machine and nothing else: no lock, no allocation, no kernel type, and every
// function takes constant time. The driver keeps it, together with the virtqueue, under one lock
// that is taken with interrupts off. What the engine needs of the driver is the trait `Port`. The
// same file is compiled by KUnit and, on the build host, by a model checker (tests/model), which
// has a port to a simulated virtqueue. So the loop that empties the ring is here, too, and not in
// the driver. The file needs `core` alone and has no inner attributes; its tests live in the crates
// that include it.
//
// The life of an engine:
//
//     new -> start -> (arrive, pump | drain)*
//         -> quiesce -> reset -> start -> ...                       suspend, function reset
//         -> recover -> reset -> start -> ...                       the device asks for a reset,
//                                                                   or does not answer
//         -> close -> quiesce -> reset -> break_down                removal
//
// # Rules
//
// R1. A caller is acknowledged only by a flush that was made available after the caller arrived.
//
// R2. At most one flush is in flight, and none is sent without a caller (but see R8).
//
// R3. The place of a used element does not prove which flush it answers. A reset does not stop a
//     host that is in the middle of a flush: QEMU puts that answer into the queue that replaced the
//     one in which the flush was sent, under the same descriptor id. Such a late answer must not
//     acknowledge the flush that is in flight now. The difference is the memory to which the answer
//     is written: each flush is posted with its response set to `UNANSWERED`, which no host sends.
//     A used element that leaves this value in place answers another flush.
//
// R4. A request whose response the host may still write is given up: it is not posted again, and
//     its memory is used for nothing else. Otherwise the host could answer a flush by the result
//     of an earlier one.
//
// R5. A late answer uses up the descriptor of the flush in flight. The answer to that flush then
//     finds no descriptor, or that of its successor: the ring is one answer ahead of the host. To
//     send the flush again into this ring would only move the mistake to the next batch. So the
//     engine stops sending, waits for the surplus answer, and asks for a reset. The callers keep
//     waiting.
//
// R6. While nothing is in flight, the ring holds no used element, and the host interrupts for the
//     next one. So the engine asks for an interrupt and checks the ring at three times. When it
//     takes the last answer: a host with EVENT_IDX gives no interrupt for a surplus answer that it
//     adds before the driver has taken the answer before. When it starts: an interrupt may have
//     come before the driver had the queue. Before it sends: what is found then ends in a reset
//     anyway, and in a packed ring the descriptors of a request would overwrite it.
//
// R7. Where responses are mapped (an IOMMU, a bounce buffer), the ring unmaps a response when its
//     descriptor is taken, also by a late answer. The host would then write to memory that may have
//     another use by now. So a flush that is lost there stays mapped, for good, and the engine
//     breaks. R3 does not suffice there, because mapping may discard the stored value: an answer
//     has to report its length.
//
// R8. A reset at the device's request that is followed by another one, without an answered flush
//     between them, did not help: the engine breaks. A recovered queue gets a flush even if there
//     is no caller, to prove that it works.
//
// R9. In a packed ring a used element and the descriptors of a request share memory. A late answer
//     can overwrite a request that the host has not read yet, and then both sides wait. So when a
//     flush was lost, the driver negotiates a split ring.
//
// R10. When a flush has succeeded, the next one may be held back for the callers that were just
//      answered: until as many callers wait as were here at that moment, or until a deadline. A
//      caller that was alone then waits for no other.
//
// R11. The policy (gather.rs) sets the deadline when the flush is answered, and nothing moves it.
//      No flush is held back for more than half of the host's mean service time, nor for more than
//      `LONGEST`, nor with a timer that expires only at ticks. The clock is read only where there
//      is more than one caller, or was when the last flush succeeded, and the timer runs only while
//      a caller waits (apart from R14).
//
// R12. A gathering ends at once when the engine pauses (quiesce, reset, recovery, shutdown), closes
//      or breaks, and when gathering is switched off. None begins then, or when a flush has failed.
//
// R13. A read-only engine takes no caller and sends no flush, also not that of R8. So the second
//      reset at the device's request, or because of its ring, is one too many.
//
// R14. While an answer is to come, the engine wakes regularly, and reports how long the answer has
//      been waited for. If the driver's patience is over, the device is recovered and the flush
//      sent again, because a flush may be sent twice: R3 to R5 tell its late answer from that of
//      its successor. Each recovery without an answer in between doubles the patience. Where
//      responses are mapped there is none, because a recovery would break the engine (R7).
//
// R15. A host that was only slow answers all the flushes that were sent again, and each pair of
//      late answers costs a recovery of the ring. So after N recoveries by R14, R8 allows N more of
//      them.
//
// # Why one flush in flight
//
// Two in flight, the second if at least half as many callers wait as are in flight, help only a
// host that works on them in parallel. Callers/s and mean latency in ms, simulated:
//
//     load                host fsync  one          two          two, serial  one, gathering
//     64 closed           10.3 ms     3106  20.2   4112  15.3   2067  30.6   5720  10.7
//     16 closed            2.3 ms     3490  4.40   4562  3.38   2314  6.78   6179  2.40
//     2 closed             2.3 ms      434  4.54    847  2.30    433  4.55    713  2.73
//     64, away 20 ms      10.3 ms      715  17.9    738  17.0    665  26.2    718  18.0
//     open, 20 a flush     2.3 ms     8622  3.46   8656  2.91   8641  5.76   8695  3.50
//
// What is left to gain on top of gathering, on a parallel host: a sixth of an open load's latency,
// and of the latency of two callers. Firecracker, Cloud Hypervisor, crosvm and OpenVMM flush
// serially, and there it costs two thirds. The service time of two flushes at once would tell these
// hosts apart, but measuring that needs the second request, and with two of them a used element
// does not show which flush it answers: R3 to R5 rest on R2.

use super::gather::{
    Learned,
    Policy, //
};
use core::mem;

/// The value of a response that has no answer (R3).
///
/// Hosts send 0 for success and 1 (QEMU, Cloud Hypervisor) or -1 (the specification, Firecracker)
/// for failure. This is neither, nor a negative errno, and none of its bytes is 0: a response that
/// was written in part is no success.
pub const UNANSWERED: u32 = 0x7e57_a1e5;

/// The length of a response, which hosts report as used.
pub const RESPONSE_LEN: u32 = 4;

/// Callers in order of arrival.
///
/// The engine only moves whole batches, which must take constant time. A batch is a set of
/// intrusive lists in the driver, and a vector in tests.
pub trait Batch: Default {
    /// Returns how many callers there are.
    fn len(&self) -> usize;

    /// Returns whether there is no caller.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all of `later` behind the callers that are here, and leaves `later` empty.
    fn append(&mut self, later: &mut Self);
}

/// A batch that takes a caller of type `C`.
pub trait Join<C>: Batch {
    /// Adds `caller` as the last one.
    fn join(&mut self, caller: C);
}

/// What the engine needs of the driver. All calls are made under the driver's lock.
pub trait Port<B> {
    /// Sets the response to [`UNANSWERED`] (R3) and adds the request to the queue, for `batch`.
    /// Returns whether the host is to be notified of it.
    fn add(&mut self, batch: &B) -> Result<bool, NotSent>;

    /// Takes the request back from the queue, if there is a used element. Called only while the
    /// request is in the queue: the ring breaks when an element without a descriptor is taken.
    fn take(&mut self) -> Result<Option<Used>, Dead>;

    /// Asks the host to interrupt for the next used element (R6). Returns whether there is one
    /// already.
    fn rearm(&mut self) -> bool;

    /// Gives the request up (R4). If it is in the queue, it stays there.
    fn give_up_request(&mut self);

    /// Returns the time in nanoseconds, from any fixed beginning (R11).
    fn now(&mut self) -> u64;

    /// Returns whether the driver's timer expires at the time for which it is started, and not only
    /// at a later tick.
    fn is_timer_precise(&self) -> bool;

    /// Returns after how long without an answer the engine is to wake, again and again (R14).
    fn check_after(&self) -> Option<u64>;

    /// The answer to the flush in flight has been waited for so long, or a little longer. Returns
    /// the driver's patience (R14).
    fn unanswered(&mut self, waited: u64) -> Option<u64>;

    /// A flush is held back no longer: there are so many of the callers that were `expected` (R10).
    fn gathered(&mut self, callers: usize, expected: usize);

    /// Ends these callers.
    fn end(&mut self, batch: B, how: Ended);

    /// Reports that the engine has broken, and why. Called once, before the callers end.
    fn broke(&mut self, why: &'static str);
}

/// A used element, taken from the queue with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Used {
    /// The length that the host reports.
    pub len: u32,
    /// What the response holds, in CPU byte order.
    pub value: u32,
}

/// The queue does not work any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dead;

/// Why a flush could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// For want of memory or of space for a mapping. Nothing was made available to the host, and
    /// it is to be tried again at this time.
    Again(u64),
    /// The queue does not work.
    Dead,
}

/// What the driver is to do with its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// It is to expire at this time, and at no other.
    Start(u64),
    /// It is not to expire.
    Stop,
}

/// How callers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Their stores are durable.
    Done,
    /// Their stores may not be: the host failed the flush.
    Failed(Failure),
    /// Their stores may not be: the engine broke.
    Broken,
}

/// Why a flush failed, although the host answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The host's status, which is not zero.
    Status(u32),
    /// The response was not written, or not in full: the host reports this length.
    Length(u32),
}

/// Why a caller was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The device is broken.
    Broken,
    /// The device is removed in good order: not worth a message.
    Closed,
    /// The device is read-only: no store can have happened.
    ReadOnly,
}

/// How the host reaches the responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Responses {
    /// At their guest physical address.
    #[default]
    Direct,
    /// Through a mapping that lasts only as long as the request is in the queue (R7).
    Mapped,
}

/// Whether flushes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Sending {
    /// Not now: callers wait.
    #[default]
    Paused,
    /// Yes.
    Running,
    /// Never again: callers are refused.
    Broken,
}

/// Whether the device stays in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Use {
    #[default]
    Serving,
    /// The machine goes down: callers wait.
    ShutDown,
    /// The driver is removed: callers are refused.
    Closed,
}

/// The state of the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Ring {
    /// It has no request, and no used element was found in it.
    #[default]
    Idle,
    /// It has the request of the flush in flight.
    InFlight,
    /// A late answer has used up the descriptor of the flush in flight, which the host has still to
    /// answer (R5).
    LostDescriptor,
    /// It has a used element without a descriptor: the surplus answer of R5.
    OutOfStep,
}

/// A flush that is held back (R10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gathering {
    /// Until so many callers wait.
    callers: usize,
    /// And until then at most.
    until: u64,
    /// The driver wakes the engine then.
    armed: bool,
}

/// The wait for an answer (R14).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Vigil {
    /// When the engine wakes for it. Earlier than needed if another flush was sent meanwhile: the
    /// timer is not started for each flush.
    check: Option<u64>,
    /// When a check found the flush in flight first.
    since: Option<u64>,
    /// The driver's patience is over.
    over: bool,
    /// How often that has led to a recovery since the last answer.
    recoveries: u32,
}

/// How often the patience is doubled at most (R14).
const DOUBLINGS: u32 = 6;

/// The state machine; see the top of this file.
///
/// After [`resume()`], [`arrive()`], [`close()`] and [`set_gathering()`] the driver calls
/// [`pump()`], under the same lock, and after each call [`take_notify()`] and [`take_timer()`].
/// Each caller that was taken is returned exactly once, by [`Port::end()`].
///
/// [`set_gathering()`]: Engine::set_gathering
/// [`take_notify()`]: Engine::take_notify
/// [`take_timer()`]: Engine::take_timer
/// [`resume()`]: Engine::resume
/// [`arrive()`]: Engine::arrive
/// [`close()`]: Engine::close
/// [`pump()`]: Engine::pump
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Engine<B, P = Learned> {
    sending: Sending,
    usage: Use,
    ring: Ring,
    responses: Responses,
    /// Callers for which no flush was sent, or whose flush was lost.
    waiting: B,
    /// Callers of the flush that was sent last, until it is answered or a reset loses it.
    in_flight: B,
    /// A flush was lost to a reset or a late answer, and the host may still answer it.
    lost: bool,
    /// The host is to be notified of the request in the ring.
    notify: bool,
    /// The device is read-only (R13).
    read_only: bool,
    /// Gathering is switched on.
    gathers: bool,
    policy: P,
    gathering: Option<Gathering>,
    /// When to send the flush that could not be sent for want of memory.
    retry: Option<u64>,
    /// When the driver's timer expires.
    timer: Option<u64>,
    /// How many callers there were when the last flush succeeded, its own included.
    crowd: usize,
    /// The device was recovered at its own request, and has answered no flush since.
    recovered: bool,
    /// How often the device was recovered because of its ring since it answered a flush.
    resyncs: u32,
    vigil: Vigil,
    /// Callers taken and not yet reported by `completed()`.
    callers: usize,
}

impl<B: Batch, P: Policy> Engine<B, P> {
    /// Makes an engine that has no queue yet: callers wait until [`Engine::start()`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to use a queue: a flush is sent for the callers that have waited for it.
    ///
    /// The ring may be [out of step](Engine::is_out_of_step) already.
    pub fn start(&mut self, responses: Responses, port: &mut impl Port<B>) {
        self.responses = responses;
        self.resume();
        self.find_surplus(port);
        self.pump(port);
    }

    /// Ends [`Engine::quiesce()`] when the device was not reset after all. An engine that is broken
    /// or shut down stays as it is.
    pub fn resume(&mut self) {
        if self.sending == Sending::Paused && self.usage != Use::ShutDown {
            self.sending = Sending::Running;
        }
    }

    /// Takes a caller, whose own stores are visible already, or returns it.
    pub fn arrive<C>(&mut self, caller: C) -> Result<(), (Refused, C)>
    where
        B: Join<C>,
    {
        if self.is_broken() {
            return Err((Refused::Broken, caller));
        }
        if self.usage == Use::Closed {
            return Err((Refused::Closed, caller));
        }
        if self.read_only {
            return Err((Refused::ReadOnly, caller));
        }
        self.waiting.join(caller);
        self.callers += 1;
        Ok(())
    }

    /// Sends a flush if one is needed and can be sent now.
    pub fn pump(&mut self, port: &mut impl Port<B>) {
        if self.gathers {
            let callers = self.in_flight.len() + self.waiting.len();

            self.policy.present(callers, || port.now());
        }
        // R2, R5.
        if self.sending != Sending::Running || self.ring != Ring::Idle {
            return;
        }
        // R2, R8, R13.
        let proves = (self.recovered || self.resyncs > 0) && !self.read_only;

        if self.waiting.is_empty() && !proves {
            return;
        }
        if self.holds(port) {
            return;
        }
        // If there is an element, its interrupt lets the driver recover the device (R6).
        if self.find_surplus(port) {
            return;
        }
        match port.add(&self.waiting) {
            Ok(notify) => {
                self.ring = Ring::InFlight;
                self.notify = notify;
                self.retry = None;
                self.vigil.since = None;
                if self.vigil.check.is_none() {
                    self.vigil.check = port.check_after().map(|time| port.now() + time);
                }
                // R11.
                let is_timed = self.gathers && self.crowd.max(self.waiting.len()) > 1;

                self.policy.sent(is_timed.then(|| port.now()));
                // Later callers wait for the next flush (R1).
                mem::swap(&mut self.in_flight, &mut self.waiting);
            }
            Err(NotSent::Again(time)) => self.retry = Some(time),
            Err(NotSent::Dead) => self.fail("no flush can be sent", port),
        }
    }

    /// The queue's callback: takes the answers that are there, and sends the next flush.
    pub fn drain(&mut self, port: &mut impl Port<B>) {
        while self.ring == Ring::InFlight {
            match port.take() {
                Ok(Some(used)) => {
                    self.answered(used, port);
                    self.pump(port);
                }
                // `take()` has checked the ring since the last answer was taken (R6).
                Ok(None) => return,
                Err(Dead) => return self.fail("the queue is broken", port),
            }
        }
        self.find_surplus(port);
    }

    /// While nothing is in flight: asks for an interrupt for the next used element, and returns
    /// whether there is one already (R6). It may be the surplus answer of R5.
    fn find_surplus(&mut self, port: &mut impl Port<B>) -> bool {
        if matches!(self.ring, Ring::Idle | Ring::LostDescriptor) && port.rearm() {
            self.ring = Ring::OutOfStep;
        }
        self.ring == Ring::OutOfStep
    }

    /// Returns whether the host is to be notified of a request. The driver does that when it has
    /// released the lock.
    pub fn take_notify(&mut self) -> bool {
        mem::take(&mut self.notify)
    }

    /// Returns whether the flush for the callers that wait is held back for others (R10).
    fn holds(&mut self, port: &mut impl Port<B>) -> bool {
        let Some(gathering) = &mut self.gathering else {
            return false;
        };

        if self.waiting.len() < gathering.callers {
            if gathering.armed {
                return true;
            }
            // The first caller. The deadline may have passed, because there was no timer for it.
            if port.now() < gathering.until {
                gathering.armed = true;
                return true;
            }
        }
        self.end_gathering(port);
        false
    }

    /// The callers are here, or the deadline has passed.
    fn end_gathering(&mut self, port: &mut impl Port<B>) {
        if let Some(gathering) = self.gathering.take() {
            // If there was no timer, no caller has waited.
            if gathering.armed {
                self.policy.gathered(port.now(), self.waiting.len());
                port.gathered(self.waiting.len(), gathering.callers);
            }
        }
    }

    /// Begins to gather after a flush for `answered` callers has succeeded, if that pays (R10).
    fn gather(&mut self, answered: usize, port: &mut impl Port<B>) {
        let waiting = self.waiting.len();

        self.crowd = answered + waiting;
        // R11, R12.
        if !self.gathers || self.crowd <= 1 || self.is_ending() || !port.is_timer_precise() {
            return;
        }
        let now = port.now();
        let time = self.policy.answered(now, answered, waiting);

        if time > 0 && self.sending == Sending::Running {
            self.gathering = Some(Gathering {
                callers: self.crowd,
                until: now.saturating_add(time),
                armed: waiting > 0,
            });
        }
    }

    /// The driver's timer has expired. That may also be a timer that was stopped or started again
    /// just before.
    pub fn wake(&mut self, port: &mut impl Port<B>) {
        self.timer = None;
        let Some(deadline) = self.deadline() else {
            return;
        };

        let now = port.now();

        if now < deadline {
            return;
        }
        if self.holding().is_some() {
            self.retry = None;
            self.end_gathering(port);
            self.pump(port);
        } else {
            self.check(now, port);
        }
    }

    /// Checks how long an answer has been waited for (R14).
    fn check(&mut self, now: u64, port: &mut impl Port<B>) {
        self.vigil.check = None;
        if self.is_quiet() {
            return;
        }
        self.vigil.check = port.check_after().map(|time| now + time);

        let since = *self.vigil.since.get_or_insert(now);
        let waited = now.saturating_sub(since);
        let patience = port.unanswered(waited);
        // A suspend or a removal has a limit of its own.
        let can_recover = self.sending == Sending::Running && self.responses == Responses::Direct;

        if let Some(patience) = patience.filter(|_| can_recover) {
            let doublings = self.vigil.recoveries.min(DOUBLINGS);

            self.vigil.over = waited >= patience.saturating_mul(1 << doublings);
        }
    }

    /// Returns when [`Engine::wake()`] is to be called, if at all.
    fn deadline(&self) -> Option<u64> {
        self.holding().or(self.vigil.check)
    }

    /// Returns when a flush is to be sent that waits for more callers or for memory. A flush that
    /// could not be sent is not held back.
    fn holding(&self) -> Option<u64> {
        let armed = self.gathering.filter(|gathering| gathering.armed);

        self.retry.or(armed.map(|gathering| gathering.until))
    }

    /// Returns what the driver is to do with its timer, under the same lock.
    pub fn take_timer(&mut self) -> Option<Timer> {
        let deadline = self.deadline();

        if deadline == self.timer {
            return None;
        }
        self.timer = deadline;
        Some(deadline.map_or(Timer::Stop, Timer::Start))
    }

    /// Switches gathering on or off.
    pub fn set_gathering(&mut self, gathers: bool) {
        self.gathers = gathers;
        self.gathering = None;
        self.policy.forget();
    }

    /// Returns whether gathering is switched on.
    pub fn gathers(&self) -> bool {
        self.gathers
    }

    /// Returns the policy, with its statistics.
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// The request of the flush in flight was taken from the queue.
    fn answered(&mut self, used: Used, port: &mut impl Port<B>) {
        // R3, R7.
        let is_written = used.value != UNANSWERED
            && (self.responses == Responses::Direct || used.len >= RESPONSE_LEN);

        let how = if !is_written && (used.len == RESPONSE_LEN || self.lost) {
            return self.late(port);
        } else if !is_written {
            // Hosts return a request that they refuse with an empty response.
            Ended::Failed(Failure::Length(used.len))
        } else if used.value != 0 {
            Ended::Failed(Failure::Status(used.value))
        } else {
            Ended::Done
        };

        self.ring = Ring::Idle;
        // A host that polls has found the request. For some hosts a notification without a request
        // is an error.
        self.notify = false;
        if self.is_broken() {
            return;
        }
        self.recovered = false;
        self.resyncs = 0;
        self.vigil.over = false;
        self.vigil.recoveries = 0;
        let batch = mem::take(&mut self.in_flight);
        let callers = batch.len();

        port.end(batch, how);
        if how == Ended::Done {
            self.gather(callers, port);
        }
    }

    /// The used element was that of a lost flush; the host still works on the flush in flight (R5).
    fn late(&mut self, port: &mut impl Port<B>) {
        self.ring = Ring::LostDescriptor;
        // The host answers, so the surplus answer has its own time.
        self.vigil.over = false;
        self.vigil.since = None;
        self.lose(port);
    }

    /// The host may still write the response of the flush in flight, and the driver cannot wait
    /// (R4, R7).
    fn lose(&mut self, port: &mut impl Port<B>) {
        self.lost = true;
        port.give_up_request();
        if self.responses == Responses::Mapped {
            self.fail("a flush was lost behind an IOMMU or a bounce buffer", port);
        }
    }

    /// Makes the engine read-only (R13), before it is started.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    /// Returns whether the engine is read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns whether a new caller would be served.
    pub fn takes_callers(&self) -> bool {
        !self.is_broken() && !self.read_only
    }

    /// Returns how the host reaches the response of the flush in flight.
    pub fn responses(&self) -> Responses {
        self.responses
    }

    /// Returns whether a flush was lost, so that a late answer may come (R9).
    pub fn has_lost(&self) -> bool {
        self.lost
    }

    /// Returns whether a flush is in flight.
    pub fn expects_answer(&self) -> bool {
        self.ring == Ring::InFlight
    }

    /// Returns whether the ring has a surplus answer, so that the device has to be recovered (R5).
    pub fn is_out_of_step(&self) -> bool {
        self.ring == Ring::OutOfStep
    }

    /// Returns whether the answer has been waited for too long, so that the device has to be
    /// recovered (R14).
    pub fn is_overdue(&self) -> bool {
        self.vigil.over
    }

    /// Sends nothing more until [`Engine::start()`]; callers are still taken, and wait.
    pub fn quiesce(&mut self) {
        if self.sending == Sending::Running {
            self.sending = Sending::Paused;
        }
        self.gathering = None;
        self.retry = None;
    }

    /// Returns whether no answer is to come, so that a reset loses none. A broken engine does not
    /// wait for answers.
    pub fn is_quiet(&self) -> bool {
        self.is_broken() || matches!(self.ring, Ring::Idle | Ring::OutOfStep)
    }

    /// The device was reset and its queue is gone. The flush in flight, if there is one, is lost:
    /// its callers wait again, before all others.
    ///
    /// To be called when the host can no longer use the old queue and not yet the new one.
    /// `unread` is the answer to the flush in flight, if the old queue had it: a host reports an
    /// error once.
    pub fn reset(&mut self, unread: Option<Used>, port: &mut impl Port<B>) {
        if self.ring == Ring::InFlight {
            match unread {
                Some(used) => self.answered(used, port),
                None => self.lose(port),
            }
        }
        self.ring = Ring::Idle;
        self.notify = false;
        self.vigil.over = false;
        self.requeue();
        self.quiesce();
    }

    /// The device asks for a reset, its ring is out of step, or an answer is overdue. Returns
    /// whether the driver is to reset it, call [`Engine::reset()`], make a new queue, and call
    /// [`Engine::start()`].
    ///
    /// The engine breaks if the device was recovered for the same reason before (R8), unless that
    /// was an overdue answer (R14).
    pub fn recover(&mut self, port: &mut impl Port<B>) -> bool {
        if self.is_broken() {
            return false;
        }
        let again = match self.ring {
            _ if self.is_overdue() => {
                self.vigil.recoveries = self.vigil.recoveries.saturating_add(1);
                false
            }
            Ring::Idle | Ring::InFlight => mem::replace(&mut self.recovered, true),
            // R15.
            Ring::LostDescriptor | Ring::OutOfStep => {
                self.resyncs = self.resyncs.saturating_add(1);
                self.resyncs > self.vigil.recoveries.saturating_add(1)
            }
        };
        if again {
            self.fail("a reset did not help", port);
            return false;
        }
        self.quiesce();
        true
    }

    /// Ends all callers with an I/O error: the device does not work, or is gone.
    ///
    /// From now on each caller is refused and no answer acknowledges anything. A second call does
    /// nothing.
    pub fn fail(&mut self, why: &'static str, port: &mut impl Port<B>) {
        if !self.is_broken() {
            port.broke(why);
            self.break_down(port);
        }
    }

    /// As [`Engine::fail()`], at the end of an orderly removal, which is no fault.
    pub fn break_down(&mut self, port: &mut impl Port<B>) {
        self.sending = Sending::Broken;
        self.gathering = None;
        self.retry = None;
        self.requeue();
        if !self.waiting.is_empty() {
            port.end(mem::take(&mut self.waiting), Ended::Broken);
        }
    }

    /// Returns whether the engine is broken.
    pub fn is_broken(&self) -> bool {
        self.sending == Sending::Broken
    }

    /// Sends nothing any more, because the machine goes down; callers wait.
    pub fn shut_down(&mut self) {
        self.quiesce();
        self.usage = Use::ShutDown;
    }

    /// Refuses new callers; those that are here are still served.
    pub fn close(&mut self) {
        self.usage = Use::Closed;
        self.gathering = None;
    }

    /// Returns whether [`Engine::shut_down()`] or [`Engine::close()`] was called.
    pub fn is_ending(&self) -> bool {
        self.usage != Use::Serving
    }

    /// Subtracts callers that were returned by [`Port::end()`] and that the driver has completed or
    /// is about to complete.
    pub fn completed(&mut self, callers: usize) {
        debug_assert!(callers <= self.callers);
        self.callers = self.callers.saturating_sub(callers);
    }

    /// Returns whether all callers have been [completed](Engine::completed), and the engine
    /// [is quiet](Engine::is_quiet).
    pub fn is_idle(&self) -> bool {
        self.callers == 0 && self.is_quiet()
    }

    /// Puts the batch in flight back, before the callers that wait.
    fn requeue(&mut self) {
        self.in_flight.append(&mut self.waiting);
        mem::swap(&mut self.in_flight, &mut self.waiting);
    }
}
