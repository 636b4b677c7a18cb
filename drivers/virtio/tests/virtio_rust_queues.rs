// SPDX-License-Identifier: GPL-2.0

//! A driver with several queues, for KUnit: their callbacks, and buffers of several segments.

use core::ptr::NonNull;
use kernel::{
    device::Core,
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    },
    virtio::{
        self,
        Buffer,
        Command,
        FromDevice,
        Le16,
        Le64,
        Segmented,
        Segments,
        ToDevice,
        Virtqueue, //
    },
};

/// The host's answer to which a buffer is sent again.
const AGAIN: u64 = 42;

type Inner = (ToDevice<u8>, Command<Le16, Le64>);
type Scattered = KBox<(Inner, FromDevice<u8>)>;
type Simple = KBox<Command<Le16, Le16>>;

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(0xfa61)]);

struct QueuesDriver;

#[pin_data]
struct Queues {
    #[pin]
    scattered: SpinLockIrq<Option<Virtqueue<Scattered>>>,
    /// Has no callback.
    #[pin]
    silent: SpinLockIrq<Option<Virtqueue<Simple>>>,
}

/// Adds a buffer and notifies the device.
fn send<B: Buffer>(queue: &mut Virtqueue<B>, buffer: B) -> Result {
    queue.add(buffer).map_err(|(err, _)| err)?;
    if queue.kick() {
        Ok(())
    } else {
        Err(EIO)
    }
}

impl Queues {
    /// The callback of the first queue.
    fn answered(&self) {
        let mut queue = self.scattered.lock();
        let Some(queue) = &mut *queue else { return };

        queue.disable_callback();
        while let Some((buffer, _len)) = queue.get() {
            let ((_, command), bytes) = &*buffer;

            if command.response().get() == AGAIN && &bytes[..] == b"hello" {
                let _ = send(queue, buffer);
            }
        }
        let _ = queue.enable_callback_delayed();
    }
}

/// More segments than a buffer can have.
struct TooMany(ToDevice<u8>);

// SAFETY: The segments are those of the member, which the device never gets: there are too many.
unsafe impl Segmented for TooMany {
    unsafe fn readable(this: NonNull<Self>, segments: &mut Segments) {
        // SAFETY: By the safety requirements `this` is valid.
        let member = unsafe { NonNull::new_unchecked(&raw mut (*this.as_ptr()).0) };

        for _ in 0..=Segments::MAX {
            // SAFETY: As above.
            unsafe { ToDevice::readable(member, segments) };
        }
    }
}

/// Checks that a buffer is refused.
fn check_refused<S: Segmented>(vdev: &virtio::Device<Core<'_>>, buffer: S) -> Result {
    let mut queues = vdev.find_vqs(Arc::new((), GFP_KERNEL)?);
    let mut queue = queues.queue(c"refuses", None)?;

    queues.find()?;
    let result = queue.add(KBox::new(buffer, GFP_KERNEL)?);
    drop(vdev.stop_queues());

    if result.is_err_and(|(err, _)| err == EINVAL) {
        Ok(())
    } else {
        Err(EDOM)
    }
}

fn bytes(text: &[u8]) -> Result<ToDevice<u8>> {
    let mut bytes = ToDevice::with_capacity(text.len())?;

    bytes.extend_from_slice(text, GFP_KERNEL)?;
    Ok(bytes)
}

#[vtable]
impl virtio::Driver for QueuesDriver {
    type Data<'bound> = Arc<Queues>;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        check_refused(vdev, bytes(b"")?)?;
        check_refused(vdev, TooMany(bytes(b"x")?))?;
        vdev.renegotiate()?;

        let this = Arc::pin_init(
            pin_init!(Queues {
                scattered <- new_spinlock_irq!(None),
                silent <- new_spinlock_irq!(None),
            }),
            GFP_KERNEL,
        )?;
        let mut queues = vdev.find_vqs(this.clone());
        let mut scattered = queues.queue(c"scattered", Some(Queues::answered))?;
        let mut silent = queues.queue(c"silent", None)?;

        queues.spread_interrupts(0, 1);
        queues.find()?;
        vdev.ready();

        let command = Command::new(Le16::new(0x1234), Le64::new(0));
        let buffer = ((bytes(b"abc")?, command), FromDevice::new(5, 0xee)?);
        send(&mut scattered, KBox::new(buffer, GFP_KERNEL)?)?;
        *this.scattered.lock() = Some(scattered);

        let command = Command::new(Le16::new(1), Le16::new(2));
        send(&mut silent, KBox::new(command, GFP_KERNEL)?)?;
        *this.silent.lock() = Some(silent);
        Ok(this)
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Arc<Queues>>) {
        let mut stopped = vdev.stop_queues();

        let scattered = this.scattered.lock().take();
        let silent = this.silent.lock().take();

        if let Some(mut queue) = scattered {
            stopped.drain(&mut queue);
        }
        // Its buffer was used.
        if let Some(mut queue) = silent {
            stopped.drain(&mut queue);
        }
    }
}

kernel::module_virtio_driver! {
    type: QueuesDriver,
    name: "virtio_rust_queues",
    authors: ["virtio-pmem-rust project"],
    description: "A virtio driver with several queues, for KUnit",
    license: "GPL",
}
