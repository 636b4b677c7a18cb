// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the virtio bus.
//!
//! A driver implements [`Driver`] and is registered by [`module_virtio_driver!`]. The
//! [device context](device::DeviceContext) that it gets defines what it may do with the device:
//! [`Device<Core>`](device::Core) in the bus' callbacks, [`Device<Bound>`](device::Bound) as long
//! as the driver is bound. Configuration space is read through [`Config`], the queues are found by
//! [`Device::find_vqs`] and used through [`Virtqueue`]s.
//!
//! # Device types
//!
//! | type | a driver can be written |
//! | --- | --- |
//! | entropy, balloon, pmem | yes: the samples, and `virtio_pmem_rust` |
//! | rpmb, nitro secure module, parameter server, audio policy | yes, as a misc device |
//! | console, clock, gpu | in part: ports as misc devices; without class; without display |
//! | input, i2c, watchdog, sound, can, bluetooth, gpio, spi, iommu, mem | the subsystem lacks |
//! | net, block, scsi, 9p, socket, crypto, fs, video | the subsystem lacks, and see below |
//!
//! The virtio abstractions lack, by how many types need it: segments that a buffer does not own
//! alone, such as the pages of a bio; pages that the device reads; resize of a queue and contexts
//! of buffers; arrays in the configuration space; the mapping of shared memory regions.
//!
//! The kernel crate is part of vmlinux and cannot call a virtio core that is a module, so this
//! module exists only with `CONFIG_VIRTIO=y`.
//!
//! C headers: [`include/linux/virtio.h`](srctree/include/linux/virtio.h),
//! [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)
//!
//! [`module_virtio_driver!`]: crate::module_virtio_driver

mod binding;
mod buffer;
mod config;
mod device_work;
mod driver;
mod feature;
mod queues;
mod virtqueue;

pub use self::{
    buffer::{
        Buffer,
        Command,
        DmaFromDevice,
        FromDevice,
        Le16,
        Le32,
        Le64,
        PagesFromDevice,
        Segmented,
        Segments,
        ToDevice, //
    },
    config::{
        field,
        Config,
        ConfigInt,
        Field, //
    },
    device_work::DeviceWork,
    driver::{
        Adapter,
        DeviceId,
        Driver,
        IdTable,
        Negotiation, //
    },
    feature::{
        Feature,
        Status,
        StatusBit, //
    },
    queues::{
        FindVqs,
        Stopped, //
    },
    virtqueue::{
        Notifier,
        Virtqueue, //
    },
};

use self::binding::Binding;
use crate::{
    bindings,
    device::{
        self,
        Bound,
        Core, //
    },
    error::to_result,
    prelude::*,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

/// A virtio device.
///
/// Wraps the C `struct virtio_device`.
///
/// # Invariants
///
/// A [`Device`] instance represents a valid `struct virtio_device` created by the C portion of the
/// kernel.
#[doc(alias = "virtio_device")]
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

/// A range of guest physical memory that the device shares with the driver.
///
/// Found by [`Device::shm_region`]; virtio specification, "Shared Memory Regions".
#[doc(alias = "virtio_shm_region")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmRegion {
    /// Guest physical address of the first byte.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
}

impl<Ctx: device::DeviceContext> Device<Ctx> {
    fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// Returns the transport's operations.
    fn ops(&self) -> &bindings::virtio_config_ops {
        // SAFETY: By the type invariant the device is valid; `config` is set by the transport
        // before it registers the device and never changed afterwards.
        unsafe { &*(*self.as_raw()).config }
    }

    /// Returns the virtio device ID, e.g. `VIRTIO_ID_PMEM`.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn device_id(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid; `id` is constant once registered.
        unsafe { (*self.as_raw()).id.device }
    }

    /// Returns the device that is the transport, e.g. a PCI function. Any context.
    pub fn transport(&self) -> Option<&device::Device> {
        // SAFETY: By the type invariant the device is valid; its parent is constant.
        let parent = NonNull::new(unsafe { (*self.as_raw()).dev.parent })?;

        // SAFETY: The parent is a valid device, and the child holds a reference on it.
        Some(unsafe { device::Device::from_raw(parent.as_ptr()) })
    }

    /// Returns whether `feature` was negotiated. The caller excludes a negotiation.
    fn test_feature(&self, feature: Feature) -> bool {
        // SAFETY: By the type invariant the device is valid; `Feature` is within the array.
        unsafe { bindings::virtio_test_bit(self.as_raw(), feature.bit()) }
    }
}

impl Device<Bound> {
    /// Returns the device's status.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "get_status")]
    #[inline]
    pub fn status(&self) -> Status {
        let get = self.ops().get_status;

        // SAFETY: `get_status` is mandatory for transports; the device is valid.
        Status::from_bits(get.map_or(0, |get| unsafe { get(self.as_raw()) }))
    }

