// SPDX-License-Identifier: GPL-2.0

//! The flush of a region, as its provider implements it and libnvdimm calls it.

use crate::{
    block::bio::Bio,
    prelude::*,
    types::Brand, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull, //
};

/// Makes the caller's earlier stores to persistent memory visible to the device that makes them
/// durable (`pmem_wmb()`).
///
/// It orders the stores of the current CPU only. So a provider calls it in the context in which
/// [`RegionProvider`] is called, before another CPU or the device can find the request.
///
/// # Context
///
/// Any context.
#[inline]
pub fn pmem_wmb() {
    // SAFETY: A barrier can be issued anywhere.
    unsafe { bindings::pmem_wmb() };
}

/// Makes the stores to a region durable.
///
/// # Examples
///
/// ```
/// use kernel::{
///     nvdimm::{
///         BioOffer,
///         BioOutcome,
///         RegionProvider, //
///     },
///     prelude::*,
///     block::bio::BioList,
///     new_spinlock,
///     sync::SpinLock, //
/// };
///
/// #[pin_data]
/// struct Provider {
///     broken: bool,
///     #[pin]
///     waiting: SpinLock<BioList>,
/// }
///
/// impl RegionProvider for Provider {
///     fn flush(&self) -> Result {
///         // Send a request to the device, sleep until it has answered.
///         Ok(())
///     }
///
///     fn flush_bio<'a>(&self, bio: BioOffer<'a>) -> BioOutcome<'a> {
///         if self.broken {
///             return bio.reject(EIO);
///         }
///         // Keep the bio, send a request, complete the bio when the device has answered.
///         bio.take(|bio| self.waiting.lock().push(bio))
///     }
/// }
/// ```
pub trait RegionProvider: Send + Sync + 'static {
    /// Makes all stores durable that were done before the call.
    ///
    /// # Errors
    ///
    /// libnvdimm keeps [`ENOMEM`] and makes [`EIO`] of every other error.
    ///
    /// # Context
    ///
    /// May sleep. It is called when a bio with `REQ_PREFLUSH` and data is submitted, when the
    /// region's `deep_flush` attribute is written, when a namespace is torn down or shut down, and
    /// with each write to an info block or by a namespace in sector mode, which holds mutexes.
    /// Write-back may depend on it, so its allocations must not wait for I/O.
    fn flush(&self) -> Result;

    /// Makes all stores durable that were done before the call. A bio with data has `REQ_FUA`, and
    /// its own stores are among them; one without has `REQ_PREFLUSH`, `REQ_FUA` or both.
    ///
    /// The provider either [takes](BioOffer::take) the bio and completes it later, or answers at
    /// once and leaves the bio to its submitter. The default waits in [`RegionProvider::flush`].
    ///
    /// # Context
    ///
    /// Process context, in the submission of the bio. May sleep. Allocations must not wait for I/O;
    /// a provider that allocates nothing is better, because this write may be needed to free
    /// memory.
    fn flush_bio<'a>(&self, bio: BioOffer<'a>) -> BioOutcome<'a> {
        match self.flush() {
            Ok(()) => bio.done(),
            Err(error) => bio.reject(error),
        }
    }
}

