// SPDX-License-Identifier: GPL-2.0

//! What the bus keeps of a bound device, beside the driver's data.

use super::{
    device_work::DeviceWork,
    queues::Queues,
    Device, //
};
use crate::{
    bindings,
    device::Core,
    prelude::*, //
};
use core::{
    cell::UnsafeCell,
    ptr, //
};

/// The content of `virtio_device.priv` from before [`probe`](super::Driver::probe) until the driver
/// is unbound.
pub(super) struct Binding {
    queues: UnsafeCell<Option<KBox<Queues>>>,
    pub(super) work: Option<DeviceWork>,
}

impl Binding {
    /// Makes the binding of a device that a driver is about to bind to.
    ///
    /// # Safety
    ///
    /// The device has no binding. [`remove`](Self::remove) is called before the core context of the
    /// driver ends.
    pub(super) unsafe fn create(
        vdev: *mut bindings::virtio_device,
        work: Option<DeviceWork>,
    ) -> Result {
        let binding = KBox::new(
            Self {
                queues: UnsafeCell::new(None),
                work,
            },
            GFP_KERNEL,
        )?;

        // SAFETY: The device is valid, and `priv` belongs to the driver that is being bound.
        // Drivers in C leave their value in it.
        unsafe { (*vdev).priv_ = KBox::into_raw(binding).cast() };
        Ok(())
    }

    /// Removes the binding of a device.
    ///
    /// # Safety
    ///
    /// The device has a binding without queues, which is not used any more.
    pub(super) unsafe fn remove(vdev: *mut bindings::virtio_device) {
        // SAFETY: The device is valid. By the safety requirements `priv` is from `create()`.
        drop(unsafe { KBox::from_raw((*vdev).priv_.cast::<Self>()) });
        // SAFETY: As above.
        unsafe { (*vdev).priv_ = ptr::null_mut() };
    }

    /// Returns the binding of a device.
    pub(super) fn of<'a>(vdev: &'a Device<Core<'_>>) -> &'a Self {
        // SAFETY: A device is in the core context only in callbacks of the adapter, which makes the
        // binding before the first of them that has this context, and removes it after the last.
        unsafe { Self::of_raw(vdev.as_raw()) }
    }

    /// # Safety
    ///
    /// The device is valid and has a binding, as long as the returned reference is used.
    pub(super) unsafe fn of_raw<'a>(vdev: *mut bindings::virtio_device) -> &'a Self {
        // SAFETY: By the safety requirements.
        unsafe { &*(*vdev).priv_.cast::<Self>() }
    }

    /// Returns the device's queues, stopped or not.
    pub(super) fn queues(&self) -> Option<&Queues> {
        // SAFETY: By the safety requirements of `set_queues()`, this changes only where nothing
        // uses the reference.
        unsafe { (*self.queues.get()).as_deref() }
    }

    /// Replaces the set of queues. Returns the old one.
    ///
    /// # Safety
    ///
    /// The caller is in the core context, and has no reference from [`queues`](Self::queues). The
    /// device has no queues, so that there are no callbacks.
    pub(super) unsafe fn set_queues(&self, queues: Option<KBox<Queues>>) -> Option<KBox<Queues>> {
        // SAFETY: By the safety requirements there is no other access.
        core::mem::replace(unsafe { &mut *self.queues.get() }, queues)
    }
}
