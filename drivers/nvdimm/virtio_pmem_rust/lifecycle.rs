// SPDX-License-Identifier: GPL-2.0

//! The life of a device: start and stop, suspend, reset and recovery.

use crate::{
    engine::Responses,
    flush::{
        FlushPath,
        Request, //
    },
    watchdog::{
        Expiry,
        Subject,
        Watchdog, //
    }, //
};
use kernel::{
    alloc::scope::with_noio,
    debugfs::Scope,
    device::{
        self,
        Core, //
    },
    prelude::*,
    str::CString,
    sync::Arc,
    virtio::{
        self,
        DeviceWork,
        Feature,
        StatusBit,
        Virtqueue, //
    },
};

/// A request and its response take two descriptors.
const DESCRIPTORS: u32 = 2;

/// One device, from probe to unbind.
#[pin_data]
pub(crate) struct Lifecycle {
    pub(crate) flush: Arc<FlushPath>,
    pub(crate) watchdog: Arc<Watchdog>,
    work: DeviceWork,
    #[pin]
    _debugfs: Scope<Arc<FlushPath>>,
}

/// Starts the flush path with a queue that was just found. May sleep.
fn begin(flush: &FlushPath, vdev: &virtio::Device<Core<'_>>, queue: Virtqueue<Request>) -> Result {
    if queue.size() < DESCRIPTORS {
        dev_err!(vdev, "a queue of {} cannot hold a request\n", queue.size());
        return Err(EINVAL);
    }

    let responses = if queue.is_mapped() {
        Responses::Mapped
    } else {
        Responses::Direct
    };

    // The callback needs the queue from the first answer on.
    flush.attach(queue)?;
    vdev.ready();
    flush.start(responses)
}

/// Stops a device that is to be started again. May sleep.
fn detach(flush: &FlushPath, vdev: &virtio::Device<Core<'_>>) {
    if flush.detach(vdev) {
        // A late answer overwrites a request in a packed ring (R9), and breaks the queue with
        // IN_ORDER.
        vdev.decline_feature(Feature::RING_PACKED);
        vdev.decline_feature(Feature::IN_ORDER);
    }
}

/// Returns whether the device does not answer any more: it asks for a reset, or it is gone and its
/// status reads as all ones. May sleep.
fn is_hopeless(vdev: &virtio::Device<Core<'_>>) -> bool {
    vdev.status().contains(StatusBit::NeedsReset)
}

impl Lifecycle {
    /// Makes a device that does not flush yet, and if it is read-only never does. May sleep.
    pub(crate) fn new(vdev: &virtio::Device<Core<'_>>, read_only: bool) -> Result<Arc<Self>> {
        let dev: &device::Device<Core<'_>> = vdev.as_ref();
        let work = vdev.work().ok_or(EINVAL)?;
        let flush = FlushPath::new(dev.into(), work.clone(), read_only)?;
        let watchdog = Watchdog::new(flush.clone())?;
        let name = CString::try_from_fmt(fmt!("virtio_pmem_rust-{}", dev.name()))?;

        Arc::pin_init(
            try_pin_init!(Self {
                _debugfs <- Scope::dir(flush.clone(), &name, |flush, dir| flush.show(dir)),
                flush,
                watchdog,
                work,
            }),
            GFP_KERNEL,
        )
    }

    /// Finds the queue and starts the flush path. May sleep.
    ///
    /// # Errors
    ///
    /// [`EIO`] if the device was given up before, [`EINVAL`] if the queue is too small for a
    /// request, [`ENOMEM`] if there is no memory, and what the transport returns.
    pub(crate) fn start(self: &Arc<Self>, vdev: &virtio::Device<Core<'_>>) -> Result {
        // Callers, and write-back among them, may be waiting.
        with_noio(|| {
            self.flush.check()?;
            let mut queues = vdev.find_vqs(self.clone());
            let queue = queues.queue(c"flush_queue", Some(Self::used))?;

            queues
                .find()
                .inspect_err(|_| dev_err!(vdev, "cannot find the flush queue\n"))?;
            begin(&self.flush, vdev, queue)?;
            if self.flush.is_out_of_step() {
                self.check();
            }
            Ok(())
        })
    }