/// A bio that [`RegionProvider::flush_bio`] may take.
///
/// It dereferences to the [`Bio`], and each of its methods turns it into a [`BioOutcome`]. The
/// lifetime ties the outcome to this offer. So a provider cannot return that it took a bio without
/// having taken it, nor take a bio and return that it did not.
///
/// # Examples
///
/// A provider that does not take the bio has nothing to return, so this does not compile:
///
/// ```ignore,compile_fail,E0308
/// # use kernel::nvdimm::{BioOffer, BioOutcome};
/// fn flush_bio<'a>(bio: BioOffer<'a>) -> BioOutcome<'a> {
///     drop(bio);
/// }
/// ```
///
/// Taking the bio uses the offer up, so a second answer does not compile:
///
/// ```ignore,compile_fail,E0382
/// # use kernel::{block::bio::Bio, nvdimm::{BioOffer, BioOutcome}};
/// fn flush_bio<'a>(offer: BioOffer<'a>) -> BioOutcome<'a> {
///     let _ = offer.take(|bio: Bio| bio.complete(Ok(())));
///     offer.done()
/// }
/// ```
///
/// Nor can the outcome of one offer be kept, to be returned for another:
///
/// ```ignore,compile_fail,E0521
/// # use kernel::{nvdimm::{BioOffer, BioOutcome}, sync::SpinLock};
/// fn keep<'a>(offer: BioOffer<'a>, kept: &SpinLock<Option<BioOutcome<'static>>>) {
///     kept.lock().replace(offer.done());
/// }
/// ```
#[must_use = "the offer has to be taken, rejected or answered"]
pub struct BioOffer<'a> {
    /// Not dropped: a bio that was not taken is left as it is.
    bio: ManuallyDrop<Bio>,
    _brand: Brand<'a>,
}

/// The result of a [`BioOffer`].
#[must_use = "the submitter of the bio needs the outcome"]
pub struct BioOutcome<'a> {
    /// The return value of the C callback.
    code: c_int,
    _brand: Brand<'a>,
}

impl<'a> BioOffer<'a> {
    /// Offers a bio.
    ///
    /// # Safety
    ///
    /// - The requirements of [`Bio::from_raw`], until the outcome is returned.
    /// - If the outcome's code is `NVDIMM_FLUSH_ASYNC`, the caller must not use the bio any more.
    /// - The caller must not offer two bios with the same lifetime.
    unsafe fn new(bio: NonNull<bindings::bio>) -> Self {
        Self {
            // SAFETY: By the safety requirements of this function. As long as the bio is not
            // taken, it is only read.
            bio: ManuallyDrop::new(unsafe { Bio::from_raw(bio) }),
            _brand: PhantomData,
        }
    }

    /// Takes the bio: the provider owns it now, and completes it when the stores are durable.
    ///
    /// The bio may be completed before this function returns.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "NVDIMM_FLUSH_ASYNC")]
    #[inline]
    pub fn take(self, keep: impl FnOnce(Bio)) -> BioOutcome<'a> {
        keep(ManuallyDrop::into_inner(self.bio));

        BioOutcome {
            code: bindings::NVDIMM_FLUSH_ASYNC as c_int,
            _brand: PhantomData,
        }
    }

    /// Leaves the bio to its submitter: the stores are durable.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn done(self) -> BioOutcome<'a> {
        BioOutcome {
            code: 0,
            _brand: PhantomData,
        }
    }

    /// Leaves the bio to its submitter: the stores could not be made durable.
    ///
    /// libnvdimm keeps [`ENOMEM`] and makes [`EIO`] of every other error.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn reject(self, error: Error) -> BioOutcome<'a> {
        BioOutcome {
            code: error.to_errno(),
            _brand: PhantomData,
        }
    }
}

impl Deref for BioOffer<'_> {
    type Target = Bio;

    #[inline]
    fn deref(&self) -> &Bio {
        &self.bio
    }
}

/// The flush callback of a region with a provider of type `P`.
///
/// # Safety
///
/// - `region` must be a valid region, whose provider data is a pointer to a `P` that is valid
///   during the call.
/// - `bio` must be null, or point at a valid bio that is being submitted by the caller. If
///   `NVDIMM_FLUSH_ASYNC` is returned, the caller must not use it any more.
pub(super) unsafe extern "C" fn flush_callback<P: RegionProvider>(
    region: *mut bindings::nd_region,
    bio: *mut bindings::bio,
) -> c_int {
    // SAFETY: By the safety requirements of this function.
    let provider = unsafe { &*bindings::nd_region_provider_data(region).cast::<P>() };

    match NonNull::new(bio) {
        None => match provider.flush() {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        },
        // SAFETY: By the safety requirements of this function. `flush_bio` is generic over the
        // lifetime of the offer, so it differs from every other.
        Some(bio) => provider.flush_bio(unsafe { BioOffer::new(bio) }).code,
    }
}

