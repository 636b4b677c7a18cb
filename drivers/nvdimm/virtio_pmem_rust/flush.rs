// SPDX-License-Identifier: GPL-2.0

//! The flush path: the engine with its lock, its virtqueue and its callers.
//!
//! libnvdimm brings two kinds of callers ([`RegionProvider`]): those that sleep until their stores
//! are durable, and those that leave a bio to be completed then. Both join the engine's next batch
//! under one lock, which also protects the virtqueue. A caller that finds no flush in flight sends
//! one itself; the queue's callback ends the batch that was answered and sends the next flush. The
//! engine may hold a flush back for more callers; then one of them sends it, or a timer.
//!
//! Three steps follow without the lock, in this order. The host is notified, which may take an exit
//! from the guest. Sleeping callers are woken. Bios without FUA, which have no data, are completed:
//! a task sleeps until then, too.
//!
//! Bios with FUA are left to a work item on the device's ordered queue, which completes them in
//! order and makes progress under memory pressure: their completion can start much work. Nothing is
//! allocated on the way.

mod faults;
mod port;
mod shared;

use crate::{
    callers::Sleeper,
    engine::{
        Engine,
        Refused,
        Responses, //
    },
    stats::Stats,
    watchdog::{
        Expiry,
        Subject,
        Verdict,
        Watch, //
    }, //
};
use faults::Faults;
use kernel::{
    debugfs::ScopedDir,
    device::{
        self,
        Core, //
    },
    new_condvar,
    new_spinlock_irq,
    nvdimm::{
        self,
        BioOffer,
        BioOutcome,
        RegionProvider, //
    },
    prelude::*,
    str::kstrtobool_bytes,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        WaitList, //
    },
    time::hrtimer::EmbeddedTimer,
    virtio::{
        self,
        DeviceWork,
        Virtqueue, //
    },
    workqueue::{
        new_embedded_work,
        EmbeddedWork,
        Queue, //
    }, //
};
pub(crate) use port::Request;
use port::{
    Complaint,
    DevicePort, //
};
use shared::{
    Shared,
    State,
    Timed, //
};

/// The flush path of one device.
#[pin_data]
pub(crate) struct FlushPath {
    #[pin]
    timed: EmbeddedTimer<Timed>,
    /// How many seconds a wait may last without progress.
    timeout: Atomic<u32>,
    faults: Faults,
}

