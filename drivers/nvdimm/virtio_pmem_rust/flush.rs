// SPDX-License-Identifier: GPL-2.0

//! The flush path: the engine with its lock, its virtqueue and its callers.
//!
//! Two kinds of callers come from libnvdimm ([`RegionProvider`]): those that sleep until their
//! stores are durable, and those that leave a bio to be completed then. Both join the engine's next
//! batch under the one lock, which also protects the virtqueue. Whoever finds nothing in flight
//! sends the flush itself; the queue's callback ends the batch that was answered and sends the next
//! one at once. Sleepers are woken there, and bios that are nothing but a flush are completed, as
//! somebody sleeps behind them, too. Bios with FUA are completed in order by a work item on the
//! device's ordered queue, which can make progress under memory pressure: what follows on their
//! data can be a lot. Nothing is allocated on the way.

mod faults;

use crate::{
    callers::{
        Callers,
        Sleeper, //
    },
    engine::{
        Answer,
        Answered,
        Engine,
        Failure,
        NotSent,
        Pumped,
        Recovery,
        Refused,
        RESPONSE_LEN,
        SLOTS,
        UNANSWERED, //
    },
    stats::Stats,
    trace, //
};
use core::mem;
use faults::Faults;
use kernel::{
    alloc::abandon::abandon,
    block::bio::BioList,
    device, new_condvar, new_spinlock_irq,
    nvdimm::{
        self,
        BioOffer,
        BioOutcome,
        RegionProvider, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        CondVar,
        SpinLockIrq,
        WaitList, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    },
    uapi,
    virtio::{
        Command,
        Le32,
        Virtqueue, //
    },
    workqueue::{
        new_embedded_work,
        Embedded,
        EmbeddedWork,
        OrderedQueue, //
    },
};

/// A flush request, and the host's status.
pub(crate) type Request = KBox<Command<Le32, Le32>>;

/// What the lock protects. The lock is innermost: it is taken in the queue's callback, where the
/// transport may hold a lock of its own.
struct State {
    /// For trace events.
    dev: ARef<device::Device>,
    engine: Engine<Callers>,
    /// [`None`] while the device is suspended or reset.
    queue: Option<Virtqueue<Request>>,
    /// The requests that are not in the queue, by the engine's numbers.
    requests: [Option<Request>; SLOTS],
    /// The number of the request that is in the queue, or was last.
    posted: usize,
    /// Bios whose flush has ended, with their status, for the work item to complete.
    finished: BioList,
    /// The same, for whoever has the lock to complete when it is released.
    flushed: BioList,
    /// The ring is out of step with the host: the device has to be recovered.
    out_of_step: bool,
    /// The device is on its way out, and not worth a recovery.
    closed: bool,
    /// Memory ran short: the work item is to send the flush.
    starved: bool,
    /// Counts answers, so that a host can be told from a hung one.
    answers: u64,
    /// What `answers` was when the watchdog last looked.
    checked: u64,
    /// How often in a row it saw somebody wait and no answer.
    silent: u32,
    /// The number of `stats.flushes` is that of the batch in flight.
    stats: Stats,
    /// When the flush in flight was sent.
    sent: Instant<Monotonic>,
}

/// What is worth a line in the log; printed when the lock was released.
enum Complaint {
    /// The host failed a flush, this often so far.
    Failed(Failure, u64),
    /// The device is unusable from now on.
    Broken(&'static str),
}

impl State {
    fn new(dev: ARef<device::Device>) -> Result<Self> {
        let mut requests = [const { None }; SLOTS];

        for request in &mut requests {
            let command = Command::new(
                Le32::new(uapi::VIRTIO_PMEM_REQ_TYPE_FLUSH),
                Le32::new(UNANSWERED),
            );
            *request = Some(KBox::new(command, GFP_KERNEL)?);
        }

        Ok(Self {
            dev,
            engine: Engine::new(),
            queue: None,
            requests,
            posted: 0,
            finished: BioList::new(),
            flushed: BioList::new(),
            out_of_step: false,
            closed: false,
            starved: false,
            answers: 0,
            checked: 0,
            silent: 0,
            stats: Stats::default(),
            sent: Instant::now(),
        })
    }

