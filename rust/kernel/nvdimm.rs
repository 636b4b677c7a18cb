// SPDX-License-Identifier: GPL-2.0

//! Providers of persistent memory.
//!
//! A driver that finds persistent memory registers a [`Bus`] with libnvdimm and creates regions
//! on it. libnvdimm and its own drivers make namespaces and block devices of the regions. Where
//! stores do not become durable by themselves, the driver's [`RegionProvider`] is asked to flush.
//!
//! C header: [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h)

use crate::{
    block::bio::Bio,
    device,
    impl_flags,
    io::{
        PhysAddr,
        ResourceSize, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull, //
};

/// Makes the caller's earlier stores to persistent memory visible to whoever is asked to make
/// them durable (`pmem_wmb()`).
///
/// It orders the stores of the current CPU only. So a provider calls it in the context of whoever
/// asks for a flush, before it puts the request where another CPU or the device can see it.
///
/// Can be called in any context.
#[inline]
pub fn pmem_wmb() {
    // SAFETY: A barrier can be issued anywhere.
    unsafe { bindings::pmem_wmb() };
}

/// What makes the stores to a region durable.
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
///         // Ask the device, sleep until it has answered.
///         Ok(())
///     }
///
///     fn flush_bio<'a>(&self, bio: BioOffer<'a>) -> BioOutcome<'a> {
///         if self.broken {
///             return bio.reject(EIO);
///         }
///         // Keep the bio, ask the device, complete the bio when it has answered.
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
    /// Write-back may depend on it, so what it allocates must not wait for I/O.
    fn flush(&self) -> Result;

    /// Makes all stores durable that were done before the call, among them those of the bio, if it
    /// has data: it has `REQ_FUA` then, and otherwise `REQ_PREFLUSH`, or both.
    ///
    /// The provider either [takes](BioOffer::take) the bio and completes it later, or answers at
    /// once and leaves the bio to its submitter. The default is to wait in
    /// [`RegionProvider::flush`].
    ///
    /// # Context
    ///
    /// Process context, in the submission of the bio. May sleep, and may not allocate anything
    /// that waits for I/O; a provider that allocates nothing is better, since the write may be the
    /// one that frees memory.
    fn flush_bio<'a>(&self, bio: BioOffer<'a>) -> BioOutcome<'a> {
        match self.flush() {
            Ok(()) => bio.done(),
            Err(error) => bio.reject(error),
        }
    }
}

/// Makes a lifetime invariant, so that no other one can stand in for it.
type Brand<'a> = PhantomData<fn(&'a ()) -> &'a ()>;

/// A bio that [`RegionProvider::flush_bio`] may take.
///
/// It can be looked at as a [`Bio`], and has to be turned into a [`BioOutcome`] by one of its
/// methods. The lifetime ties the outcome to this very offer, so a provider cannot say that it took
/// a bio without having taken it, nor take it and say that it did not.
///
/// # Examples
///
/// Saying "later" without having taken the bio does not compile, for lack of anything to return:
///
/// ```ignore
/// # use kernel::nvdimm::{BioOffer, BioOutcome};
/// fn flush_bio<'a>(bio: BioOffer<'a>) -> BioOutcome<'a> {
///     drop(bio);
/// }
/// ```
///
/// Taking the bio and answering as well does not compile either, for the offer is used up:
///
/// ```ignore
/// # use kernel::{block::bio::Bio, nvdimm::{BioOffer, BioOutcome}};
/// fn flush_bio<'a>(offer: BioOffer<'a>) -> BioOutcome<'a> {
///     let _ = offer.take(|bio: Bio| bio.complete(Ok(())));
///     offer.done()
/// }
/// ```
///
/// Nor can the outcome of one offer be passed off as that of another:
///
/// ```ignore
/// # use kernel::nvdimm::{BioOffer, BioOutcome};
/// fn swap<'a, 'b>(a: BioOffer<'a>, b: BioOffer<'b>) -> (BioOutcome<'a>, BioOutcome<'b>) {
///     (b.done(), a.done())
/// }
/// ```
#[must_use = "the offer has to be taken, rejected or answered"]
pub struct BioOffer<'a> {
    /// Nothing is to be done to a bio that was not taken.
    bio: ManuallyDrop<Bio>,
    _brand: Brand<'a>,
}

