// SPDX-License-Identifier: GPL-2.0

//! Rust virtio driver sample: a balloon, through which the host takes memory of the guest and gives
//! it back.
//!
//! To make this driver probe, QEMU must be run with `-device virtio-balloon-pci`, and the device
//! must not be bound to the kernel's own driver (`virtio_balloon`).
//!
//! The host sets the balloon's size in the configuration space. A work item allocates pages until
//! the balloon has this size, and sends their numbers on the inflate queue; or it sends the numbers
//! of pages on the deflate queue, and frees them when the host has acknowledged that. On the
//! statistics queue the host asks how much memory is available.

use core::mem::take;
use kernel::{
    bindings,
    device::{
        self,
        Bound,
        Core, //
    },
    new_mutex, new_spinlock_irq,
    page::{
        self,
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Completion,
        Mutex,
        SpinLockIrq, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    uapi,
    virtio::{
        self,
        DeviceWork,
        Feature,
        Field,
        Le16,
        Le32,
        Le64,
        Negotiation,
        ToDevice,
        Virtqueue, //
    },
    workqueue::{
        self,
        new_embedded_work,
        EmbeddedWork,
        EmbeddedWorkItem, //
    },
};

/// The numbers of pages that the device gets or gives back.
type Numbers = KBox<ToDevice<Le32>>;
/// A statistic: its tag, and its value.
type Statistic = KBox<(ToDevice<Le16>, ToDevice<Le64>)>;

/// The device counts in pages of 4 KiB.
const NUMBERS_PER_PAGE: usize = PAGE_SIZE >> uapi::VIRTIO_BALLOON_PFN_SHIFT;
/// How many pages one buffer describes.
const BATCH: usize = 256 / NUMBERS_PER_PAGE;

/// Pages are only freed after the host has acknowledged that.
const MUST_TELL_HOST: Feature = Feature::new::<{ uapi::VIRTIO_BALLOON_F_MUST_TELL_HOST }>();
const STATS_VQ: Feature = Feature::new::<{ uapi::VIRTIO_BALLOON_F_STATS_VQ }>();

const NUM_PAGES: Field<u32> = virtio::field!(uapi::virtio_balloon_config, num_pages);
const ACTUAL: Field<u32> = virtio::field!(uapi::virtio_balloon_config, actual);

/// After this time the driver tries again to allocate.
const RETRY: Msecs = 200;
/// For so long a driver that ends waits for the host.
const PATIENCE: Msecs = 2000;

kernel::virtio_device_table!(
    ID_TABLE,
    [virtio::DeviceId::new(bindings::VIRTIO_ID_BALLOON)]
);

struct Queues {
    inflate: Virtqueue<Numbers>,
    deflate: Virtqueue<Numbers>,
    statistics: Option<Virtqueue<Statistic>>,
}

#[derive(Clone, Copy)]
enum Request {
    Inflate,
    Deflate,
}

impl Queues {
    fn of(&mut self, request: Request) -> &mut Virtqueue<Numbers> {
        match request {
            Request::Inflate => &mut self.inflate,
            Request::Deflate => &mut self.deflate,
        }
    }
}

/// What the queues' callbacks use.
#[pin_data]
struct Host {
    dev: ARef<device::Device>,
    // The callbacks run in hard interrupt context.
    #[pin]
    queues: SpinLockIrq<Option<Queues>>,
    /// Ends a wait of the work item, so that it looks again at what it waits for.
    #[pin]
    wake: Completion,
    /// No request is to be sent any more, except to empty the balloon.
    is_ending: Atomic<bool>,
}

impl Host {
    /// The callback of the inflate queue and the deflate queue.
    fn acknowledged(&self) {
        self.wake.complete();
    }

    /// The callback of the statistics queue, which returns its buffer when the host wants a newer
    /// one.
    fn asked(&self) {
        self.report(None);
    }

    /// Makes a new statistic available to the device, in its first buffer or in the one that the
    /// queue has returned.
    fn report(&self, first: Option<Statistic>) {
        let queues = &mut *self.queues.lock();
        let Some(queue) = queues
            .as_mut()
            .and_then(|queues| queues.statistics.as_mut())
        else {
            return;
        };
        let Some(mut statistic) = first.or_else(|| Some(queue.get()?.0)) else {
            return;
        };
        let (_, value) = &mut *statistic;

        value.clear();
        let result = value
            .push_within_capacity(Le64::new((page::available() * PAGE_SIZE) as u64))
            .map_err(Error::from)
            .and_then(|()| queue.add(statistic).map_err(|(err, _)| err));

        if result.is_err() || !queue.kick() {
            dev_err!(self.dev, "statistics cannot be sent any more\n");
        }
    }

    /// Sends page numbers. On an error they stay in `numbers`.
    fn send(&self, request: Request, numbers: &mut Option<Numbers>) -> Result {
        let queues = &mut *self.queues.lock();
        let queue = queues.as_mut().ok_or(ENODEV)?.of(request);

        queue
            .add(numbers.take().ok_or(ENODEV)?)
            .map_err(|(err, unsent)| {
                *numbers = Some(unsent);
                err
            })?;
        // If this fails the queue is broken, and the wait ends.
        let _ = queue.kick();
        Ok(())
    }

    /// Waits until the host has acknowledged what was sent. Returns the buffer.
    ///
    /// # Errors
    ///
    /// The device has the buffer, and
    /// - [`EIO`] if the queue is broken, or
    /// - [`ETIMEDOUT`] if the driver ends and the host does not answer.
    fn wait(&self, request: Request) -> Result<Numbers> {
        let mut is_ending = false;
        let mut left = msecs_to_jiffies(PATIENCE);

        loop {
            if let Some(queues) = &mut *self.queues.lock() {
                let queue = queues.of(request);

                if let Some((numbers, _)) = queue.get() {
                    return Ok(numbers);
                }
                if queue.is_broken() {
                    return Err(EIO);
                }
            }
            match self.wake.wait_for_completion_timeout(left) {
                Ok(rest) if is_ending => left = rest,
                Err(err) if is_ending => return Err(err),
                _ => {
                    is_ending = self.is_ending.load(Acquire);
                    left = msecs_to_jiffies(PATIENCE);
                }
            }
        }
    }
}

struct Pages {
    /// What the device has.
    inflated: KVVec<Page>,
    /// The only buffer of both queues, if it is not in one of them.
    numbers: Option<Numbers>,
}

/// The balloon, and the work item that gives it the size that the host wants.
#[pin_data]
struct Balloon {
    host: Arc<Host>,
    #[pin]
    pages: Mutex<Pages>,
    // These are in the device's units.
    wanted: Atomic<u32>,
    actual: Atomic<u32>,
    /// Has the configuration space accessed, which neither an interrupt nor the work item can.
    config: DeviceWork,
}

impl EmbeddedWorkItem for Balloon {
    fn run(this: Pin<&EmbeddedWork<Self>>) {
        this.adjust();
    }
}

impl Balloon {
    /// Finds the queues. May sleep.
    fn start(&self, vdev: &virtio::Device<Core<'_>>) -> Result {
        let host = &self.host;
        let mut find = vdev.find_vqs(host.clone());
        let mut queues = Queues {
            inflate: find.queue(c"inflate", Some(Host::acknowledged))?,
            deflate: find.queue(c"deflate", Some(Host::acknowledged))?,
            statistics: None,
        };
        let mut tag = ToDevice::with_capacity(1)?;
        let value = ToDevice::with_capacity(1)?;
        tag.push_within_capacity(Le16::new(uapi::VIRTIO_BALLOON_S_AVAIL as u16))?;
        let statistic = KBox::new((tag, value), GFP_KERNEL)?;

        if vdev.has_feature(STATS_VQ) {
            queues.statistics = Some(find.queue(c"stats", Some(Host::asked))?);
        }
        self.pages.lock().numbers = Some(KBox::new(
            ToDevice::with_capacity(BATCH * NUMBERS_PER_PAGE)?,
            GFP_KERNEL,
        )?);
        *host.queues.lock() = Some(queues);
        find.find()?;
        vdev.ready();
        host.is_ending.store(false, Release);

        // The device keeps the first one until it wants a newer one.
        host.report(Some(statistic));
        Ok(())
    }

    /// Empties the balloon, and stops the device. May sleep.
    fn stop(this: &EmbeddedWork<Self>, vdev: &virtio::Device<Core<'_>>) {
        this.host.is_ending.store(true, Release);
        this.wanted.store(0, Relaxed);
        this.host.wake.complete();
        this.cancel_sync();

        // In good order, unless the host does not answer. What is left then is the guest's after
        // the reset.
        this.adjust();
        this.actual.store(0, Relaxed);
        if let Err(err) = this.write_actual(vdev) {
            dev_err!(vdev, "the balloon's size cannot be written: {:?}\n", err);
        }

        let mut stopped = vdev.stop_queues();
        let queues = this.host.queues.lock().take();

        if let Some(mut queues) = queues {
            stopped.drain(&mut queues.inflate);
            stopped.drain(&mut queues.deflate);
            if let Some(queue) = &mut queues.statistics {
                stopped.drain(queue);
            }
        }
        this.pages.lock().inflated = KVVec::new();
    }

    /// Reads the size that the host wants, and has the work item do the rest. May sleep.
    fn update(this: &EmbeddedWork<Self>, vdev: &virtio::Device<Core<'_>>) {
        let result = vdev.config().and_then(|config| {
            this.wanted.store(config.read(NUM_PAGES)?, Relaxed);
            this.write_actual(vdev)
        });

        if let Err(err) = result {
            dev_err!(vdev, "no access to the configuration space: {:?}\n", err);
        }
        this.host.wake.complete();
        this.enqueue(workqueue::system_long());
    }

    fn write_actual(&self, vdev: &virtio::Device<Bound>) -> Result {
        vdev.config()?.write(ACTUAL, self.actual.load(Relaxed))
    }

    /// Inflates or deflates the balloon until it has the size that the host wants. May sleep.
    fn adjust(&self) {
        let mut pages = self.pages.lock();
        let mut is_changed = false;
        let mut is_short = false;

        loop {
            let now = pages.inflated.len();
            let wanted = self.wanted.load(Relaxed) as usize / NUMBERS_PER_PAGE;
            let result = if now < wanted {
                self.inflate(&mut pages, BATCH.min(wanted - now))
            } else if now > wanted {
                self.deflate(&mut pages, BATCH.min(now - wanted))
            } else {
                break;
            };
            let actual = pages.inflated.len() * NUMBERS_PER_PAGE;

            self.actual.store(actual as u32, Relaxed);
            match result {
                Ok(()) => is_changed = true,
                Err(ENOMEM) if !self.host.is_ending.load(Acquire) => {
                    if !is_short {
                        dev_info!(
                            self.host.dev,
                            "no memory: {} of {} pages\n",
                            pages.inflated.len(),
                            wanted
                        );
                    }
                    is_short = true;
                    if take(&mut is_changed) {
                        self.config.schedule();
                    }
                    // Until memory was freed, or the host wants another size.
                    let _ = self
                        .host
                        .wake
                        .wait_for_completion_timeout(msecs_to_jiffies(RETRY));
                }
                Err(err) => {
                    dev_err!(
                        self.host.dev,
                        "the balloon's size cannot be changed: {:?}\n",
                        err
                    );
                    break;
                }
            }
        }
        if is_changed {
            self.config.schedule();
        }
    }

    /// Takes up to so many pages from the guest. May sleep.
    fn inflate(&self, pages: &mut Pages, count: usize) -> Result {
        let old = pages.inflated.len();

        pages.inflated.reserve(count, GFP_KERNEL | __GFP_NOWARN)?;
        while pages.inflated.len() < old + count {
            // Only what is free: a balloon is no reason to kill a process.
            let Ok(page) = Page::alloc_page(GFP_NOWAIT | __GFP_HIGHMEM) else {
                break;
            };
            pages.inflated.push_within_capacity(page)?;
        }
        if pages.inflated.len() == old {
            return Err(ENOMEM);
        }

        pages
            .describe(old)
            .and_then(|()| self.host.send(Request::Inflate, &mut pages.numbers))
            .inspect_err(|_| pages.inflated.truncate(old))?;
        pages.numbers = Some(self.host.wait(Request::Inflate)?);
        Ok(())
    }

    /// Gives so many pages back to the guest. May sleep.
    fn deflate(&self, pages: &mut Pages, count: usize) -> Result {
        let new = pages.inflated.len() - count;

        pages.describe(new)?;
        self.host.send(Request::Deflate, &mut pages.numbers)?;
        pages.numbers = Some(self.host.wait(Request::Deflate)?);
        pages.inflated.truncate(new);
        Ok(())
    }
}

impl Pages {
    /// Writes the numbers of the pages from the one with index `first` on into the buffer.
    fn describe(&mut self, first: usize) -> Result {
        // The buffer is missing if the host has not answered a request.
        let numbers = self.numbers.as_mut().ok_or(ENODEV)?;

        numbers.clear();
        for page in &self.inflated[first..] {
            let number = page.pfn() * NUMBERS_PER_PAGE;

            for number in number..number + NUMBERS_PER_PAGE {
                numbers.push_within_capacity(Le32::new(number.try_into()?))?;
            }
        }
        Ok(())
    }
}

struct SampleDriver;

#[vtable]
impl virtio::Driver for SampleDriver {
    type Data<'bound> = Pin<KBox<EmbeddedWork<Balloon>>>;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [Feature] = &[MUST_TELL_HOST, STATS_VQ];

    fn validate(vdev: &Negotiation<'_>) -> Result {
        // The page numbers of a legacy device are not little-endian.
        if vdev.has_feature(Feature::VERSION_1) {
            Ok(())
        } else {
            Err(ENODEV)
        }
    }

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let dev: &device::Device<Core<'_>> = vdev.as_ref();
        let config = vdev.work().ok_or(EINVAL)?;
        let host = Arc::pin_init(
            pin_init!(Host {
                dev: dev.into(),
                queues <- new_spinlock_irq!(None),
                wake <- Completion::new(),
                is_ending: Atomic::new(true),
            }),
            GFP_KERNEL,
        )?;
        let balloon = KBox::pin_init(
            new_embedded_work!(pin_init!(Balloon {
                host,
                pages <- new_mutex!(Pages {
                    inflated: KVVec::new(),
                    numbers: None,
                }),
                wanted: Atomic::new(0),
                actual: Atomic::new(0),
                config,
            })),
            GFP_KERNEL,
        )?;

        balloon.start(vdev)?;
        Ok(balloon)
    }

    fn scan<'bound>(vdev: &'bound virtio::Device<Core<'_>>, balloon: Pin<&Self::Data<'bound>>) {
        Balloon::update(&balloon, vdev);
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, balloon: Pin<&Self::Data<'bound>>) {
        Balloon::stop(&balloon, vdev);
    }

    fn config_changed<'bound>(_vdev: &'bound virtio::Device, balloon: Pin<&Self::Data<'bound>>) {
        balloon.config.schedule();
    }

    fn work<'bound>(vdev: &'bound virtio::Device<Core<'_>>, balloon: Pin<&Self::Data<'bound>>) {
        Balloon::update(&balloon, vdev);
    }

    // The host forgets the balloon in a suspend.
    fn freeze<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        balloon: Pin<&Self::Data<'bound>>,
    ) -> Result {
        Balloon::stop(&balloon, vdev);
        Ok(())
    }

    fn restore<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        balloon: Pin<&Self::Data<'bound>>,
    ) -> Result {
        balloon.start(vdev)?;
        Balloon::update(&balloon, vdev);
        Ok(())
    }
}

kernel::module_virtio_driver! {
    type: SampleDriver,
    name: "rust_driver_virtio_balloon",
    authors: ["virtio-pmem-rust project"],
    description: "Rust virtio driver sample: a balloon",
    license: "GPL v2",
}