    /// Sends the next flush if there is need of one and it can be sent now.
    fn pump(&mut self) -> Option<Complaint> {
        let Self {
            engine,
            queue,
            requests,
            posted,
            ..
        } = self;

        let pumped = engine.pump(|slot| {
            let queue = queue.as_mut().ok_or(NotSent::Dead)?;
            let mut request = requests[slot].take().ok_or(NotSent::Dead)?;

            *posted = slot;
            request.set_response(Le32::new(UNANSWERED));
            match queue.add(request, GFP_ATOMIC) {
                Ok(()) if queue.kick() => Ok(()),
                Ok(()) => Err(NotSent::Dead),
                Err((err, request)) => {
                    requests[slot] = Some(request);
                    // Only mapping for a vIOMMU can run out of memory.
                    Err(if err == ENOMEM {
                        NotSent::Again
                    } else {
                        NotSent::Dead
                    })
                }
            }
        });

        match pumped {
            Pumped::Nothing => None,
            Pumped::Sent => {
                let callers = self.engine.in_flight().len();

                self.stats.sent(callers);
                if cfg!(CONFIG_DEBUG_FS) {
                    self.sent = Instant::now();
                }
                trace::send(&self.dev, self.stats.flushes, callers);
                None
            }
            Pumped::Again => {
                self.starved = true;
                None
            }
            Pumped::Broken(callers) => {
                self.end(callers, Err(EIO));
                Some(Complaint::Broken("no flush can be sent"))
            }
        }
    }

    /// A caller is to join the next batch.
    fn arrived(&mut self, sleeps: bool) {
        self.stats.callers += 1;
        trace::arrive(&self.dev, self.stats.flushes + 1, sleeps);
    }

    /// Ends a batch: wakes those who sleep. The bios are completed later, without the lock.
    fn end(&mut self, mut callers: Callers, result: Result) {
        trace::complete(&self.dev, self.stats.flushes, callers.len(), result);

        callers.waiters.complete_all(result);
        self.engine.completed(callers.sleeping);

        if let Err(err) = result {
            callers.bios.set_error(err);
            callers.flushes.set_error(err);
        }
        self.finished.append(&mut callers.bios);
        self.flushed.append(&mut callers.flushes);
    }

    /// Fails everybody, for good.
    fn give_up(&mut self) {
        let callers = self.engine.break_down();

        self.end(callers, Err(EIO));
    }

    /// As [`give_up`](Self::give_up), if that is still to be done.
    fn give_up_for(&mut self, reason: &'static str) -> Option<Complaint> {
        if self.engine.is_broken() {
            return None;
        }
        self.give_up();
        Some(Complaint::Broken(reason))
    }

    /// Takes the answer from the queue, if it is there.
    fn take_answer(&mut self) -> Option<Answer> {
        let (request, len) = self.queue.as_mut()?.get()?;
        let status = request.response().get();

        if cfg!(CONFIG_DEBUG_FS) {
            self.stats.answered(self.sent.elapsed());
        }
        trace::answer(&self.dev, self.stats.flushes, len, status);
        self.requests[self.posted] = Some(request);
        self.answers = self.answers.wrapping_add(1);
        Some(Answer::judge(len, status))
    }

    /// Ends the batch that `answer` is for.
    fn answered(&mut self, answered: Answered<Callers>) -> Option<Complaint> {
        match answered {
            Answered::Ended(callers, Ok(())) => {
                self.end(callers, Ok(()));
                None
            }
            Answered::Ended(callers, Err(failure)) => {
                self.end(callers, Err(EIO));
                self.stats.errors += 1;
                Some(Complaint::Failed(failure, self.stats.errors))
            }
            Answered::Recover => {
                self.out_of_step = true;
                None
            }
            Answered::Stale | Answered::Ignored => None,
        }
    }

