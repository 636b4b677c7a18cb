// SPDX-License-Identifier: GPL-2.0

//! A driver with a bug, for KUnit: it keeps its queue after unbinding, and drops it at the next
//! probe.

use core::ptr;
use kernel::{
    device::Core,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
    virtio::{
        self,
        Command,
        Virtqueue, //
    },
};

type Request = KBox<Command<(), [u8; 16]>>;

/// The queue of the previous binding, from a [`KBox`].
static KEPT: Atomic<*mut Virtqueue<Request>> = Atomic::new(ptr::null_mut());

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(0xfa60)]);

struct StaleQueue;

/// Ignores all answers.
struct IgnoreAnswers;

impl virtio::Handler for IgnoreAnswers {
    fn used(&self, _index: usize) {}
}

#[vtable]
impl virtio::Driver for StaleQueue {
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let handler = Arc::new(IgnoreAnswers, GFP_KERNEL)?;
        let [mut queue] = vdev.find_vqs(handler.clone(), [c"kept"])?;

        // A device has one set of queues.
        let second = vdev.find_vqs::<Request, _, 1>(handler, [c"second"]);
        if second.err() != Some(EBUSY) {
            return Err(EINVAL);
        }

        let old = KEPT.xchg(ptr::null_mut(), Full);
        if old.is_null() {
            let request = KBox::new(Command::new((), [0; 16]), GFP_KERNEL)?;

            queue
                .add(request, GFP_KERNEL)
                .map_err(|(err, _request)| err)?;
            KEPT.store(KBox::into_raw(KBox::new(queue, GFP_KERNEL)?), Relaxed);
            return Ok(Self);
        }

        // SAFETY: `old` is from a `KBox`, and the exchange has removed the only copy.
        drop(unsafe { KBox::from_raw(old) });
        // Dropping the old queue must not affect this one.
        if queue.is_broken() {
            return Err(EIO);
        }
        Ok(Self)
    }
}

kernel::module_virtio_driver! {
    type: StaleQueue,
    name: "virtio_stale_queue",
    authors: ["virtio-pmem-rust project"],
    description: "A virtio driver that keeps its queue after unbinding, for KUnit",
    license: "GPL",
}
