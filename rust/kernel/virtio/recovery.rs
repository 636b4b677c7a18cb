// SPDX-License-Identifier: GPL-2.0

//! The recovery of a device that needs a reset: a callback of the driver that runs when a task, an
//! interrupt or a timer has asked for it.

use super::Device;
use crate::{
    bindings,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
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
        OrderedQueue, //
    }, //
};

struct Work {
    vdev: ARef<Device>,
    /// The driver is being unbound.
    is_ended: Atomic<bool>,
    /// Calls the driver. The device is locked and bound.
    recover: unsafe fn(*mut bindings::virtio_device),
}

#[pin_data]
struct Inner {
    // Dropped before the queue that it runs on.
    #[pin]
    work: EmbeddedWork<Work>,
    queue: OrderedQueue,
}

/// A way to have [`Driver::recover`] called, as long as the driver stays bound.
///
/// [`Driver::recover`]: super::Driver::recover
#[derive(Clone)]
pub struct Recovery(Arc<Inner>);

impl Recovery {
    /// # Safety
    ///
    /// `recover` can be called with the device, locked, until [`end`](Self::end).
    pub(super) unsafe fn new(
        vdev: &Device,
        recover: unsafe fn(*mut bindings::virtio_device),
    ) -> Result<Self> {
        let work = Work {
            vdev: vdev.into(),
            is_ended: Atomic::new(false),
            recover,
        };

        Ok(Self(Arc::pin_init(
            try_pin_init!(Inner {
                work <- new_embedded_work!(work, "Recovery::work"),
                // Write-back may wait for the recovery.
                queue: OrderedQueue::builder()
                    .mem_reclaim()
                    .build(c"virtio-recovery")?,
            }),
            GFP_KERNEL,
        )?))
    }

    /// Has [`Driver::recover`] called soon, once for all requests until then. Does nothing when the
    /// driver is being unbound. Any context.
    ///
    /// [`Driver::recover`]: super::Driver::recover
    pub fn request(&self) {
        self.0.work.enqueue(&self.0.queue);
    }

    /// Ends it: no callback runs, and none will. To be called with the device locked. May sleep.
    pub(super) fn end(&self) {
        self.0.work.is_ended.store(true, Release);
        self.0.work.cancel_sync();
    }
}

impl EmbeddedWorkItem for Work {
    fn run(this: Pin<&EmbeddedWork<Self>>) {
        let vdev = this.vdev.as_raw();

        // An unbind holds the device's lock while it waits for the end of this.
        while !this.is_ended.load(Acquire) {
            // SAFETY: The device is valid.
            if unsafe { bindings::virtio_device_trylock(vdev) } {
                if !this.is_ended.load(Acquire) {
                    // SAFETY: The device is locked, and `end()`, which needs the lock, was not
                    // called.
                    unsafe { (this.recover)(vdev) };
                }
                // SAFETY: Locked above.
                unsafe { bindings::virtio_device_unlock(vdev) };
                return;
            }
            fsleep(Delta::from_millis(10));
        }
    }
}