/// What became of a [`BioOffer`].
#[must_use = "the submitter of the bio has to know what became of it"]
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
    /// - The requirements of [`Bio::from_raw`], until the outcome is known.
    /// - If the outcome's code is `NVDIMM_FLUSH_ASYNC`, the caller must not use the bio any more.
    /// - The caller must not offer two bios with the same lifetime.
    unsafe fn new(bio: NonNull<bindings::bio>) -> Self {
        Self {
            // SAFETY: By the safety requirements of this function. As long as the bio is not
            // taken, it is only looked at.
            bio: ManuallyDrop::new(unsafe { Bio::from_raw(bio) }),
            _brand: PhantomData,
        }
    }

    /// Takes the bio: it is the provider's now, who completes it when the stores are durable.
    ///
    /// The bio may be completed before this function returns.
    #[inline]
    pub fn take(self, keep: impl FnOnce(Bio)) -> BioOutcome<'a> {
        keep(ManuallyDrop::into_inner(self.bio));

        BioOutcome {
            code: bindings::NVDIMM_FLUSH_ASYNC as c_int,
            _brand: PhantomData,
        }
    }

    /// Leaves the bio to its submitter: the stores are durable.
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

impl_flags!(
    /// The properties of a region.
    #[derive(Debug, Clone, Default, Copy, PartialEq, Eq)]
    pub struct RegionFlags(usize);

    /// A property of a region.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RegionFlag {
        /// The memory gets page structures, without which there is no DAX
        /// (`ND_REGION_PAGEMAP`).
        Pagemap = 1 << bindings::ND_REGION_PAGEMAP,

        /// Stores are durable as soon as they are visible, even those that are still in a CPU's
        /// cache (`ND_REGION_PERSIST_CACHE`).
        PersistCache = 1 << bindings::ND_REGION_PERSIST_CACHE,

        /// Stores that have left the CPU's caches are durable
        /// (`ND_REGION_PERSIST_MEMCTRL`).
        PersistMemctrl = 1 << bindings::ND_REGION_PERSIST_MEMCTRL,

        /// Stores are durable only after a flush by the [`RegionProvider`]
        /// (`ND_REGION_ASYNC`). Rules out `MAP_SYNC`.
        Async = 1 << bindings::ND_REGION_ASYNC,
    }
);

/// Describes a region of persistent memory that is to be created.
///
/// # Invariants
///
/// `start..=end` is not empty and does not wrap.
///
/// # Examples
///
/// ```
/// use kernel::{
///     nvdimm::{
///         RegionDesc,
///         RegionFlag, //
///     },
///     prelude::*, //
/// };
///
/// let desc = RegionDesc::new(0x1_0000_0000, 0x1000_0000)?
///     .flags(RegionFlag::Pagemap | RegionFlag::Async);
/// # let _ = desc;
///
/// assert_eq!(RegionDesc::new(0x1_0000_0000, 0).err(), Some(EINVAL));
/// assert_eq!(RegionDesc::new(0x1_0000_0000, u64::MAX).err(), Some(EINVAL));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RegionDesc {
    start: PhysAddr,
    end: PhysAddr,
    flags: RegionFlags,
    numa_node: c_int,
    target_node: c_int,
}