    /// Stops a device that is to be suspended: callers wait until it is resumed, and fail if that
    /// takes too long. May sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the host does not answer the flush in flight; the device then stays in use.
    pub(crate) fn suspend(&self, vdev: &virtio::Device<Core<'_>>) -> Result {
        self.watchdog.start(Subject::Suspend, Expiry::EndWait);
        self.flush.quiesce(|| is_hopeless(vdev)).inspect_err(|_| {
            self.watchdog.stop();
            self.flush.resume();
        })?;

        self.watchdog.start(Subject::Resume, Expiry::GiveUp);
        detach(&self.flush, vdev);
        Ok(())
    }

    /// Stops a device whose function is to be reset, whether or not the host answers: a flush that
    /// is lost is sent again. May sleep.
    pub(crate) fn prepare_reset(&self, vdev: &virtio::Device<Core<'_>>) {
        self.watchdog.start(Subject::FunctionReset, Expiry::EndWait);
        if self.flush.quiesce(|| is_hopeless(vdev)).is_err() {
            dev_warn!(vdev, "the host does not answer, resetting nevertheless\n");
        }

        self.watchdog.start(Subject::FunctionReset, Expiry::GiveUp);
        detach(&self.flush, vdev);
    }

    /// Starts a device after it was suspended or reset; callers fail if that is not possible. May
    /// sleep.
    pub(crate) fn resume(self: &Arc<Self>, vdev: &virtio::Device<Core<'_>>) -> Result {
        let started = self
            .start(vdev)
            .inspect_err(|_| self.flush.give_up("the device could not be resumed"));

        self.watchdog.stop();
        started
    }

    /// Stops a device before the machine goes down. May sleep.
    pub(crate) fn shut_down(&self, vdev: &virtio::Device<Core<'_>>) {
        self.watchdog.start(Subject::Shutdown, Expiry::EndWait);
        if self.flush.quiesce(|| is_hopeless(vdev)).is_err() {
            dev_warn!(
                vdev,
                "the host does not answer, shutting down nevertheless\n"
            );
        }
        self.flush.shut_down();
        self.watchdog.stop();
    }

    /// Checks whether the device needs a reset, and if so recovers it. Any context.
    pub(crate) fn check(&self) {
        self.work.schedule();
    }

    /// The queue's callback. Any context.
    fn used(&self) {
        if self.flush.used() {
            self.check();
        }
    }

    /// Recovers the device if it needs that. May sleep.
    pub(crate) fn recover(self: &Arc<Self>, vdev: &virtio::Device<Core<'_>>) {
        loop {
            // The device was shut down, or is unbound while it is suspended.
            if self.flush.is_ending() || !self.flush.is_attached() {
                return;
            }

            let status = vdev.status();

            if status.is_gone() {
                // A reset would never be acknowledged.
                self.flush.give_up("the device is gone");
                return;
            }
            let is_overdue = self.flush.is_overdue();

            if !status.contains(StatusBit::NeedsReset)
                && !self.flush.is_out_of_step()
                && !is_overdue
            {
                return;
            }
            if !self.flush.recover() {
                return;
            }

            if is_overdue {
                dev_warn!(
                    vdev,
                    "no answer to a flush, sending it again after a reset\n"
                );
            } else {
                dev_warn!(vdev, "the device needs a reset, recovering it\n");
            }
            self.watchdog.start(Subject::Recovery, Expiry::GiveUp);
            if self.restart(vdev).is_err() {
                self.flush.give_up("the device could not be recovered");
            }
            self.watchdog.stop();
            // The new ring may have a late answer already.
        }
    }

    /// Resets a device and starts it again. May sleep.
    fn restart(self: &Arc<Self>, vdev: &virtio::Device<Core<'_>>) -> Result {
        with_noio(|| {
            detach(&self.flush, vdev);
            self.flush.check()?;
            vdev.renegotiate()?;
            self.start(vdev)
        })
    }

    /// Ends the flush path in good order and stops the device. The region must be gone. May sleep.
    pub(crate) fn finish(&self, vdev: &virtio::Device<Core<'_>>) {
        self.watchdog.start(Subject::Removal, Expiry::GiveUp);
        self.flush.close();
        self.flush.detach(vdev);
        self.flush.finish();
        self.watchdog.stop();
    }
}
