// SPDX-License-Identifier: GPL-2.0

//! Providers and regions for tests.

use super::*;
use crate::{
    block::bio::BioList,
    device,
    faux,
    io::{
        PhysAddr,
        ResourceSize, //
    },
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use core::ptr::NonNull;

// SAFETY: The kernel crate is part of the kernel image, whose `THIS_MODULE` is null.
static KERNEL: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

/// What the provider answers to the next request.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Done,
    Fail(Error),
    Take,
    TakeAndComplete(Result),
}

/// A provider that answers as the test sets it.
#[pin_data(PinnedDrop)]
pub(super) struct Provider {
    pub(super) flushes: Atomic<u32>,
    #[pin]
    pub(super) answer: SpinLock<Answer>,
    #[pin]
    pub(super) taken: SpinLock<BioList>,
    /// Counts providers that were dropped.
    dropped: Arc<Atomic<u32>>,
}

#[pinned_drop]
impl PinnedDrop for Provider {
    fn drop(self: Pin<&mut Self>) {
        self.dropped.fetch_add(1, Relaxed);
    }
}

impl RegionProvider for Provider {
    fn flush(&self) -> Result {
        self.flushes.fetch_add(1, Relaxed);
        match *self.answer.lock() {
            Answer::Fail(error) => Err(error),
            _ => Ok(()),
        }
    }

    fn flush_bio<'a>(&self, bio: BioOffer<'a>) -> BioOutcome<'a> {
        let answer = *self.answer.lock();

        match answer {
            Answer::Done => bio.done(),
            Answer::Fail(error) => bio.reject(error),
            Answer::Take => bio.take(|bio| self.taken.lock().push(bio)),
            Answer::TakeAndComplete(result) => bio.take(|bio| bio.complete(result)),
        }
    }
}

/// A provider that leaves bios to the default.
pub(super) struct DefaultProvider(pub(super) Result);

impl RegionProvider for DefaultProvider {
    fn flush(&self) -> Result {
        self.0
    }
}

pub(super) fn provider(dropped: &Arc<Atomic<u32>>) -> Result<Arc<Provider>> {
    let dropped = dropped.clone();

    Arc::pin_init(
        pin_init!(Provider {
            flushes: Atomic::new(0),
            answer <- new_spinlock!(Answer::Done),
            taken <- new_spinlock!(BioList::new()),
            dropped,
        }),
        GFP_KERNEL,
    )
}

pub(super) fn register<P: RegionProvider>(parent: &faux::Registration) -> Result<Bus<P>> {
    let parent: &faux::Device<device::Bound> = parent.as_ref();

    Bus::register(
        parent.as_ref(),
        BusDesc {
            provider_name: c"kunit",
            module: &KERNEL,
        },
    )
}

/// Reserved addresses, which no driver of libnvdimm uses as memory.
pub(super) struct Reserved;

impl Reserved {
    const START: PhysAddr = 0x10_0000_0000;
    const SIZE: ResourceSize = 0x100_0000;

    pub(super) fn new() -> Result<Self> {
        // SAFETY: The tree of resources has its own lock, and the name is static.
        let region = unsafe {
            bindings::__request_region(
                &raw mut bindings::iomem_resource,
                Self::START,
                Self::SIZE,
                c"kunit-nvdimm".as_char_ptr(),
                0,
            )
        };

        if region.is_null() {
            return Err(EBUSY);
        }
        Ok(Self)
    }

    /// Describes a region that cannot be mapped.
    pub(super) fn region(&self) -> Result<RegionDesc> {
        Ok(RegionDesc::new(Self::START, Self::SIZE)?.flags(RegionFlag::Async))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: The addresses were reserved by `Self::new`.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, Self::START, Self::SIZE)
        };
    }
}

/// Returns the core's answer to a flush.
pub(super) fn flush(region: NonNull<bindings::nd_region>, bio: *mut bindings::bio) -> c_int {
    // SAFETY: The tests' buses are registered, so their regions exist.
    unsafe { bindings::nvdimm_flush(region.as_ptr(), bio) }
}

/// Waits until the core has enabled a region, which it does in the background.
pub(super) fn enabled(region: NonNull<bindings::nd_region>) -> bool {
    for _ in 0..5000 {
        // SAFETY: The region exists as long as its bus. The racy read is only for the test.
        let driver = unsafe {
            let dev = bindings::nd_region_dev(region.as_ptr());

            (&raw const (*dev).driver).read_volatile()
        };
        if !driver.is_null() {
            return true;
        }
        fsleep(Delta::from_millis(1));
    }
    false
}