impl RegionDesc {
    /// Describes the memory of `size` bytes at the physical address `start`.
    ///
    /// The region gets no [flags](Self::flags), and the NUMA nodes that the system knows for its
    /// address: the node near to the memory, and the node that the memory would make up by
    /// itself, which are the same unless firmware says otherwise.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there is no memory in the region, or its end is not an address.
    pub fn new(start: PhysAddr, size: ResourceSize) -> Result<Self> {
        let end = size
            .checked_sub(1)
            .and_then(|rest| start.checked_add(rest))
            .ok_or(EINVAL)?;

        // SAFETY: The address of a range that is not system memory is fine, here and below.
        let numa_node = unsafe { bindings::memory_add_physaddr_to_nid(start) };
        // SAFETY: As above.
        let target_node = match unsafe { bindings::phys_to_target_node(start) } {
            bindings::NUMA_NO_NODE => numa_node,
            node => node,
        };

        // INVARIANT: `end` was computed without wrapping, from a size that is not zero.
        Ok(Self {
            start,
            end,
            flags: RegionFlags::default(),
            numa_node,
            target_node,
        })
    }

    /// Sets the region's properties.
    pub fn flags(mut self, flags: impl Into<RegionFlags>) -> Self {
        self.flags = flags.into();
        self
    }

    /// Returns the NUMA node that is near to the memory, or a negative number if there is none.
    pub fn numa_node(&self) -> c_int {
        self.numa_node
    }

    /// Returns the NUMA node that the memory makes up if it is used as system memory.
    pub fn target_node(&self) -> c_int {
        self.target_node
    }
}

/// Describes a [`Bus`] that is to be registered.
pub struct BusDesc {
    /// What the bus's `provider` attribute shows, normally the name of the driver.
    pub provider_name: &'static CStr,
    /// The module of the provider. It cannot be unloaded while a region of the bus is enabled.
    pub module: &'static ThisModule,
}

/// A registered bus of persistent memory, with its regions and their providers.
///
/// The bus is unregistered exactly once, by [`Bus::unregister`] or when it is dropped. That is
/// synchronous:
///
/// - First, the registration of regions and namespaces is awaited, which libnvdimm does in the
///   background. So a region's provider can be called before [`Bus::create_pmem_region`] returns,
///   and a region that could not be registered is only reported in the kernel's log.
/// - Then the namespaces and regions are removed. Their block devices are removed with them:
///   dirty data is written back while the providers still have to work, and new bios are refused.
///   All that call a provider are over afterwards: submissions hold a reference on the block
///   device's queue, for which its removal waits; writers of the `deep_flush` attribute hold one
///   on the attribute; and the last flush of a namespace is done by its removal itself.
/// - The bus's attributes and its control device go the same way. An open file of the control
///   device holds nothing: it looks up the bus by number for each request, and the requests that
///   have found it are awaited.
///
/// So after [`Bus::unregister`], no provider is called any more. Only then the bus lets go of its
/// providers. What is **not** awaited are bios that a provider has [taken](BioOffer::take) and not
/// completed yet. The block layer does not count them, and they may outlive the region and the
/// block device: it is the provider who has to know when all of them are completed.
///
/// A `Bus` that is leaked stays registered and keeps its providers. As for other registrations,
/// the module whose code it calls must then not be unloaded.
///
/// # Invariants
///
/// - `self.bus` is a registered bus that nobody else unregisters, and libnvdimm's own driver is
///   bound to it.
/// - `self.desc` is its descriptor, which is not written to while the bus is registered.
/// - `self.providers` holds the provider of each region that was created.
///
/// # Examples
///
/// ```
/// use kernel::{
///     device::{
///         Bound,
///         Device, //
///     },
///     nvdimm::{
///         Bus,
///         BusDesc,
///         RegionDesc,
///         RegionFlag,
///         RegionProvider, //
///     },
///     prelude::*,
///     sync::Arc, //
/// };
///
/// fn probe<P: RegionProvider>(
///     dev: &Device<Bound>,
///     module: &'static ThisModule,
///     provider: Arc<P>,
/// ) -> Result<Bus<P>> {
///     let mut bus = Bus::register(
///         dev,
///         BusDesc {
///             provider_name: c"example",
///             module,
///         },
///     )?;
///     let region = RegionDesc::new(0x1_0000_0000, 0x1000_0000)?.flags(RegionFlag::Async);
///
///     bus.create_pmem_region(&region, provider)?;
///     Ok(bus)
/// }
/// ```
#[must_use = "a bus that is dropped is unregistered"]
pub struct Bus<P: RegionProvider> {
    bus: NonNull<bindings::nvdimm_bus>,
    /// Pinned: libnvdimm keeps its address.
    _desc: Pin<KBox<Opaque<bindings::nvdimm_bus_descriptor>>>,
    providers: KVec<Arc<P>>,
}

