// SPDX-License-Identifier: GPL-2.0

//! Rust virtio driver sample: random bytes from a virtio-rng device.
//!
//! To make this driver probe, QEMU must be run with `-device virtio-rng-pci`, and the device must
//! not be bound to the kernel's own driver (`virtio_rng`).

use kernel::{
    bindings,
    device::{
        self,
        Core, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        SpinLockIrq, //
    },
    virtio::{
        self,
        Command,
        Virtqueue, //
    },
};

/// What is made available to the device: nothing to read, and room for its answer.
type Request = KBox<Command<(), [u8; 16]>>;

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(bindings::VIRTIO_ID_RNG)]);

struct SampleDriver;

/// What the queue's callback works with. It can run before `probe` has returned, and until the
/// device is unbound, so it does not live in the driver's data but is shared with it.
#[pin_data]
struct Rng {
    dev: ARef<device::Device>,
    // The callback runs in hard interrupt context.
    #[pin]
    queue: SpinLockIrq<Option<Virtqueue<Request>>>,
}

impl Rng {
    /// Lends `request` to the device.
    fn ask(&self, request: Request) -> Result {
        let queue = &mut *self.queue.lock();
        let queue = queue.as_mut().ok_or(ENODEV)?;

        queue.add(request, GFP_ATOMIC).map_err(|(err, _)| err)?;
        if queue.kick() {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Takes back what the device has answered.
    fn answered(&self) -> Option<(Request, u32)> {
        let queue = &mut *self.queue.lock();

        queue.as_mut()?.get()
    }
}

impl virtio::Handler for Rng {
    fn used(&self, _index: usize) {
        while let Some((request, len)) = self.answered() {
            let bytes = request.response();

            // The device says how much it has written; it may say anything.
            match bytes.get(..len as usize) {
                Some(bytes) => dev_info!(self.dev, "random bytes: {:02x?}\n", bytes),
                None => dev_err!(self.dev, "the device has written {} bytes?\n", len),
            }
        }
    }
}

#[vtable]
impl virtio::Driver for SampleDriver {
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let dev: &device::Device<Core<'_>> = vdev.as_ref();
        let rng = Arc::pin_init(
            pin_init!(Rng {
                dev: dev.into(),
                queue <- new_spinlock_irq!(None),
            }),
            GFP_KERNEL,
        )?;

        // The queue is the driver's from here on, but the device looks at it only when it was told
        // that the driver is ready.
        let [queue] = vdev.find_vqs(rng.clone(), [c"input"])?;
        *rng.queue.lock() = Some(queue);
        vdev.ready();

        rng.ask(KBox::new(Command::new((), [0; 16]), GFP_KERNEL)?)?;
        Ok(Self)
    }

    // `remove` has nothing to do: when the device is unbound, the bus stops it, takes back what it
    // has not answered, and deletes the queue.
}

kernel::module_virtio_driver! {
    type: SampleDriver,
    name: "rust_driver_virtio",
    authors: ["virtio-pmem-rust project"],
    description: "Rust virtio driver sample",
    license: "GPL v2",
}
