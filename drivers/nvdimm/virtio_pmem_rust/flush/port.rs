// SPDX-License-Identifier: GPL-2.0

//! The engine's port to the device: the virtqueue, its one request, and the callers that have
//! ended.

use crate::{
    callers::Callers,
    engine::{
        Batch,
        Dead,
        Ended,
        Failure,
        NotSent,
        Port,
        Used,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    gather::SHORTEST,
    stats::Stats,
    trace,
    watchdog::Subject, //
};
use core::mem;
use kernel::{
    alloc::kmemleak,
    block::bio::BioList,
    device,
    prelude::*,
    sync::{
        aref::ARef,
        WaitList, //
    },
    time::{
        hrtimer,
        Delta,
        Instant,
        Monotonic,
        NSEC_PER_SEC, //
    },
    uapi,
    virtio::{
        Command,
        Le32,
        Virtqueue, //
    }, //
};

/// After so many nanoseconds a request is mapped again for which there was no memory.
const RETRY: u64 = 1_000_000;

/// How often the wait for an answer is checked, in nanoseconds.
const CHECK: u64 = NSEC_PER_SEC as u64;

/// After how many seconds without an answer that is reported, if the flush is not sent again.
const SILENCE: u32 = 60;

/// A flush request, and the host's status.
pub(crate) type Request = KBox<Command<Le32, Le32>>;

/// A line for the log, printed when the lock was released.
#[derive(Clone, Copy)]
pub(super) enum Complaint {
    /// The host reports this length for a response that it has written.
    Length(u32),
    /// The host failed a flush, this often so far.
    Failed(Failure, u64),
    /// The host has not answered for a long time; whether the flush can be sent again.
    Unanswered(bool),
    /// A task that stops the device waits for this, without progress for so many seconds of the
    /// limit.
    Slow(Subject, &'static str, u32, u32),
    /// The device is unusable from now on.
    Broken(&'static str),
}

impl Complaint {
    pub(super) fn print(self, dev: &device::Device) {
        match self {
            Self::Length(len) => dev_warn!(
                dev,
                "the host reports responses of {} bytes, and writes {}\n",
                len,
                RESPONSE_LEN
            ),
            Self::Failed(failure, times) => dev_err!(
                dev,
                "the host failed a flush: {:?}, failure number {}\n",
                failure,
                times
            ),
            Self::Unanswered(true) => dev_warn!(
                dev,
                "no answer to a flush for {} s, callers wait; if the host has lost it, {} {}-{}/{}\n",
                SILENCE,
                "write the seconds after which it is sent again to debugfs:",
                "virtio_pmem_rust",
                dev.name(),
                "resend_after"
            ),
            Self::Unanswered(false) => dev_warn!(
                dev,
                "no answer to a flush for {} s, callers wait; {}\n",
                SILENCE,
                "behind an IOMMU or a bounce buffer it cannot be sent again, and an unbind fails it"
            ),
            Self::Slow(subject, what, secs, limit) => dev_warn!(
                dev,
                "{}: waiting for {}, for {} s so far, the limit is {} s\n",
                subject.name(),
                what,
                secs,
                limit
            ),
            Self::Broken(why) => dev_err!(dev, "{}: giving up on the device\n", why),
        }
    }
}

/// What follows from a change of the state, to be done when the lock was released.
#[derive(Default)]
pub(super) struct Outcome {
    done: WaitList,
    failed: WaitList,
    /// Bios without FUA, with their status.
    flush_bios: BioList,
    pub(super) complaint: Option<Complaint>,
}

impl Outcome {
    /// How many callers end by it.
    fn len(&self) -> usize {
        self.done.len() + self.failed.len() + self.flush_bios.len()
    }

    /// Wakes the callers that sleep, and completes the bios that have their status. Any context.
    pub(super) fn end(mut self) {
        self.done.complete_all(Ok(()));
        self.failed.complete_all(Err(EIO));
        self.flush_bios.complete_all(Ok(()));
    }

    /// Keeps the last complaint, or the one that the device has broken.
    pub(super) fn complain(&mut self, complaint: Complaint) {
        if !matches!(self.complaint, Some(Complaint::Broken(_))) {
            self.complaint = Some(complaint);
        }
    }
}

/// The engine's port to the device.
pub(super) struct DevicePort {
    pub(super) dev: ARef<device::Device>,
    /// [`None`] while the device is suspended or reset.
    pub(super) queue: Option<Virtqueue<Request>>,
    /// [`None`] while it is in the queue, and after it was given up (R4).
    request: Option<Request>,
    pub(super) outcome: Outcome,
    /// Bios with FUA whose flush has ended, with their status, for the work item to complete.
    pub(super) fua_bios: BioList,
    /// A wrong used length was reported in the log.
    length_reported: bool,
    /// The wait for the answer to the flush in flight was reported.
    silence_reported: bool,
    /// The driver's patience in seconds, or 0 if it has no end.
    pub(super) resend_after: u32,
    /// Counts answers, to distinguish a slow host from one that hangs.
    pub(super) answers: u64,
    /// `stats.flushes` is also the number of the batch in flight.
    pub(super) stats: Stats,
    /// When the flush in flight was sent.
    sent: Instant<Monotonic>,
    /// The beginning of the engine's time.
    born: Instant<Monotonic>,
}

impl DevicePort {
    pub(super) fn new(dev: ARef<device::Device>) -> Self {
        Self {
            dev,
            queue: None,
            request: None,
            outcome: Outcome::default(),
            fua_bios: BioList::new(),
            length_reported: false,
            silence_reported: false,
            resend_after: 0,
            answers: 0,
            stats: Stats::default(),
            sent: Instant::now(),
            born: Instant::now(),
        }
    }

    /// Allocates a request. May sleep.
    pub(super) fn new_request() -> Result<Request> {
        let command = Command::new(
            Le32::new(uapi::VIRTIO_PMEM_REQ_TYPE_FLUSH),
            Le32::new(UNANSWERED),
        );
        let request = KBox::new(command, GFP_KERNEL)?;

        // Its memory may have to be given up while it is in the queue (R4).
        kmemleak::not_leak(&request);
        Ok(request)
    }

    /// Whether the next queue needs a new request.
    pub(super) fn has_no_request(&self) -> bool {
        self.request.is_none()
    }

    pub(super) fn set_request(&mut self, request: Request) {
        self.request = Some(request);
    }

    /// Whether the work item has something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.fua_bios.is_empty()
    }

    /// Returns what is to be done without the lock, and how many callers end by it.
    pub(super) fn take_outcome(&mut self) -> (Outcome, usize) {
        let outcome = mem::take(&mut self.outcome);
        let ended = outcome.len();

        (outcome, ended)
    }

    /// Returns a time of the engine as one of the kernel.
    pub(super) fn instant(&self, time: u64) -> Instant<Monotonic> {
        self.born + Delta::from_nanos(time as i64)
    }

    /// Records an answer.
    fn answered(&mut self, used: Used) {
        if cfg!(CONFIG_DEBUG_FS) {
            self.stats.answered(self.sent.elapsed());
        }
        trace::answer(&self.dev, self.stats.flushes, used.len, used.value);
        self.answers = self.answers.wrapping_add(1);
        if used.len != RESPONSE_LEN && used.value != UNANSWERED && !self.length_reported {
            self.length_reported = true;
            self.outcome.complain(Complaint::Length(used.len));
        }
    }

    /// Takes back the request from a queue that was closed, and returns its answer if that was not
    /// read: it has the length of its used element, or else was found in the response.
    pub(super) fn take_back(&mut self, request: Request, len: Option<u32>) -> Option<Used> {
        let value = request.response().get();
        let used = (len.is_some() || value != UNANSWERED).then_some(Used {
            len: len.unwrap_or(RESPONSE_LEN),
            value,
        });

        self.request = Some(request);
        used.inspect(|used| self.answered(*used))
    }
}

impl Port<Callers> for DevicePort {
    fn add(&mut self, callers: &Callers) -> Result<bool, NotSent> {
        let queue = self.queue.as_mut().ok_or(NotSent::Dead)?;
        let mut request = self.request.take().ok_or(NotSent::Dead)?;

        request.set_response(Le32::new(UNANSWERED));
        if let Err((err, request)) = queue.add(request) {
            self.request = Some(request);
            // A mapping has failed; the next one may succeed.
            return if err == ENOMEM {
                Err(NotSent::Again(self.now() + RETRY))
            } else {
                Err(NotSent::Dead)
            };
        }

        let notify = queue.kick_prepare();

        self.silence_reported = false;
        self.stats.sent(callers.len());
        if cfg!(CONFIG_DEBUG_FS) {
            self.sent = Instant::now();
        }
        trace::send(&self.dev, self.stats.flushes, callers.len());
        Ok(notify)
    }

    fn take(&mut self) -> Result<Option<Used>, Dead> {
        // This is a late callback of a queue that is being closed.
        let Some(queue) = self.queue.as_mut() else {
            return Ok(None);
        };
        let Some((request, len)) = queue.get() else {
            return if queue.is_broken() {
                Err(Dead)
            } else {
                Ok(None)
            };
        };
        let used = Used {
            len,
            value: request.response().get(),
        };

        self.request = Some(request);
        self.answered(used);
        Ok(Some(used))
    }

    fn rearm(&mut self) -> bool {
        self.queue
            .as_mut()
            .is_some_and(|queue| !queue.enable_callback())
    }

    fn give_up_request(&mut self) {
        self.stats.lost += 1;
        if let Some(request) = self.request.take() {
            kmemleak::leak(request);
        }
    }

    fn now(&mut self) -> u64 {
        self.born.elapsed().as_nanos().max(0) as u64
    }

    fn is_timer_precise(&self) -> bool {
        hrtimer::resolution() <= Delta::from_nanos(SHORTEST as i64)
    }

    fn check_after(&self) -> Option<u64> {
        Some(CHECK)
    }

    fn unanswered(&mut self, waited: u64) -> Option<u64> {
        let is_mapped = self.queue.as_ref().is_some_and(Virtqueue::is_mapped);
        let is_silent = waited >= u64::from(SILENCE) * CHECK;

        if is_silent && (is_mapped || self.resend_after == 0) && !self.silence_reported {
            self.silence_reported = true;
            self.outcome.complain(Complaint::Unanswered(!is_mapped));
        }
        (self.resend_after > 0).then_some(u64::from(self.resend_after) * CHECK)
    }

    fn gathered(&mut self, callers: usize, expected: usize) {
        trace::gather(&self.dev, self.stats.flushes + 1, callers, expected);
    }

    fn end(&mut self, mut callers: Callers, how: Ended) {
        let result = match how {
            Ended::Done => Ok(()),
            Ended::Failed(_) | Ended::Broken => Err(EIO),
        };

        trace::complete(&self.dev, self.stats.flushes, callers.len(), result);
        if let Ended::Failed(failure) = how {
            self.stats.errors += 1;
            if self.stats.errors.is_power_of_two() {
                let complaint = Complaint::Failed(failure, self.stats.errors);

                self.outcome.complain(complaint);
            }
        }

        if let Err(err) = result {
            callers.fua_bios.set_error(err);
            callers.flush_bios.set_error(err);
            self.outcome.failed.append(&mut callers.waiters);
        } else {
            self.outcome.done.append(&mut callers.waiters);
        }
        self.fua_bios.append(&mut callers.fua_bios);
        self.outcome.flush_bios.append(&mut callers.flush_bios);
    }

    fn broke(&mut self, why: &'static str) {
        self.outcome.complain(Complaint::Broken(why));
    }
}