// SAFETY: A bus may be unregistered by another task than the one that registered it. Its
// providers are `Send` and `Sync`.
unsafe impl<P: RegionProvider> Send for Bus<P> {}

// SAFETY: Nothing can be done through a shared reference.
unsafe impl<P: RegionProvider> Sync for Bus<P> {}

impl<P: RegionProvider> Bus<P> {
    /// Registers a bus as a child of the device that provides the memory.
    ///
    /// # Errors
    ///
    /// - [`ENOMEM`] if there is no memory for the descriptor.
    /// - [`ENXIO`] if libnvdimm refuses the bus, for which it gives no reason.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn register(parent: &device::Device<device::Bound>, desc: BusDesc) -> Result<Self> {
        let desc = KBox::pin(
            Opaque::new(bindings::nvdimm_bus_descriptor {
                module: desc.module.as_ptr(),
                // CAST: The core does not write to the name.
                provider_name: desc.provider_name.as_char_ptr().cast_mut(),
                ..pin_init::zeroed()
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: `parent` is a valid device. The descriptor is initialised, and it is valid until
        // the bus was unregistered: the only way to drop it is that of `Self`.
        let bus = unsafe { bindings::nvdimm_bus_register(parent.as_raw(), desc.get()) };

        // INVARIANT: The bus was just registered, and nobody else knows it. It has no regions.
        let bus = Self {
            bus: NonNull::new(bus).ok_or(ENXIO)?,
            _desc: desc,
            providers: KVec::new(),
        };

        // The core removes the regions of a bus when its driver is detached, and registers a bus
        // even if the driver would not bind to it. Unregistering would then leave the regions
        // alive, so such a bus is no use. The driver cannot be detached by other means.
        //
        // SAFETY: `bus.bus` is valid and its device is registered.
        let bound =
            unsafe { bindings::device_attach(bindings::to_nvdimm_bus_dev(bus.bus.as_ptr())) };
        if bound != 1 {
            return Err(ENXIO);
        }

        // INVARIANT: The driver is bound.
        Ok(bus)
    }

    /// Creates a region of persistent memory.
    ///
    /// The bus keeps the provider until it is unregistered. The provider can be called from now
    /// on, even before this function returns.
    ///
    /// # Errors
    ///
    /// - [`ENOMEM`] if there is no memory to note the provider.
    /// - [`ENXIO`] if libnvdimm refuses the region, for which it gives no reason.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn create_pmem_region(&mut self, desc: &RegionDesc, provider: Arc<P>) -> Result {
        self.create_region(desc, provider)?;
        Ok(())
    }

    /// Creates a region. The pointer is not to be relied on, see the body.
    fn create_region(
        &mut self,
        desc: &RegionDesc,
        provider: Arc<P>,
    ) -> Result<NonNull<bindings::nd_region>> {
        let provider_data = Arc::as_ptr(&provider).cast_mut().cast();

        // Noted first, since the provider can be called as soon as there is a region.
        self.providers.push(provider, GFP_KERNEL)?;

        let mut resource = bindings::resource {
            start: desc.start,
            end: desc.end,
            ..pin_init::zeroed()
        };
        let mut region = bindings::nd_region_desc {
            res: &mut resource,
            provider_data,
            numa_node: desc.numa_node,
            target_node: desc.target_node,
            flags: desc.flags.into(),
            flush: Some(flush_callback::<P>),
            ..pin_init::zeroed()
        };

        // SAFETY:
        // - By the type invariant, the bus is registered.
        // - `region` and `resource` are copied.
        // - `flush_callback` may be called until the bus was unregistered, as the provider is kept
        //   until then.
        let region = unsafe { bindings::nvdimm_pmem_region_create(self.bus.as_ptr(), &mut region) };

        match NonNull::new(region) {
            // The region belongs to libnvdimm, which frees it if the registration in the
            // background fails. So its address is of no use to anybody.
            Some(region) => Ok(region),
            None => {
                self.providers.pop();
                Err(ENXIO)
            }
        }
    }

    /// Unregisters the bus and lets go of its providers.
    ///
    /// The same as dropping the bus, for when the moment matters. No provider is called any more
    /// when it returns; until then, all of them have to work. See [`Bus`] for the details.
    ///
    /// # Context
    ///
    /// May sleep, for as long as the providers take to write back what is dirty. Must not be
    /// called by a provider's own method.
    pub fn unregister(self) {
        drop(self);
    }
}

impl<P: RegionProvider> Drop for Bus<P> {
    /// Unregisters the bus. See [`Bus::unregister`].
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the bus is registered and nobody else unregisters it. The
        // descriptor and the providers are dropped afterwards.
        unsafe { bindings::nvdimm_bus_unregister(self.bus.as_ptr()) };
    }
}

