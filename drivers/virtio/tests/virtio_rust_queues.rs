// SPDX-License-Identifier: GPL-2.0

//! A driver with several queues, for KUnit: their callbacks, buffers of several segments, and work
//! with the device locked.

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
        DeviceWork,
        Field,
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

#[repr(C)]
struct Config {
    number: u32,
    copy: u32,
}

const NUMBER: Field<u32> = virtio::field!(Config, number);
const COPY: Field<u32> = virtio::field!(Config, copy);

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(0xfa61)]);

struct QueuesDriver;

#[pin_data]
struct Queues {
    #[pin]
    scattered: SpinLockIrq<Option<Virtqueue<Scattered>>>,
    /// Has no callback.
    #[pin]
    silent: SpinLockIrq<Option<Virtqueue<Simple>>>,
    work: DeviceWork,
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
    fn new(work: DeviceWork) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                scattered <- new_spinlock_irq!(None),
                silent <- new_spinlock_irq!(None),
                work,
            }),
            GFP_KERNEL,
        )
    }

    /// Finds the queues, and sends a buffer on each. May sleep.
    fn start(self: &Arc<Self>, vdev: &virtio::Device<Core<'_>>) -> Result {
        let mut queues = vdev.find_vqs(self.clone());
        let mut scattered = queues.queue(c"scattered", Some(Self::answered))?;
        let mut silent = queues.queue(c"silent", None)?;

        queues.spread_interrupts(0, 1);
        queues.find()?;
        vdev.ready();

        let command = Command::new(Le16::new(0x1234), Le64::new(0));
        let buffer = ((bytes(b"abc")?, command), FromDevice::new(5, 0xee)?);
        send(&mut scattered, KBox::new(buffer, GFP_KERNEL)?)?;
        *self.scattered.lock() = Some(scattered);

        let command = Command::new(Le16::new(1), Le16::new(2));
        send(&mut silent, KBox::new(command, GFP_KERNEL)?)?;
        *self.silent.lock() = Some(silent);
        Ok(())
    }

    /// Stops the device and takes the buffers back, used or not. May sleep.
    fn stop(&self, vdev: &virtio::Device<Core<'_>>) {
        let mut stopped = vdev.stop_queues();
        let scattered = self.scattered.lock().take();
        let silent = self.silent.lock().take();

        if let Some(mut queue) = scattered {
            stopped.drain(&mut queue);
        }
        if let Some(mut queue) = silent {
            stopped.drain(&mut queue);
        }
    }

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

        let this = Queues::new(vdev.work().ok_or(EINVAL)?)?;
        this.start(vdev)?;
        Ok(this)
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Arc<Queues>>) {
        this.stop(vdev);
    }

    fn config_changed<'bound>(_vdev: &'bound virtio::Device, this: Pin<&Arc<Queues>>) {
        this.work.schedule();
    }

    fn work<'bound>(vdev: &'bound virtio::Device<Core<'_>>, _this: Pin<&Arc<Queues>>) {
        let copied = vdev
            .config()
            .and_then(|config| config.write(COPY, config.read(NUMBER)?));

        if let Err(err) = copied {
            dev_err!(vdev, "the number is not copied: {:?}\n", err);
        }
    }

    fn freeze<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Arc<Queues>>) -> Result {
        // This is done after the restore.
        this.work.schedule();
        this.stop(vdev);
        Ok(())
    }

    fn restore<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Arc<Queues>>) -> Result {
        this.start(vdev)
    }
}

kernel::module_virtio_driver! {
    type: QueuesDriver,
    name: "virtio_rust_queues",
    authors: ["virtio-pmem-rust project"],
    description: "A virtio driver with several queues, for KUnit",
    license: "GPL",
}
