// SPDX-License-Identifier: GPL-2.0

//! The flush path: the engine with its lock, its virtqueue and its callers.
//!
//! Two kinds of callers come from libnvdimm ([`RegionProvider`]): those that sleep until their
//! stores are durable, and those that leave a bio to be completed then. Both join the engine's next
//! batch under the one lock, which also protects the virtqueue. A caller that finds nothing in
//! flight sends the flush itself; the queue's callback ends the batch that was answered and sends
//! the next one. What can be done without the lock is done without it, in this order: the host is
//! notified, since a notification may take as long as an exit from the guest; callers that sleep
//! are woken, and bios that are nothing but a flush are completed, as a task sleeps behind them,
//! too. Bios with FUA are completed in order by a work item on the device's ordered queue, which
//! makes progress under memory pressure: what follows on their data can be a lot. Nothing is
//! allocated on the way.

mod faults;
mod path;

use crate::{
    callers::{
        Callers,
        Sleeper, //
    },
    engine::{
        Engine,
        Refused,
        Responses, //
    },
    stats::Stats,
    trace,
    watchdog::{
        Expiry,
        Look,
        Subject,
        Watch, //
    }, //
};
use core::mem;
use faults::Faults;
use kernel::{
    debugfs::ScopedDir,
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
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        CondVar,
        SpinLockIrq,
        WaitList, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    virtio::{
        Notifier,
        Virtqueue, //
    },
    workqueue::{
        new_embedded_work,
        Embedded,
        EmbeddedWork,
        OrderedQueue, //
    },
};
pub(crate) use path::Request;
use path::{
    Complaint,
    Path, //
};

/// What the lock protects. The lock is innermost: it is taken in the queue's callback, where the
/// transport may hold a lock of its own.
struct State {
    engine: Engine<Callers>,
    path: Path,
    watch: Watch,
    /// How many tasks wait for `changed`.
    watchers: usize,
}

impl State {
    /// Sends the next flush if there is need of one and it can be sent now.
    fn pump(&mut self) {
        self.engine.pump(&mut self.path);
    }

    /// A caller is to join the next batch.
    fn arrived(&mut self, sleeps: bool) {
        self.path.stats.callers += 1;
        trace::arrive(&self.path.dev, self.path.stats.flushes + 1, sleeps);
    }

    /// Fails all callers, now and in future.
    fn fail(&mut self, why: &'static str) {
        self.engine.fail(why, &mut self.path);
    }

    /// Whether the queue has broken, which no callback tells.
    fn is_queue_broken(&self) -> bool {
        self.path.queue.as_ref().is_some_and(Virtqueue::is_broken)
    }
}

/// What the work item works on.
#[pin_data]
struct Shared {
    dev: ARef<device::Device>,
    #[pin]
    state: SpinLockIrq<State>,
    /// The state has changed while a task waits for that.
    #[pin]
    changed: CondVar,
}

impl Shared {
    /// Runs `f` under the lock, and then does without the lock what follows from the new state.
    /// Returns also whether there is work for the work item. Any context.
    fn update<R>(&self, f: impl FnOnce(&mut State) -> R) -> (R, bool) {
        // Keeps the queue until it was notified.
        let rcu = rcu::read_lock();
        let mut state = self.state.lock();
        let result = f(&mut state);
        let (outcome, ended) = state.path.take_outcome();
        let work = state.path.has_work();
        let watched = state.watchers > 0;
        let notifier = if state.engine.take_notify() {
            state.path.queue.as_ref().map(|queue| queue.notifier(&rcu))
        } else {
            None
        };

        // They end below, in a context that ends before the device does: a callback, a caller that
        // holds the region, the removal itself.
        state.engine.completed(ended);
        drop(state);

        let notified = notifier.is_none_or(Notifier::notify);
        drop(rcu);

        if let Some(complaint) = outcome.complaint {
            complaint.print(&self.dev);
        }
        outcome.end();
        if watched {
            self.changed.notify_all();
        }
        if !notified {
            return (result, self.give_up_if_broken() || work);
        }
        (result, work)
    }

    /// Fails all callers if the queue has broken. Returns whether there is work for the work item.
    /// Any context.
    fn give_up_if_broken(&self) -> bool {
        let fail = |state: &mut State| {
            if state.is_queue_broken() {
                state.fail("the queue is broken");
            }
        };

        self.update(fail).1
    }