    /// Whether the work item has something to do.
    fn has_work(&self) -> bool {
        self.starved || !self.finished.is_empty()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A reset does not stop a host that is in the middle of a flush: QEMU writes the answer
        // nevertheless. What it may write to must not become somebody else's memory.
        if self.engine.host_may_write() {
            for request in self.requests.iter_mut().filter_map(Option::take) {
                abandon(request);
            }
        }
    }
}

/// What the work item works on.
#[pin_data]
struct Shared {
    dev: ARef<device::Device>,
    #[pin]
    state: SpinLockIrq<State>,
    /// Somebody may wait for the engine to become quiet or idle.
    #[pin]
    changed: CondVar,
}

impl Shared {
    fn complain(&self, complaint: Option<Complaint>) {
        match complaint {
            None => {}
            Some(Complaint::Failed(failure, times)) => {
                if times.is_power_of_two() {
                    dev_err!(
                        self.dev,
                        "the host failed a flush: {:?}, failure number {}\n",
                        failure,
                        times
                    );
                }
            }
            Some(Complaint::Broken(reason)) => {
                dev_err!(self.dev, "{}: giving up on the device\n", reason)
            }
        }
    }

    /// Completes bios that have their status. Any context, without the lock.
    fn complete(&self, mut bios: BioList) {
        let completed = bios.len();

        bios.complete_all(Ok(()));
        self.state.lock().engine.completed(completed);
        self.changed.notify_all();
    }