impl FlushPath {
    /// Makes the flush path of `dev`. Callers wait until it has a queue, or are refused if it is
    /// `read_only`. May sleep.
    pub(crate) fn new(
        dev: ARef<device::Device>,
        work: DeviceWork,
        read_only: bool,
    ) -> Result<Arc<Self>> {
        let mut engine = Engine::new();
        engine.set_gathering(crate::gathers());
        engine.set_read_only(read_only);

        let state = State {
            engine,
            port: DevicePort::new(dev.clone()),
            watch: Watch::default(),
            watchers: 0,
        };

        Arc::pin_init(
            try_pin_init!(Self {
                timed <- EmbeddedTimer::new(try_pin_init!(Timed {
                    work,
                    shared <- new_embedded_work!(
                        pin_init!(Shared {
                            dev,
                            state <- new_spinlock_irq!(state, "FlushPath::state"),
                            changed <- new_condvar!("FlushPath::changed"),
                            resend_after: Atomic::new(crate::resend_after()),
                        }),
                        "FlushPath::work"
                    ),
                    ordered: Queue::new_ordered()
                        .mem_reclaim()
                        .build(c"virtio-pmem-flush")?,
                })),
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
        dir.read_write_file(c"resend_after", &self.shared().resend_after);
        dir.read_write_callback_file(
            c"gathering",
            self,
            &|flush: &Self, f| {
                let gathers = flush.shared().state.lock().engine.gathers();

                writeln!(f, "{}", u8::from(gathers))
            },
            &|flush: &Self, reader| {
                let mut text = [0; 2];
                let len = reader.len().min(text.len());

                reader.read_slice(&mut text[..len])?;
                let gathers = kstrtobool_bytes(&text)?;

                flush.update(|state| state.set_gathering(gathers));
                Ok(())
            },
        );
        self.show_faults(dir);
    }

    fn shared(&self) -> &EmbeddedWork<Shared> {
        &self.timed.shared
    }

    /// Runs `f` under the lock, and then does without the lock what follows from the new state.
    /// Any context.
    fn update<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        shared::update(&self.timed, f)
    }

    /// Whether the device can be started. Any context.
    ///
    /// # Errors
    ///
    /// [`EIO`] if it was given up.
    pub(crate) fn check(&self) -> Result {
        if self.shared().state.lock().engine.is_broken() {
            Err(EIO)
        } else {
            Ok(())
        }
    }

    /// Gives the flush path its queue, before the device is ready. May sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory for a request.
    pub(crate) fn attach(&self, queue: Virtqueue<Request>) -> Result {
        let request = if self.shared().state.lock().port.has_no_request() {
            Some(DevicePort::new_request()?)
        } else {
            None
        };
        let mut state = self.shared().state.lock();

        if let Some(request) = request {
            state.port.set_request(request);
        }
        state.port.queue = Some(queue);
        Ok(())
    }

    /// Sends a flush for the callers that have waited; the device is ready. Any context.
    ///
    /// # Errors
    ///
    /// [`EIO`] if the device was given up meanwhile.
    pub(crate) fn start(&self, responses: Responses) -> Result {
        self.update(|state| state.engine.start(responses, &mut state.port));
        self.check()
    }

    /// Sends nothing more and waits for the answer to the flush in flight, unless `is_hopeless`
    /// returns true: then it cannot come. The device has to be watched. May sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the host makes no progress; [`resume`](Self::resume) serves callers again.
    pub(crate) fn quiesce(&self, is_hopeless: impl Fn() -> bool) -> Result {
        self.shared().state.lock().engine.quiesce();
        self.shared().wait_until(Engine::is_quiet, is_hopeless)
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
    pub(crate) fn detach(&self, vdev: &virtio::Device<Core<'_>>) -> bool {
        let (queue, responses, expects_answer) = {
            let mut state = self.shared().state.lock();

            // Nothing may be sent from here to the reset.
            state.engine.quiesce();
            (
                state.port.queue.take(),
                state.engine.responses(),
                state.engine.expects_answer(),
            )
        };
        let Some(mut queue) = queue else {
            return self.shared().state.lock().engine.has_lost();
        };

        let mut stopped = vdev.stop_queues();
        // The request of the flush in flight, and the length of its used element if there is one.
        let mut left = None;

        if expects_answer {
            left = stopped
                .get(&mut queue)
                .map(|(request, len)| (request, Some(len)));
            // Without a mapping the response can be read even if there is no used element for it.
            // With one, the request stays in the queue and mapped (R7).
            if left.is_none() && responses == Responses::Direct {
                left = stopped.detach(&mut queue).map(|request| (request, None));
            }
        }
        drop(stopped);

        self.update(|state| {
            let State { engine, port, .. } = state;
            let unread = left.and_then(|(request, len)| port.take_back(request, len));

            engine.reset(unread, port);
            engine.has_lost()
        })
    }

    /// Whether the ring is out of step with the host, so that the device has to be recovered. Any
    /// context.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.shared().state.lock().engine.is_out_of_step()
    }

    /// Whether the host has not answered for too long, so that the device has to be recovered. Any
    /// context.
    pub(crate) fn is_overdue(&self) -> bool {
        self.shared().state.lock().engine.is_overdue()
    }

    /// The statistics so far. Any context.
    fn stats(&self) -> Stats {
        let state = self.shared().state.lock();
        let policy = state.engine.policy();
        let mut stats = state.port.stats;

        stats.gathered = (policy.gathered, policy.in_vain);
        stats.mean_service = policy.mean;
        stats
    }

    /// Whether there is a queue. Any context.
    pub(crate) fn is_attached(&self) -> bool {
        self.shared().state.lock().port.queue.is_some()
    }

    /// Stops for good, because the machine goes down; callers wait. Any context.
    pub(crate) fn shut_down(&self) {
        self.shared().state.lock().engine.shut_down();
    }

    /// Whether [`close`](Self::close) or [`shut_down`](Self::shut_down) was called. Any context.
    pub(crate) fn is_ending(&self) -> bool {
        self.shared().state.lock().engine.is_ending()
    }

    /// Decides whether the device is to be recovered; if not, it is given up. Any context.
    pub(crate) fn recover(&self) -> bool {
        self.update(|state| {
            let recovers = state.engine.recover(&mut state.port);

            state.port.stats.recoveries += u64::from(recovers);
            recovers
        })
    }

    /// Fails all callers, now and in future. Any context.
    pub(crate) fn give_up(&self, why: &'static str) {
        self.update(|state| state.fail(why));
    }

    /// Fails all callers if the queue has broken, which no callback reports. Any context.
    pub(crate) fn give_up_if_broken(&self) {
        shared::give_up_if_broken(&self.timed);
    }

    /// Begins a watch. Any context.
    pub(crate) fn watch(&self, subject: Subject, expiry: Expiry) {
        let mut state = self.shared().state.lock();
        let answers = state.port.answers;

        state.watch = Watch::new(subject, expiry, answers);
    }

    /// Ends the watch. Any context.
    pub(crate) fn unwatch(&self) {
        self.shared().state.lock().watch = Watch::default();
    }

    /// Checks for progress, for the watchdog. Any context.
    pub(crate) fn check_progress(&self) {
        let timeout = self.timeout.load(Relaxed);

        self.update(|state| {
            let is_busy = !state.engine.is_idle();

            if state.is_queue_broken() {
                return state.fail("the queue is broken");
            }
            match state.watch.check(is_busy, state.port.answers, timeout) {
                Verdict::Fine => (),
                Verdict::Slow(subject, secs, limit) => {
                    let what = if state.port.queue.is_some() {
                        "the host's answer to a flush"
                    } else {
                        "the device to be reset and started"
                    };
                    let complaint = Complaint::Slow(subject, what, secs, limit);

                    state.port.outcome.complain(complaint);
                }
                Verdict::GiveUp => state.fail("the host does not answer"),
            }
        });
    }

    /// The queue's callback. Returns whether the device has to be recovered. Any context.
    pub(crate) fn used(&self) -> bool {
        self.update(|state| {
            state.engine.drain(&mut state.port);
            state.engine.is_out_of_step()
        })
    }

    /// Ends in good order: all callers are served, and all earlier stores become durable. New
    /// callers are refused. The device has to be watched: a host that makes no progress is given
    /// up. May sleep.
    pub(crate) fn close(&self) {
        // libnvdimm's own last flush comes before the block layer's last write-back.
        if self.shared().state.lock().engine.takes_callers() && self.flush().is_err() {
            dev_err!(self.shared().dev, "the last flush failed\n");
        }

        self.update(|state| {
            state.engine.close();
            state.pump();
        });
        if self.shared().wait_until(Engine::is_idle, || false).is_err() {
            self.give_up("the host does not answer");
        }
    }

    /// Fails the remaining callers silently, and waits for the work item. May sleep.
    pub(crate) fn finish(&self) {
        self.update(|state| state.engine.break_down(&mut state.port));
        self.shared().flush();
    }
}

impl RegionProvider for FlushPath {
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
                    Some(Refused::ReadOnly) => EROFS,
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
            // Nothing was stored that an fsync() would have to wait for.
            if state.engine.is_read_only() {
                return if offer.has_data() {
                    offer.reject(EROFS)
                } else {
                    offer.done()
                };
            }
            let outcome = offer.take(|bio| refused = state.engine.arrive(bio).err());

            if refused.is_none() {
                state.arrived(false);
            }
            state.pump();
            outcome
        });

        // No bio is submitted once the engine is closed; if one is, it has to be completed.
        if let Some((_, bio)) = refused {
            bio.complete(Err(EIO));
        }
        outcome
    }
}