    /// Waits until `condition` holds; `hopeless` tells, without the lock, that it cannot hold any
    /// more. The device has to be watched ([`Flush::watch`]). May sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the watch has expired.
    fn wait_until(
        &self,
        condition: impl Fn(&Engine<Callers>) -> bool,
        hopeless: impl Fn() -> bool,
    ) -> Result {
        while !hopeless() {
            let mut state = self.state.lock();

            if condition(&state.engine) {
                return Ok(());
            }
            if state.watch.has_expired() {
                return Err(ETIMEDOUT);
            }
            state.watchers += 1;
            // Each look of the watchdog ends it, too.
            self.changed.wait(&mut state);
            state.watchers -= 1;
        }
        Ok(())
    }
}

impl EmbeddedWork for Shared {
    fn run(this: Pin<&Embedded<Self>>) {
        loop {
            let (mut finished, starved) = {
                let mut state = this.state.lock();

                (
                    mem::take(&mut state.path.finished),
                    mem::take(&mut state.path.starved),
                )
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

            this.update(|state| {
                state.engine.completed(completed);
                state.pump();
            });
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
    /// How many seconds a wait may last without progress.
    timeout: Atomic<u32>,
    faults: Faults,
}

impl Flush {
    /// The flush path of `dev`, without a queue yet: callers wait. May sleep.
    pub(crate) fn new(dev: ARef<device::Device>) -> Result<Arc<Self>> {
        let state = State {
            engine: Engine::new(),
            path: Path::new(dev.clone()),
            watch: Watch::default(),
            watchers: 0,
        };

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
                timeout: Atomic::new(crate::timeout_secs()),
                faults: Faults::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes the files of the device in debugfs.
    pub(crate) fn show<'data>(&'data self, dir: &ScopedDir<'data, '_>) {
        dir.read_callback_file(c"stats", self, &|flush: &Self, f| flush.stats().show(f));
        dir.read_write_file(c"timeout", &self.timeout);
        self.show_faults(dir);
    }

    /// As [`Shared::update`], and starts the work item.
    fn update<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let (result, work) = self.shared.update(f);

        if work {
            self.shared.enqueue(&self.ordered);
        }
        result
    }

    /// Whether the device can be started. Any context.
    ///
    /// # Errors
    ///
    /// [`EIO`] if it was given up.
    pub(crate) fn check(&self) -> Result {
        if self.shared.state.lock().engine.is_broken() {
            Err(EIO)
        } else {
            Ok(())
        }
    }

    /// Gives the flush path its queue. The device is not ready yet. May sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory for a request.
    pub(crate) fn attach(&self, queue: Virtqueue<Request>) -> Result {
        let request = if self.shared.state.lock().path.has_no_request() {
            Some(Path::new_request()?)
        } else {
            None
        };
        let mut state = self.shared.state.lock();

        if let Some(request) = request {
            state.path.set_request(request);
        }
        state.path.queue = Some(queue);
        Ok(())
    }

    /// The device is ready: callers that have waited are sent. Any context.
    ///
    /// # Errors
    ///
    /// [`EIO`] if the device was given up meanwhile.
    pub(crate) fn start(&self, responses: Responses) -> Result {
        self.update(|state| state.engine.start(responses, &mut state.path));
        self.check()
    }

    /// Sends nothing more and waits for the answer in flight, unless `hopeless` tells that it
    /// cannot come. The device has to be watched. May sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the host makes no progress; [`resume`](Self::resume) serves callers again.
    pub(crate) fn quiesce(&self, hopeless: impl Fn() -> bool) -> Result {
        self.shared.state.lock().engine.quiesce();
        self.shared.wait_until(Engine::is_quiet, hopeless)
    }

    /// Ends [`quiesce`](Self::quiesce) without a reset. Any context.
    pub(crate) fn resume(&self) {
        self.update(|state| {
            state.engine.resume();
            state.pump();
        });
    }

    /// Resets the device and gives up its queue; the callers of the flush in flight wait for the
    /// next [`start`](Self::start). The device has to be watched. May sleep.
    ///
    /// Returns whether a flush was lost, now or before.
    pub(crate) fn detach(&self) -> bool {
        let (queue, responses, is_owed) = {
            let mut state = self.shared.state.lock();

            // Nothing may be sent from here to the reset.
            state.engine.quiesce();
            (
                state.path.queue.take(),
                state.engine.responses(),
                state.engine.expects_answer(),
            )
        };
        let Some(queue) = queue else {
            return self.shared.state.lock().engine.has_lost();
        };

        let mut closed = queue.close();
        // The request of the flush in flight, and the used length if it has one.
        let mut left = None;

        if is_owed {
            left = closed.get().map(|(request, len)| (request, Some(len)));
            // Without a mapping the response can be read whether or not the host says that it was
            // written. With one, the request stays in the queue and mapped.
            if left.is_none() && responses == Responses::Direct {
                left = closed.next().map(|request| (request, None));
            }
        }
        closed.leave();

        self.update(|state| {
            let State { engine, path, .. } = state;
            let unread = left.and_then(|(request, len)| path.take_back(request, len));

            engine.reset(unread, path);
            engine.has_lost()
        })
    }

    /// Whether the ring is out of step with the host, so that the device has to be recovered. Any
    /// context.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.shared.state.lock().engine.is_out_of_step()
    }

    /// What has happened so far. Any context.
    fn stats(&self) -> Stats {
        self.shared.state.lock().path.stats
    }

    /// Whether there is a queue. Any context.
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.state.lock().path.queue.is_some()
    }