    /// Waits until `condition` holds, but not for longer than a host may take without progress.
    fn wait_until(&self, condition: impl Fn(&Engine<Callers>) -> bool) -> Result {
        let mut state = self.state.lock();

        loop {
            let answers = state.answers;
            let mut left = msecs_to_jiffies(timeout_ms());

            while !condition(&state.engine) && left > 0 {
                left = self.changed.wait_timeout(&mut state, left);
            }
            if condition(&state.engine) {
                return Ok(());
            }
            if state.answers == answers {
                return Err(ETIMEDOUT);
            }
        }
    }
}

impl EmbeddedWork for Shared {
    fn run(this: Pin<&Embedded<Self>>) {
        loop {
            let (mut finished, starved) = {
                let mut state = this.state.lock();
                let mut finished = mem::take(&mut state.finished);

                // Only if it was this work item that could not send.
                finished.append(&mut mem::take(&mut state.flushed));
                (finished, mem::take(&mut state.starved))
            };

            if finished.is_empty() && !starved {
                return;
            }

            let completed = finished.len();
            // Their status was set when their flush ended.
            finished.complete_all(Ok(()));

            if starved {
                fsleep(Delta::from_millis(1));
            }

            let mut state = this.state.lock();
            state.engine.completed(completed);
            let complaint = state.pump();
            drop(state);

            this.complain(complaint);
            this.changed.notify_all();
        }
    }
}

/// The flush path of one device.
#[pin_data]
pub(crate) struct Flush {
    // Dropped before the queue that it runs on.
    #[pin]
    shared: Embedded<Shared>,
    ordered: OrderedQueue,
    faults: Faults,
}

/// The time that a host may take without progress, in milliseconds.
fn timeout_ms() -> u32 {
    crate::timeout_secs().saturating_mul(1000)
}

/// How often the watchdog looks during that time.
const LOOKS: u32 = 4;

/// The time between two of the watchdog's looks.
pub(crate) fn watch_interval() -> Delta {
    Delta::from_millis((timeout_ms() / LOOKS).into())
}

impl Flush {
    /// The flush path of `dev`, without a queue yet: callers wait. May sleep.
    pub(crate) fn new(dev: ARef<device::Device>) -> Result<Arc<Self>> {
        let state = State::new(dev.clone())?;

        Arc::pin_init(
            try_pin_init!(Self {
                shared <- new_embedded_work!(
                    pin_init!(Shared {
                        dev,
                        state <- new_spinlock_irq!(state, "Flush::state"),
                        changed <- new_condvar!("Flush::changed"),
                    }),
                    "Flush::work"
                ),
                ordered: OrderedQueue::builder()
                    .mem_reclaim()
                    .build(c"virtio-pmem-flush")?,
                faults: Faults::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Runs `f` under the lock, and then what follows from the new state. Any context.
    fn update<R>(&self, f: impl FnOnce(&mut State) -> (R, Option<Complaint>)) -> R {
        let mut state = self.shared.state.lock();
        let (result, complaint) = f(&mut state);
        let flushed = mem::take(&mut state.flushed);

        if state.has_work() {
            self.shared.enqueue(&self.ordered);
        }
        drop(state);

        self.shared.complain(complaint);
        if !flushed.is_empty() {
            self.shared.complete(flushed);
        }
        result
    }

    /// Gives the flush path its queue. The device is not ready yet. Any context.
    pub(crate) fn attach(&self, queue: Virtqueue<Request>) {
        self.shared.state.lock().queue = Some(queue);
    }

    /// The device is ready: callers that have waited are sent. Any context.
    pub(crate) fn start(&self) {
        self.update(|state| {
            state.engine.start();
            ((), state.pump())
        });
    }

    /// Sends nothing more and waits for the answer in flight. May sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the host makes no progress. [`start`](Self::start) serves callers again.
    pub(crate) fn quiesce(&self) -> Result {
        self.shared.state.lock().engine.quiesce();
        self.shared.wait_until(Engine::is_quiet)
    }

    /// Resets the device and gives up its queue; whoever was in flight waits for the next
    /// [`start`](Self::start). May sleep.
    pub(crate) fn detach(&self) {
        let queue = {
            let mut state = self.shared.state.lock();

            // Nobody may send from here to the reset.
            state.engine.quiesce();
            state.queue.take()
        };
        let Some(queue) = queue else {
            return;
        };

        // There is one at most.
        for request in queue.close() {
            self.update(|state| {
                let response = request.response().get();

                state.requests[state.posted] = Some(request);
                // An answer that nobody has read would take its error with it.
                if response != UNANSWERED && state.engine.expects_answer() {
                    let answered = state.engine.answered(Answer::judge(RESPONSE_LEN, response));

                    ((), state.answered(answered))
                } else {
                    ((), None)
                }
            });
        }

        self.update(|state| {
            let State {
                engine, requests, ..
            } = state;

            engine.reset(|slot| {
                requests[slot]
                    .as_ref()
                    .is_some_and(|request| request.response().get() != UNANSWERED)
            });
            state.out_of_step = false;
            ((), None)
        });
    }

    /// Whether there is a queue that does not work as it should. Any context.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.shared.state.lock().out_of_step
    }

    /// What has happened so far. Any context.
    pub(crate) fn stats(&self) -> Stats {
        self.shared.state.lock().stats
    }

    /// Whether there is a queue. Any context.
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.state.lock().queue.is_some()
    }

    /// The device is to be shut down, and must stay so. Any context.
    pub(crate) fn retire(&self) {
        self.shared.state.lock().closed = true;
    }

    /// Whether [`close`](Self::close) or [`retire`](Self::retire) was called. Any context.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }

    /// Decides whether the device is worth a recovery; if not, it is given up. Any context.
    pub(crate) fn recover(&self) -> bool {
        self.update(|state| {
            if state.engine.is_broken() {
                return (false, None);
            }
            match state.engine.recover() {
                Recovery::Reset => {
                    state.stats.recoveries += 1;
                    (true, None)
                }
                Recovery::GiveUp(callers) => {
                    state.end(callers, Err(EIO));
                    (false, Some(Complaint::Broken("a reset did not help")))
                }
            }
        })
    }

    /// Fails everybody who waits, and all who come. Any context.
    pub(crate) fn give_up(&self, reason: &'static str) {
        self.update(|state| ((), state.give_up_for(reason)));
        self.shared.changed.notify_all();
    }

    /// Fails everybody if the queue has broken, which nobody tells. Any context.
    pub(crate) fn give_up_if_broken(&self) {
        let broken = self
            .shared
            .state
            .lock()
            .queue
            .as_ref()
            .is_some_and(Virtqueue::is_broken);

        if broken {
            self.give_up("the queue is broken");
        }
    }

    /// The watchdog begins to look. Any context.
    pub(crate) fn begin_watch(&self) {
        self.shared.state.lock().silent = 0;
    }

    /// The watchdog looks: gives up if somebody has waited for the whole time without an answer.
    /// Any context.
    pub(crate) fn check_progress(&self) {
        self.update(|state| {
            let waiting = !state.engine.is_idle() && state.answers == state.checked;

            state.checked = state.answers;
            state.silent = if waiting { state.silent + 1 } else { 0 };
            // At the first of these looks somebody may have come just before.
            if state.silent > LOOKS {
                ((), state.give_up_for("the host does not answer"))
            } else {
                ((), None)
            }
        });
        self.shared.changed.notify_all();
    }

    /// The queue's callback. Returns whether the device has to be recovered. Any context.
    pub(crate) fn used(&self) -> bool {
        let out_of_step = self.update(|state| {
            let mut complaint = None;
            let unexpected = !state.engine.expects_answer();

            while state.engine.expects_answer() {
                let Some(answer) = state.take_answer() else {
                    if state.queue.as_ref().is_some_and(Virtqueue::is_broken) {
                        complaint = state.give_up_for("the queue is broken");
                    }
                    break;
                };
                let answered = state.engine.answered(answer);

                complaint = state.answered(answered).or(complaint);
                complaint = state.pump().or(complaint);
            }

            // Nothing is in flight. Is there an answer all the same? When the ring has just come
            // out of step, another may have come under the same interrupt, and until it is seen, a
            // host with EVENT_IDX gives none for the real one.
            if unexpected || !(state.engine.expects_answer() || state.engine.is_quiet()) {
                let stray = state
                    .queue
                    .as_mut()
                    .is_some_and(|queue| !queue.enable_callback());

                if stray {
                    let answered = state.engine.stray();

                    complaint = state.answered(answered).or(complaint);
                }
            }
            (state.out_of_step, complaint)
        });

        self.shared.changed.notify_all();
        out_of_step
    }

    /// Ends in good order: everybody is served, and all that was stored before is durable. Nobody
    /// may come any more. A host that makes no progress is given up. May sleep.
    pub(crate) fn close(&self) {
        // The core's own last flush comes before the block layer's last write-back.
        if !self.shared.state.lock().engine.is_broken() && self.flush().is_err() {
            dev_err!(self.shared.dev, "the last flush failed\n");
        }

        {
            let mut state = self.shared.state.lock();

            state.engine.close();
            state.closed = true;
        }
        if self.shared.wait_until(Engine::is_idle).is_err() {
            self.give_up("the host does not answer");
        }
    }

    /// Fails who is left, without a word, and waits for the work item. May sleep.
    pub(crate) fn finish(&self) {
        self.update(|state| {
            state.give_up();
            ((), None)
        });
        self.shared.flush();
    }
}

impl RegionProvider for Flush {
    fn flush(&self) -> Result {
        nvdimm::pmem_wmb();

        if self.acknowledges_early() {
            return Ok(());
        }

        WaitList::wait(|waiter| {
            self.update(|state| {
                let mut joined = None;
                let refused = state
                    .engine
                    .arrive(Sleeper {
                        waiter,
                        joined: &mut joined,
                    })
                    .err()
                    .map(|(refused, _)| refused);

                if refused.is_none() {
                    state.arrived(true);
                }
                let result = joined.ok_or(match refused {
                    Some(Refused::Closed) => ENODEV,
                    _ => EIO,
                });
                (result, state.pump())
            })
        })
    }

    fn flush_bio<'a>(&self, offer: BioOffer<'a>) -> BioOutcome<'a> {
        nvdimm::pmem_wmb();

        if self.acknowledges_early() {
            return offer.done();
        }

        let mut refused = None;
        let outcome = self.update(|state| {
            if state.engine.is_broken() {
                return (offer.reject(EIO), None);
            }
            let outcome = offer.take(|bio| refused = state.engine.arrive(bio).err());

            if refused.is_none() {
                state.arrived(false);
            }
            (outcome, state.pump())
        });

        // Nobody comes any more when the engine is closed; but whoever did has to be answered.
        if let Some((_, bio)) = refused {
            bio.complete(Err(EIO));
        }
        outcome
    }
}