    /// Returns access to the device's configuration space.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the transport has no access to it.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn config(&self) -> Result<Config<'_>> {
        Config::new(self)
    }

    /// Returns the shared memory region `id`, if the device has it.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_get_shm_region")]
    pub fn shm_region(&self, id: u8) -> Option<ShmRegion> {
        let mut region = MaybeUninit::<bindings::virtio_shm_region>::zeroed();

        // SAFETY: By the type invariant the device is valid; `region` is writable.
        let found =
            unsafe { bindings::virtio_get_shm_region(self.as_raw(), region.as_mut_ptr(), id) };

        found.then(|| {
            // SAFETY: All bytes were zeroed, and every bit pattern of the two integers is valid.
            let region = unsafe { region.assume_init() };

            ShmRegion {
                addr: region.addr,
                len: region.len,
            }
        })
    }
}

impl Device<Core<'_>> {
    /// Returns whether `feature` was negotiated.
    ///
    /// Unlike C's `virtio_has_feature()`, it may be called for a feature that the driver did not
    /// list, and returns `false`.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtio_has_feature")]
    #[inline]
    pub fn has_feature(&self, feature: Feature) -> bool {
        self.test_feature(feature)
    }

    /// Returns the driver's [device work](Driver::work), if it has that callback.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn work(&self) -> Option<DeviceWork> {
        Binding::of(self).work.clone()
    }

    /// Sets `DRIVER_OK`: the device uses its queues from here on.
    ///
    /// Needed in [`Driver::probe`], [`Driver::restore`] and [`Driver::reset_done`] only if the
    /// queues are used before the callback returns; the core does it otherwise. A second call does
    /// nothing.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_device_ready")]
    pub fn ready(&self) {
        if !self.status().contains(StatusBit::DriverOk) {
            // SAFETY: By the type invariant the device is valid.
            unsafe { bindings::virtio_device_ready(self.as_raw()) }
        }
    }

    /// Resets the device and waits until it has acknowledged.
    ///
    /// The queues, if there are any, are useless afterwards; [`stop_queues`](Self::stop_queues)
    /// resets a device with queues. A reset need not stop a request in flight: some hosts answer it
    /// later.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_reset_device")]
    #[inline]
    pub fn reset(&self) {
        // SAFETY: By the type invariant the device is valid. The core context excludes other
        // callbacks of the bus, so the reset is not concurrent with probe or remove.
        unsafe { bindings::virtio_reset_device(self.as_raw()) }
    }

    /// Negotiates the same features again after a [reset](Self::reset). The driver then finds the
    /// queues and calls [`ready`](Self::ready).
    ///
    /// For a driver that recovers a device that [needs a reset](StatusBit::NeedsReset); before
    /// [`Driver::restore`] and [`Driver::reset_done`] the core does this itself.
    ///
    /// # Errors
    ///
    /// What the transport returns, or [`ENODEV`] if the device does not accept the features any
    /// more; the device is then marked as failed.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "finalize_features")]
    pub fn renegotiate(&self) -> Result {
        self.try_renegotiate()
            .inspect_err(|_| self.add_status(StatusBit::Failed))
    }

    /// Leaves `feature` out when features are negotiated the next time: by the core before
    /// [`Driver::restore`] and [`Driver::reset_done`], or by [`renegotiate`](Self::renegotiate).
    ///
    /// For a feature that the driver can do without. To be called when there are no queues, because
    /// a ring has the features that it was made with.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtio_clear_bit")]
    #[inline]
    pub fn decline_feature(&self, feature: Feature) {
        // SAFETY: By the type invariant the device is valid; `Feature` is within the array. The
        // core context excludes other writers.
        unsafe { bindings::virtio_clear_bit(self.as_raw(), feature.bit()) }
    }

    fn try_renegotiate(&self) -> Result {
        self.add_status(StatusBit::Acknowledge);
        self.add_status(StatusBit::Driver);

        let finalize = self.ops().finalize_features.ok_or(ENODEV)?;
        // SAFETY: By the type invariant the device is valid.
        to_result(unsafe { finalize(self.as_raw()) })?;

        if self.has_feature(Feature::VERSION_1) {
            self.add_status(StatusBit::FeaturesOk);
            if !self.status().contains(StatusBit::FeaturesOk) {
                return Err(ENODEV);
            }
        }
        Ok(())
    }

    fn add_status(&self, bit: StatusBit) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::virtio_add_status(self.as_raw(), bit as c_uint) }
    }
}

// SAFETY: `Device` is a transparent wrapper of `struct virtio_device`, so there is a valid `struct
// device` at the offset.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::virtio_device, dev);
}

// SAFETY: `Device` is a transparent wrapper of a type that does not depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant `as_raw()` points to a valid `struct virtio_device`.
        let dev = unsafe { &raw mut (*self.as_raw()).dev };

        // SAFETY: `dev` points to a valid `struct device`.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: A virtio device is reference-counted through its `struct device`.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The existence of a shared reference guarantees that the count is non-zero.
        unsafe { bindings::get_device(self.as_ref().as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller hands over a reference, so the object is still valid here.
        let dev = unsafe { obj.as_ref() }.as_ref().as_raw();

        // SAFETY: As above, the count is non-zero.
        unsafe { bindings::put_device(dev) };
    }
}

// SAFETY: A `struct virtio_device` can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: All methods that take a shared reference are synchronized by the virtio core, or by the
// device context they demand.
unsafe impl Sync for Device {}

// SAFETY: As for `Device<Normal>`; `Bound` is a zero-sized marker.
unsafe impl Sync for Device<Bound> {}
