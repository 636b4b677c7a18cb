// SPDX-License-Identifier: GPL-2.0

//! The bus of a provider, with its regions.

use super::{
    provider::flush_callback,
    RegionDesc,
    RegionProvider, //
};
use crate::{
    device,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};
use core::ptr::NonNull;

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
/// - It first waits for the registration of regions and namespaces, which libnvdimm does in the
///   background. So a region's provider can be called before [`Bus::create_pmem_region`] returns,
///   and a region that could not be registered is only reported in the kernel's log.
/// - Then the namespaces and regions are removed. Their block devices are removed with them:
///   dirty data is written back while the providers still have to work, and new bios are refused.
///   After that no caller of a provider is left: submissions hold a reference on the block
///   device's queue, for which its removal waits; writers of the `deep_flush` attribute hold one
///   on the attribute; and the last flush of a namespace is done by its removal itself.
/// - The bus's attributes and its control device are removed in the same way. An open file of the
///   control device holds no reference: each request looks up the bus by number, and the removal
///   waits for the requests that have found it.
///
/// So after [`Bus::unregister`], no provider is called any more. Only then does the bus drop its
/// references to the providers. It does **not** wait for bios that a provider has
/// [taken](super::BioOffer::take) and not completed yet. The block layer does not count them, and
/// they may outlive the region and the block device: the provider has to keep track of them.
///
/// A `Bus` that is leaked stays registered and keeps its providers. As for other registrations,
/// the module whose code it calls must then not be unloaded.
///
/// # Invariants
///
/// - `self.bus` is a registered bus that only `self` unregisters, and libnvdimm's own driver is
///   bound to it.
/// - `self._desc` is its descriptor, which is not written to while the bus is registered.
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
#[doc(alias = "nvdimm_bus")]
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
    /// - [`ENXIO`] if libnvdimm refuses the bus; it reports no reason.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "nvdimm_bus_register")]
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
        // the bus was unregistered: it is dropped with `Self` only.
        let bus = unsafe { bindings::nvdimm_bus_register(parent.as_raw(), desc.get()) };

        // INVARIANT: The bus was just registered, this is its only owner, and it has no regions.
        let bus = Self {
            bus: NonNull::new(bus).ok_or(ENXIO)?,
            _desc: desc,
            providers: KVec::new(),
        };

        // The core removes the regions of a bus when its driver is detached, and registers a bus
        // even if the driver would not bind to it. Unregistering would then leave the regions
        // alive, so such a bus is refused. The driver cannot be detached by other means.
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
    /// - [`ENOMEM`] if there is no memory for the list of providers.
    /// - [`ENXIO`] if libnvdimm refuses the region; it reports no reason.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "nvdimm_pmem_region_create")]
    pub fn create_pmem_region(&mut self, desc: &RegionDesc, provider: Arc<P>) -> Result {
        self.create_region(desc, provider)?;
        Ok(())
    }

    /// Creates a region. libnvdimm frees it if its registration in the background fails, so the
    /// pointer is for tests only.
    pub(super) fn create_region(
        &mut self,
        desc: &RegionDesc,
        provider: Arc<P>,
    ) -> Result<NonNull<bindings::nd_region>> {
        let provider_data = Arc::as_ptr(&provider).cast_mut().cast();

        // Kept first, because the provider can be called as soon as there is a region.
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
        // - `flush_callback` may be called until the bus was unregistered: the provider is kept
        //   until then.
        let region = unsafe { bindings::nvdimm_pmem_region_create(self.bus.as_ptr(), &mut region) };

        match NonNull::new(region) {
            Some(region) => Ok(region),
            None => {
                self.providers.pop();
                Err(ENXIO)
            }
        }
    }

    /// Unregisters the bus and drops its references to the providers.
    ///
    /// The same as dropping the bus, at a named moment. No provider is called any more when it
    /// returns; until then, all of them have to work. See [`Bus`] for the details.
    ///
    /// # Context
    ///
    /// May sleep, for as long as the write-back of dirty data takes. Must not be called by a
    /// provider's own method.
    #[doc(alias = "nvdimm_bus_unregister")]
    pub fn unregister(self) {
        drop(self);
    }
}

impl<P: RegionProvider> Drop for Bus<P> {
    /// Unregisters the bus. See [`Bus::unregister`].
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the bus is registered and only `self` unregisters it. The
        // descriptor and the providers are dropped afterwards.
        unsafe { bindings::nvdimm_bus_unregister(self.bus.as_ptr()) };
    }
}

#[kunit_tests(rust_nvdimm_bus)]
mod tests {
    use super::{
        super::testing::*,
        *, //
    };
    use crate::{
        faux,
        sync::atomic::{
            Atomic,
            Relaxed, //
        }, //
    };

    /// Returns whether a bus is registered below the device.
    fn has_child(parent: &faux::Registration) -> bool {
        let parent: &faux::Device<device::Bound> = parent.as_ref();
        let parent: &device::Device<device::Bound> = parent.as_ref();

        /// Stops at the first child.
        extern "C" fn stop(_: *mut bindings::device, _: *mut c_void) -> c_int {
            1
        }

        // SAFETY: `parent` is a valid device, and `stop` can be called with any arguments.
        unsafe {
            bindings::device_for_each_child(parent.as_raw(), core::ptr::null_mut(), Some(stop)) != 0
        }
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
    fn bus_keeps_its_providers() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let memory = Reserved::new()?;
        let parent = faux::Registration::new(c"kunit-nvdimm", None)?;
        let mut bus = register(&parent)?;

        bus.create_pmem_region(&memory.region()?, provider(&dropped)?)?;
        bus.create_pmem_region(&memory.region()?, provider(&dropped)?)?;
        let before = dropped.load(Relaxed);

        bus.unregister();

        assert_eq!(before, 0);
        assert_eq!(dropped.load(Relaxed), 2);
        Ok(())
    }
}
