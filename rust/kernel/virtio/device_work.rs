// SPDX-License-Identifier: GPL-2.0

//! The device work: a callback of the driver with the device locked, for which any context can ask.

use super::Device;
use crate::{
    bindings,
    device::Core,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::{
        new_embedded_work,
        EmbeddedWork,
        EmbeddedWorkItem,
        OwnedQueue,
        Queue, //
    }, //
};

struct Work {
    vdev: ARef<Device>,
    /// The driver is being unbound.
    is_ended: Atomic<bool>,
    // These two change only while the device is locked.
    /// The device is suspended, or was not started again.
    is_stopped: Atomic<bool>,
    /// The work was asked for since then.
    is_due: Atomic<bool>,
    /// Calls the driver. The device is locked and bound.
    call: unsafe fn(*mut bindings::virtio_device),
}

#[pin_data]
struct Inner {
    // Dropped before the queue that it runs on.
    #[pin]
    work: EmbeddedWork<Work>,
    queue: OwnedQueue,
}

/// The device work of a driver: its callback [`Driver::work`], as long as it stays bound.
///
/// What needs the device's lock or may sleep, such as access to the configuration space after a
/// change, or the recovery of a device that needs a reset, is done there.
///
/// [`Driver::work`]: super::Driver::work
#[derive(Clone)]
pub struct DeviceWork(Arc<Inner>);

impl DeviceWork {
    /// # Safety
    ///
    /// `call` can be called with the device, locked, until [`end`](Self::end).
    pub(super) unsafe fn new(
        vdev: &Device,
        call: unsafe fn(*mut bindings::virtio_device),
    ) -> Result<Self> {
        let work = Work {
            vdev: vdev.into(),
            is_ended: Atomic::new(false),
            is_stopped: Atomic::new(false),
            is_due: Atomic::new(false),
            call,
        };

        Ok(Self(Arc::pin_init(
            try_pin_init!(Inner {
                work <- new_embedded_work!(work, "DeviceWork::work"),
                // Write-back may wait for a recovery.
                queue: Queue::new_ordered()
                    .mem_reclaim()
                    .build(c"virtio-device-work")?,
            }),
            GFP_KERNEL,
        )?))
    }

    /// Has [`Driver::work`] called soon, once for all requests until then; while the device is
    /// suspended, after it was resumed. Does nothing when the driver is being unbound.
    ///
    /// # Context
    ///
    /// Any context.
    ///
    /// [`Driver::work`]: super::Driver::work
    #[doc(alias = "schedule_work")]
    #[inline]
    pub fn schedule(&self) {
        self.0.work.enqueue(&self.0.queue);
    }

    /// The device was stopped: the driver is not called until [`resume`](Self::resume).
    pub(super) fn suspend(&self, _vdev: &Device<Core<'_>>) {
        self.0.work.is_stopped.store(true, Relaxed);
    }

    /// The device was started again.
    pub(super) fn resume(&self, _vdev: &Device<Core<'_>>) {
        self.0.work.is_stopped.store(false, Relaxed);
        if self.0.work.is_due.load(Relaxed) {
            self.schedule();
        }
    }

    /// Ends it: the driver is not being called, and will not be. To be called with the device
    /// locked. May sleep.
    pub(super) fn end(&self) {
        self.0.work.is_ended.store(true, Release);
        self.0.work.cancel_sync();
    }
}

impl Work {
    /// Calls the driver.
    ///
    /// # Safety
    ///
    /// The device is locked.
    unsafe fn call(&self) {
        let is_stopped = self.is_stopped.load(Relaxed);

        self.is_due.store(is_stopped, Relaxed);
        if !is_stopped && !self.is_ended.load(Acquire) {
            // SAFETY: The device is locked, and `end()`, which needs the lock, was not called.
            unsafe { (self.call)(self.vdev.as_raw()) };
        }
    }
}

impl EmbeddedWorkItem for Work {
    fn run(this: Pin<&EmbeddedWork<Self>>) {
        let vdev = this.vdev.as_raw();

        // An unbind holds the device's lock while it waits for the end of this.
        while !this.is_ended.load(Acquire) {
            // SAFETY: The device is valid.
            if unsafe { bindings::virtio_device_trylock(vdev) } {
                // SAFETY: Locked above.
                unsafe { this.call() };
                // SAFETY: As above.
                unsafe { bindings::virtio_device_unlock(vdev) };
                return;
            }
            fsleep(Delta::from_millis(10));
        }
    }
}