#[kunit_tests(rust_nvdimm_provider)]
mod tests {
    use super::{
        super::testing::*,
        *, //
    };
    use crate::{
        block::bio::testing::*,
        faux,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc, //
        }, //
    };

    #[test]
    fn sync_callers_reach_the_provider() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let provider = provider(&dropped)?;
        let mut bus = register(&parent)?;
        let region = bus.create_region(&memory.region()?, provider.clone())?;
        let enabled = enabled(region);

        // The core keeps ENOMEM and makes EIO of the rest.
        let done = flush(region, core::ptr::null_mut());
        *provider.answer.lock() = Answer::Fail(ENOMEM);
        let no_memory = flush(region, core::ptr::null_mut());
        *provider.answer.lock() = Answer::Fail(EINVAL);
        let failed = flush(region, core::ptr::null_mut());
        bus.unregister();

        assert!(enabled);
        assert_eq!(done, 0);
        assert_eq!(no_memory, ENOMEM.to_errno());
        assert_eq!(failed, EIO.to_errno());
        assert_eq!(provider.flushes.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn bios_have_one_owner() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let provider = provider(&dropped)?;
        let mut bus = register(&parent)?;
        let region = bus.create_region(&memory.region()?, provider.clone())?;
        let clock = Clock::new(0);
        let taken = bindings::NVDIMM_FLUSH_ASYNC as c_int;
        let eio = EIO.to_errno();

        // The provider's answer, what the core returns, and how often and with what status the bio
        // has been completed by then.
        let cases = [
            (Answer::Done, 0, 0, BLK_STS_OK),
            (Answer::Fail(EINVAL), eio, 0, BLK_STS_OK),
            (Answer::Take, taken, 0, BLK_STS_OK),
            (Answer::TakeAndComplete(Ok(())), taken, 1, BLK_STS_OK),
            (Answer::TakeAndComplete(Err(EIO)), taken, 1, BLK_STS_IOERR),
        ];
        let mut good = true;
        let mut submitters = KVec::with_capacity(cases.len(), GFP_KERNEL)?;

        for (answer, code, ended, status) in cases {
            let submitter = Submitter::new(&clock, WRITE | FUA)?;

            *provider.answer.lock() = answer;
            good &= flush(region, submitter.as_raw().as_ptr()) == code;
            good &= submitter.ended.get() == ended;
            good &= submitter.status.get() == status;
            submitters.push(submitter, GFP_KERNEL)?;
        }

        // A bio that was taken outlives the bus.
        bus.unregister();
        let mut left = core::mem::take(&mut *provider.taken.lock());
        let count = left.len();

        left.complete_all(Ok(()));

        assert!(good);
        assert_eq!(count, 1);
        assert_eq!(submitters[2].ended.get(), 1);
        assert_eq!(clock.get(), 3);
        Ok(())
    }

    #[test]
    fn default_waits() -> Result {
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let mut bus = register(&parent)?;
        let clock = Clock::new(0);
        let bio = Submitter::new(&clock, WRITE | FUA)?;
        let good = bus.create_region(
            &memory.region()?,
            Arc::new(DefaultProvider(Ok(())), GFP_KERNEL)?,
        )?;
        let good = flush(good, bio.as_raw().as_ptr());
        let bad = bus.create_region(
            &memory.region()?,
            Arc::new(DefaultProvider(Err(ENOMEM)), GFP_KERNEL)?,
        )?;
        let bad = flush(bad, bio.as_raw().as_ptr());

        bus.unregister();

        assert_eq!((good, bad), (0, ENOMEM.to_errno()));
        assert_eq!(bio.ended.get(), 0);
        Ok(())
    }
}
