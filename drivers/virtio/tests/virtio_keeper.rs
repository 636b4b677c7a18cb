// SPDX-License-Identifier: GPL-2.0

//! A driver with a bug, for KUnit: its queue outlives the binding, and is dropped by the next one.

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

/// The queue of a binding that is over, in a [`KBox`].
static KEPT: Atomic<*mut Virtqueue<Request>> = Atomic::new(ptr::null_mut());

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(0xfa60)]);

struct Keeper;

/// Nobody waits for answers.
struct Deaf;

impl virtio::Handler for Deaf {
    fn used(&self, _index: usize) {}
}

#[vtable]
impl virtio::Driver for Keeper {
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let handler = Arc::new(Deaf, GFP_KERNEL)?;
        let [mut queue] = vdev.find_vqs(handler.clone(), [c"kept"])?;

        // There can be only one.
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

        // SAFETY: It is from a `KBox`, and nobody else has it.
        drop(unsafe { KBox::from_raw(old) });
        // That was not this one.
        if queue.is_broken() {
            return Err(EIO);
        }
        Ok(Self)
    }
}

kernel::module_virtio_driver! {
    type: Keeper,
    name: "virtio_keeper",
    authors: ["virtio-pmem-rust project"],
    description: "A virtio driver that keeps its queue, for KUnit",
    license: "GPL",
}
