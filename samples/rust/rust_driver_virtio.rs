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

/// The buffer for the device: nothing to read, and room for its answer.
type Request = KBox<Command<(), [u8; 16]>>;

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(bindings::VIRTIO_ID_RNG)]);

struct SampleDriver;

/// What the queue's callback uses. It can run before `probe` has returned and has made the driver's
/// data, so it is shared.
#[pin_data]
struct Rng {
    dev: ARef<device::Device>,
    // The callback runs in hard interrupt context.
    #[pin]
    queue: SpinLockIrq<Option<Virtqueue<Request>>>,
}

impl Rng {
    /// Makes `request` available to the device.
    fn ask(&self, request: Request) -> Result {
        let queue = &mut *self.queue.lock();
        let queue = queue.as_mut().ok_or(ENODEV)?;

        queue.add(request).map_err(|(err, _)| err)?;
        if queue.kick() {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Takes a request that the device has answered.
    fn take(&self) -> Option<(Request, u32)> {
        let queue = &mut *self.queue.lock();

        queue.as_mut()?.get()
    }

    /// The callback of the queue.
    fn answered(&self) {
        while let Some((request, len)) = self.take() {
            let bytes = request.response();

            // The length that the device reports may be wrong.
            match bytes.get(..len as usize) {
                Some(bytes) => dev_info!(self.dev, "random bytes: {:02x?}\n", bytes),
                None => dev_err!(self.dev, "the device reports {} bytes\n", len),
            }
        }
    }
}

#[vtable]
impl virtio::Driver for SampleDriver {
    type Data<'bound> = Arc<Rng>;

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

        // The callback uses the queue from when the device is ready.
        let mut queues = vdev.find_vqs(rng.clone());
        let queue = queues.queue(c"input", Some(Rng::answered))?;
        *rng.queue.lock() = Some(queue);
        queues.find()?;
        vdev.ready();

        rng.ask(KBox::new(Command::new((), [0; 16]), GFP_KERNEL)?)?;
        Ok(rng)
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, rng: Pin<&Arc<Rng>>) {
        // Otherwise a request that the device has not answered would stay allocated.
        let mut stopped = vdev.stop_queues();
        let queue = rng.queue.lock().take();

        if let Some(mut queue) = queue {
            stopped.drain(&mut queue);
        }
    }
}

kernel::module_virtio_driver! {
    type: SampleDriver,
    name: "rust_driver_virtio",
    authors: ["virtio-pmem-rust project"],
    description: "Rust virtio driver sample",
    license: "GPL v2",
}