    /// The device is to be shut down, and must stay so; callers wait. Any context.
    pub(crate) fn retire(&self) {
        self.shared.state.lock().engine.retire();
    }

    /// Whether [`close`](Self::close) or [`retire`](Self::retire) was called. Any context.
    pub(crate) fn is_ending(&self) -> bool {
        self.shared.state.lock().engine.is_ending()
    }

    /// Decides whether the device is worth a recovery; if not, it is given up. Any context.
    pub(crate) fn recover(&self) -> bool {
        self.update(|state| {
            let recovers = state.engine.recover(&mut state.path);

            state.path.stats.recoveries += u64::from(recovers);
            recovers
        })
    }

    /// Fails all callers, now and in future. Any context.
    pub(crate) fn give_up(&self, why: &'static str) {
        self.update(|state| state.fail(why));
    }

    /// Fails all callers if the queue has broken, which no callback tells. Any context.
    pub(crate) fn give_up_if_broken(&self) {
        if self.shared.give_up_if_broken() {
            self.shared.enqueue(&self.ordered);
        }
    }

    /// The watchdog begins to look. Any context.
    pub(crate) fn watch(&self, subject: Subject, expiry: Expiry) {
        let mut state = self.shared.state.lock();
        let answers = state.path.answers;

        state.watch = Watch::new(subject, expiry, answers);
    }

    /// The watchdog does not look any more. Any context.
    pub(crate) fn unwatch(&self) {
        self.shared.state.lock().watch = Watch::default();
    }

    /// The watchdog looks. Any context.
    pub(crate) fn look(&self) {
        let timeout = self.timeout.load(Relaxed);

        self.update(|state| {
            let is_owed = !state.engine.is_idle();

            if state.is_queue_broken() {
                return state.fail("the queue is broken");
            }
            match state.watch.look(is_owed, state.path.answers, timeout) {
                Look::Fine => (),
                Look::Slow(subject, secs, limit) => {
                    let what = if state.path.queue.is_some() {
                        "the host's answer to a flush"
                    } else {
                        "the device to be reset and started"
                    };
                    let complaint = Complaint::Slow(subject, what, secs, limit);

                    state.path.outcome.complain(complaint);
                }
                Look::GiveUp => state.fail("the host does not answer"),
            }
        });
    }

    /// The queue's callback. Returns whether the device has to be recovered. Any context.
    pub(crate) fn used(&self) -> bool {
        self.update(|state| {
            state.engine.drain(&mut state.path);
            state.engine.is_out_of_step()
        })
    }

    /// Ends in good order: all callers are served, and all that was stored before is durable. New
    /// callers are refused. A host that makes no progress is given up by the watchdog, which has to
    /// look. May sleep.
    pub(crate) fn close(&self) {
        // The core's own last flush comes before the block layer's last write-back.
        if !self.shared.state.lock().engine.is_broken() && self.flush().is_err() {
            dev_err!(self.shared.dev, "the last flush failed\n");
        }

        self.shared.state.lock().engine.close();
        if self.shared.wait_until(Engine::is_idle, || false).is_err() {
            self.give_up("the host does not answer");
        }
    }

    /// Fails the callers that are left, silently, and waits for the work item. May sleep.
    pub(crate) fn finish(&self) {
        self.update(|state| state.engine.break_down(&mut state.path));
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
                state.pump();
                joined.ok_or(match refused {
                    Some(Refused::Closed) => ENODEV,
                    _ => EIO,
                })
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
                return offer.reject(EIO);
            }
            let outcome = offer.take(|bio| refused = state.engine.arrive(bio).err());

            if refused.is_none() {
                state.arrived(false);
            }
            state.pump();
            outcome
        });

        // No bio comes any more when the engine is closed; but if one does, it has to be answered.
        if let Some((_, bio)) = refused {
            bio.complete(Err(EIO));
        }
        outcome
    }
}
