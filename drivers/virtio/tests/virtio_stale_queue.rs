// SPDX-License-Identifier: GPL-2.0

//! A driver with bugs, for KUnit: it keeps its queue after it is unbound, and uses it when it binds
//! again.

use core::ptr;
use kernel::{
    alloc::kmemleak,
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

fn request() -> Result<Request> {
    let request = KBox::new(Command::new((), [0; 16]), GFP_KERNEL)?;

    // It stays in the queue for good.
    kmemleak::not_leak(&request);
    Ok(request)
}

/// Checks that each operation on a queue that is gone has no effect.
fn use_stale(queue: &mut Virtqueue<Request>) -> Result {
    let is_harmless = queue.add(request()?).is_err_and(|(err, _)| err == ENODEV)
        && queue.get().is_none()
        && !queue.kick()
        && !queue.kick_prepare()
        && queue.enable_callback()
        && queue.is_broken();

    if is_harmless {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

#[vtable]
impl virtio::Driver for StaleQueue {
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let handler = Arc::new((), GFP_KERNEL)?;
        let mut queues = vdev.find_vqs(handler.clone());
        let mut queue = queues.queue::<Request>(c"kept", Some(|_| ()))?;

        // It is not found yet.
        use_stale(&mut queue)?;
        queues.find()?;

        // A device has one set of queues.
        let mut second = vdev.find_vqs(handler);
        let _ = second.queue::<Request>(c"second", None)?;
        if second.find().err() != Some(EBUSY) {
            return Err(EINVAL);
        }

        let old = KEPT.xchg(ptr::null_mut(), Full);
        if old.is_null() {
            queue.add(request()?).map_err(|(err, _request)| err)?;
            KEPT.store(KBox::into_raw(KBox::new(queue, GFP_KERNEL)?), Relaxed);
            return Ok(Self);
        }

        // SAFETY: `old` is from a `KBox`, and the exchange has removed the only copy.
        let mut old = unsafe { KBox::from_raw(old) };
        use_stale(&mut old)?;
        drop(old);
        // That must not affect this one.
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
