// SPDX-License-Identifier: GPL-2.0

//! What happens to a device besides flushing: start and stop, recovery, and a host that hangs.

use crate::{
    flush::{
        watch_interval,
        Flush, //
    },
    VirtioPmem, //
};
use kernel::{
    alloc::scope::NoIo,
    debugfs::Scope,
    device::{
        self,
        Core, //
    },
    impl_has_hr_timer,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    },
    virtio::{
        self,
        Status,
        Virtqueue, //
    },
    workqueue::{
        new_embedded_work,
        Embedded,
        EmbeddedWork,
        OrderedQueue, //
    },
};

/// One request and its response take two descriptors.
const DESCRIPTORS: u32 = 2;

/// The device's one queue.
const QUEUES: [&CStr; 1] = [c"flush_queue"];

/// The work item that recovers a device that needs a reset.
struct Recover {
    vdev: ARef<virtio::Device>,
    flush: Arc<Flush>,
}

/// One device, from probe to remove.
#[pin_data]
pub(crate) struct Lifecycle {
    pub(crate) flush: Arc<Flush>,
    // Dropped before the queue that it runs on.
    #[pin]
    recover: Embedded<Recover>,
    // Not the flush path's own: bios are completed while the device is recovered.
    queue: OrderedQueue,
    #[pin]
    watchdog: HrTimer<Self>,
    #[pin]
    _debugfs: Scope<Arc<Flush>>,
}

/// As long as it lives, a host that makes no progress for the time of the module's parameter while
/// somebody waits for it is given up.
pub(crate) struct Watch {
    _handle: ArcHrTimerHandle<Lifecycle>,
}

/// Lets the flush path begin with a queue just found.
fn begin(
    flush: &Flush,
    vdev: &virtio::Device<Core<'_>>,
    queue: Virtqueue<crate::flush::Request>,
) -> Result {
    if queue.size() < DESCRIPTORS {
        dev_err!(vdev, "a queue of {} cannot hold a request\n", queue.size());
        return Err(EINVAL);
    }

    // The callback must find the queue from the first answer on.
    flush.attach(queue);
    vdev.ready();
    flush.start();
    Ok(())
}

impl Lifecycle {
    /// A device that does not flush yet. May sleep.
    pub(crate) fn new(vdev: &virtio::Device<Core<'_>>) -> Result<Arc<Self>> {
        let dev: &device::Device<Core<'_>> = vdev.as_ref();
        let flush = Flush::new(dev.into())?;
        let name = CString::try_from_fmt(fmt!("virtio_pmem_rust-{}", dev.name()))?;
        let recover = Recover {
            vdev: vdev.into(),
            flush: flush.clone(),
        };

        Arc::pin_init(
            try_pin_init!(Self {
                _debugfs <- Scope::dir(flush.clone(), &name, |flush, dir| {
                    dir.read_callback_file(c"stats", flush, &|flush: &Arc<Flush>, f| {
                        flush.stats().show(f)
                    });
                    flush.show_faults(dir);
                }),
                flush,
                recover <- new_embedded_work!(recover, "Lifecycle::recover"),
                queue: OrderedQueue::builder()
                    .mem_reclaim()
                    .build(c"virtio-pmem-recover")?,
                watchdog <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Finds the queue and starts: callers that have waited are sent. May sleep.
    pub(crate) fn start(self: &Arc<Self>, vdev: &virtio::Device<Core<'_>>) -> Result {
        // Callers may be waiting, write-back among them.
        let _noio = NoIo::new();
        let [queue] = vdev
            .find_vqs(self.clone(), QUEUES)
            .inspect_err(|_| dev_err!(vdev, "cannot find the flush queue\n"))?;

        begin(&self.flush, vdev, queue)
    }

    /// Checks whether the device needs a reset, and if so recovers it. Any context.
    pub(crate) fn check(&self) {
        self.recover.enqueue(&self.queue);
    }

    /// Watches the host's progress until the returned value is dropped. May sleep.
    pub(crate) fn watch(self: &Arc<Self>) -> Watch {
        self.flush.begin_watch();
        Watch {
            _handle: HrTimerPointer::start(self.clone(), watch_interval()),
        }
    }

    /// Ends the flush path in good order and stops the device; without the region, which must be
    /// gone. May sleep.
    pub(crate) fn finish(self: &Arc<Self>) {
        let _watch = self.watch();

        self.flush.close();
        self.recover.cancel_sync();
        self.flush.detach();
        self.flush.finish();
    }
}

impl virtio::Handler for Lifecycle {
    fn used(&self, _index: usize) {
        if self.flush.used() {
            self.check();
        }
    }
}

impl EmbeddedWork for Recover {
    fn run(this: Pin<&Embedded<Self>>) {
        // Whoever has the device locked may be waiting for the flush that this is to bring about,
        // so do not wait for the lock. If that is remove, it closes the flush path or gives it up.
        let vdev = loop {
            if let Some(vdev) = this.vdev.try_lock::<VirtioPmem>() {
                break vdev;
            }
            if this.flush.is_closed() {
                return;
            }
            fsleep(Delta::from_millis(10));
        };

        // Shutdown, suspend and reset may have come first.
        if this.flush.is_closed() || !this.flush.is_attached() {
            return;
        }
        if !vdev.status().contains(Status::NEEDS_RESET) && !this.flush.is_out_of_step() {
            return;
        }
        if !this.flush.recover() {
            return;
        }

        dev_warn!(vdev, "the device needs a reset, recovering it\n");
        let _noio = NoIo::new();
        this.flush.detach();

        let recovered = vdev
            .renegotiate()
            .and_then(|()| vdev.find_vqs_again(QUEUES))
            .and_then(|[queue]| begin(&this.flush, &vdev, queue));

        if recovered.is_err() {
            this.flush.give_up("the device could not be recovered");
        }
    }
}

impl HrTimerCallback for Lifecycle {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        this.flush.check_progress();
        context.forward_now(watch_interval());
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Lifecycle {
        mode: RelativeMode<Monotonic>,
        field: self.watchdog
    }
}
