// SPDX-License-Identifier: GPL-2.0

//! A driver with several queues, for KUnit: their callbacks, buffers of several segments, polling,
//! the reset of a queue, and work with the device locked.

use core::ptr::NonNull;
use kernel::{
    device::Core,
    new_spinlock_irq,
    page::Page,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
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
        PagesFromDevice,
        Segmented,
        Segments,
        ToDevice,
        Virtqueue, //
    },
};

/// The host's answer to which a buffer is sent again.
const AGAIN: u64 = 42;

/// The number by which the device has the silent queue reset.
const RESET: u32 = 99;

/// More than [`Segments::MAX`].
const PAGES: usize = 18;

type Inner = (ToDevice<u8>, Command<Le16, Le64>);
type Scattered = KBox<(Inner, FromDevice<u8>)>;
type Pages = KBox<PagesFromDevice>;
type Simple = KBox<Command<Le16, Le16>>;

#[repr(C)]
struct Config {
    number: u32,
    copy: u32,
    /// How many buffers the driver has found by polling.
    polled: u32,
    /// The error of the last reset.
    error: u32,
}

const NUMBER: Field<u32> = virtio::field!(Config, number);
const COPY: Field<u32> = virtio::field!(Config, copy);
const POLLED: Field<u32> = virtio::field!(Config, polled);
const ERROR: Field<u32> = virtio::field!(Config, error);

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(0xfa61)]);

struct QueuesDriver;

#[pin_data]
struct Queues {
    #[pin]
    scattered: SpinLockIrq<Option<Virtqueue<Scattered>>>,
    /// Has no callback, and is polled.
    #[pin]
    silent: SpinLockIrq<Option<Virtqueue<Simple>>>,
    #[pin]
    pages: SpinLockIrq<Option<Virtqueue<Pages>>>,
    polled: Atomic<u32>,
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
                pages <- new_spinlock_irq!(None),
                polled: Atomic::new(0),
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
        let mut pages = queues.queue(c"pages", Some(Self::written))?;

        queues.spread_interrupts(0, 1);
        queues.find()?;
        vdev.ready();

        let command = Command::new(Le16::new(0x1234), Le64::new(0));
        let buffer = ((bytes(b"abc")?, command), FromDevice::new(5, 0xee)?);
        send(&mut scattered, KBox::new(buffer, GFP_KERNEL)?)?;
        *self.scattered.lock() = Some(scattered);

        send_polled(&mut silent)?;
        *self.silent.lock() = Some(silent);

        let mut all = KVec::with_capacity(PAGES, GFP_KERNEL)?;
        for _ in 0..PAGES {
            all.push_within_capacity(Page::alloc_page(GFP_KERNEL)?)?;
        }
        let buffer = PagesFromDevice::new(all)?;
        send(&mut pages, KBox::new(buffer, GFP_KERNEL)?)?;
        *self.pages.lock() = Some(pages);
        Ok(())
    }

    /// Does what the device wants, and reports the results. May sleep.
    fn obey(&self, vdev: &virtio::Device<Core<'_>>) -> Result {
        let config = vdev.config()?;
        let number = config.read(NUMBER)?;

        if number == RESET {
            let error = self.reset(vdev).err().map_or(0, Error::to_errno);
            config.write(ERROR, error.unsigned_abs())?;
        } else {
            self.poll()?;
            config.write(POLLED, self.polled.load(Relaxed))?;
        }
        config.write(COPY, number)
    }

    /// Takes a buffer from the silent queue and sends another one, if the device has used it.
    fn poll(&self) -> Result {
        let silent = &mut *self.silent.lock();
        let queue = silent.as_mut().ok_or(ENODEV)?;

        if queue.poll() {
            let (request, _) = queue.get().ok_or(EIO)?;

            self.polled.fetch_add(1, Relaxed);
            drop(request);
            send_polled(queue)?;
        }
        Ok(())
    }

    /// Resets the silent queue, and sends a buffer on it. May sleep.
    fn reset(&self, vdev: &virtio::Device<Core<'_>>) -> Result {
        let mut queue = self.silent.lock().take().ok_or(ENODEV)?;
        let result = vdev
            .reset_queue(&mut queue)
            .and_then(|()| send_polled(&mut queue));

        *self.silent.lock() = Some(queue);
        result
    }

    /// Stops the device and takes the buffers back, used or not. May sleep.
    fn stop(&self, vdev: &virtio::Device<Core<'_>>) {
        let mut stopped = vdev.stop_queues();
        let scattered = self.scattered.lock().take();
        let silent = self.silent.lock().take();
        let pages = self.pages.lock().take();

        if let Some(mut queue) = scattered {
            stopped.drain(&mut queue);
        }
        if let Some(mut queue) = silent {
            stopped.drain(&mut queue);
        }
        if let Some(mut queue) = pages {
            stopped.drain(&mut queue);
        }
    }

    /// The callback of the queue of pages: sends them again.
    fn written(&self) {
        if let Some(queue) = &mut *self.pages.lock() {
            while let Some((buffer, _)) = queue.get() {
                let _ = send(queue, buffer);
            }
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

/// Sends a buffer, for which there is no callback.
fn send_polled(queue: &mut Virtqueue<Simple>) -> Result {
    let command = Command::new(Le16::new(1), Le16::new(2));

    send(queue, KBox::new(command, GFP_ATOMIC)?)?;
    queue.enable_callback_prepare();
    Ok(())
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

    fn work<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Arc<Queues>>) {
        if let Err(err) = this.obey(vdev) {
            dev_err!(vdev, "the work has failed: {:?}\n", err);
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