/// What libnvdimm calls to have a region flushed.
///
/// # Safety
///
/// - `region` must be a valid region, whose provider data is a pointer to a `P` that is valid
///   during the call.
/// - `bio` must be null, or point at a valid bio that is being submitted by the caller. If
///   `NVDIMM_FLUSH_ASYNC` is returned, the caller must not use it any more.
unsafe extern "C" fn flush_callback<P: RegionProvider>(
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
        // SAFETY: By the safety requirements of this function. The lifetime of the offer is chosen
        // by `flush_bio`, which is made for all of them, so it differs from every other.
        Some(bio) => provider.flush_bio(unsafe { BioOffer::new(bio) }).code,
    }
}

#[kunit_tests(rust_nvdimm)]
mod tests {
    use super::*;
    use crate::{
        block::bio::{
            testing::*,
            BioList, //
        },
        faux,
        new_spinlock,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            SpinLock, //
        },
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };

    // SAFETY: The kernel crate is part of the kernel image, whose `THIS_MODULE` is null.
    static KERNEL: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

    /// What the provider does with the next request.
    #[derive(Clone, Copy)]
    enum Answer {
        Done,
        Fail(Error),
        Take,
        TakeAndComplete(Result),
    }

    #[pin_data(PinnedDrop)]
    struct Provider {
        flushes: Atomic<u32>,
        #[pin]
        answer: SpinLock<Answer>,
        #[pin]
        taken: SpinLock<BioList>,
        /// Counts providers that are gone.
        gone: Arc<Atomic<u32>>,
    }

    #[pinned_drop]
    impl PinnedDrop for Provider {
        fn drop(self: Pin<&mut Self>) {
            self.gone.fetch_add(1, Relaxed);
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
    struct Sleepy(Result);

    impl RegionProvider for Sleepy {
        fn flush(&self) -> Result {
            self.0
        }
    }

    fn provider(gone: &Arc<Atomic<u32>>) -> Result<Arc<Provider>> {
        let gone = gone.clone();

        Arc::pin_init(
            pin_init!(Provider {
                flushes: Atomic::new(0),
                answer <- new_spinlock!(Answer::Done),
                taken <- new_spinlock!(BioList::new()),
                gone,
            }),
            GFP_KERNEL,
        )
    }

    fn register<P: RegionProvider>(parent: &faux::Registration) -> Result<Bus<P>> {
        let parent: &faux::Device<device::Bound> = parent.as_ref();

        Bus::register(
            parent.as_ref(),
            BusDesc {
                provider_name: c"kunit",
                module: &KERNEL,
            },
        )
    }

    /// Tells whether a bus is registered below the device.
    fn has_child(parent: &faux::Registration) -> bool {
        let parent: &faux::Device<device::Bound> = parent.as_ref();
        let parent: &device::Device<device::Bound> = parent.as_ref();

        /// Stops at the first child.
        extern "C" fn stop(_: *mut bindings::device, _: *mut c_void) -> c_int {
            1
        }

        // SAFETY: `parent` is a valid device, and `stop` can be called with everything.
        unsafe {
            bindings::device_for_each_child(parent.as_raw(), core::ptr::null_mut(), Some(stop)) != 0
        }
    }

    /// Addresses that are reserved, so that no driver of libnvdimm's takes them for memory.
    struct Reserved;

    impl Reserved {
        const START: PhysAddr = 0x10_0000_0000;
        const SIZE: ResourceSize = 0x100_0000;

        fn new() -> Result<Self> {
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
        fn region(&self) -> Result<RegionDesc> {
            Ok(RegionDesc::new(Self::START, Self::SIZE)?.flags(RegionFlag::Async))
        }
    }

    impl Drop for Reserved {
        fn drop(&mut self) {
            // SAFETY: The addresses were reserved by `Self::new`.
            unsafe {
                bindings::__release_region(
                    &raw mut bindings::iomem_resource,
                    Self::START,
                    Self::SIZE,
                )
            };
        }
    }

    /// Asks the core to flush, and returns its answer.
    fn flush(region: NonNull<bindings::nd_region>, bio: *mut bindings::bio) -> c_int {
        // SAFETY: The tests' buses are registered, and their regions exist as long.
        unsafe { bindings::nvdimm_flush(region.as_ptr(), bio) }
    }

    /// Waits until the core has enabled a region, which it does in the background.
    fn enabled(region: NonNull<bindings::nd_region>) -> bool {
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

    #[test]
    fn register_and_unregister() -> Result {
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;

        for _ in 0..2 {
            let bus = register::<Provider>(&parent)?;
            let registered = has_child(&parent);

            bus.unregister();

            assert!(registered);
            assert!(!has_child(&parent));
        }
        Ok(())
    }

    #[test]
    fn ranges_are_checked() {
        for (start, size, valid) in [
            (0x1000, 0, false),
            (0x1000, 1, true),
            (u64::MAX, 1, true),
            (u64::MAX, 2, false),
            (u64::MAX - 0xfff, 0x1000, true),
            (0x1000, u64::MAX, false),
            (0, u64::MAX, true),
        ] {
            assert_eq!(RegionDesc::new(start, size).is_ok(), valid);
        }
    }

    #[test]
    fn flags_are_the_bits_of_the_core() {
        let flags = RegionFlag::Pagemap | RegionFlag::Async;

        assert_eq!(usize::from(flags), 0b1001);
        assert_eq!(usize::from(RegionFlags::default()), 0);
    }

    #[test]
    fn sync_callers_reach_the_provider() -> Result {
        let gone = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let provider = provider(&gone)?;
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
        let gone = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let provider = provider(&gone)?;
        let mut bus = register(&parent)?;
        let region = bus.create_region(&memory.region()?, provider.clone())?;
        let clock = Clock::new(0);
        let taken = bindings::NVDIMM_FLUSH_ASYNC as c_int;
        let eio = EIO.to_errno();

        // What the provider does, what the core returns, and how often and with what status the
        // bio has been completed when it does.
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
        let good = bus.create_region(&memory.region()?, Arc::new(Sleepy(Ok(())), GFP_KERNEL)?)?;
        let good = flush(good, bio.as_raw().as_ptr());
        let bad = bus.create_region(
            &memory.region()?,
            Arc::new(Sleepy(Err(ENOMEM)), GFP_KERNEL)?,
        )?;
        let bad = flush(bad, bio.as_raw().as_ptr());

        bus.unregister();

        assert_eq!((good, bad), (0, ENOMEM.to_errno()));
        assert_eq!(bio.ended.get(), 0);
        Ok(())
    }

    #[test]
    fn bus_keeps_its_providers() -> Result {
        let gone = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let mut bus = register(&parent)?;

        bus.create_pmem_region(&memory.region()?, provider(&gone)?)?;
        bus.create_pmem_region(&memory.region()?, provider(&gone)?)?;
        let before = gone.load(Relaxed);

        bus.unregister();

        assert_eq!(before, 0);
        assert_eq!(gone.load(Relaxed), 2);
        Ok(())
    }
}
