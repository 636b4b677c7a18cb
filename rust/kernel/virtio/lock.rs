// SPDX-License-Identifier: GPL-2.0

//! The lock of a virtio device, for a driver outside the bus' callbacks.

use super::{
    reset::ResetGate,
    Adapter,
    Device,
    Driver, //
};
use crate::{
    bindings,
    device::Core,
    types::NotThreadSafe, //
};
use core::{
    marker::PhantomData,
    ops::Deref, //
};

/// A device that is locked, and bound to a driver, until this is dropped.
///
/// It dereferences to a device in the [`Core`] context, as the bus' callbacks get it, and excludes
/// them: they are called with the same lock held. Only [`Driver::reset_done`] is not, but from the
/// end of [`Driver::reset_prepare`] to its end a device cannot be locked.
#[must_use = "the device is unlocked when this is dropped"]
pub struct Locked<'a> {
    dev: &'a Device<Core<'a>>,
    _not_send: NotThreadSafe,
}

impl Device {
    /// Locks the device, if it is not locked, driver `T` has finished binding to it, and its
    /// transport does not reset it.
    ///
    /// Does not sleep, because the task that holds the lock may be waiting for the caller. Must not
    /// be called in interrupt context.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::virtio::{
    ///     self,
    ///     Status, //
    /// };
    ///
    /// /// Returns [`None`] if the device cannot be locked now.
    /// fn needs_reset<T: virtio::Driver>(vdev: &virtio::Device) -> Option<bool> {
    ///     let vdev = vdev.try_lock::<T>()?;
    ///
    ///     Some(vdev.status().contains(Status::NEEDS_RESET))
    /// }
    /// ```
    pub fn try_lock<T: Driver>(&self) -> Option<Locked<'_>> {
        // SAFETY: The device is valid.
        if !unsafe { bindings::virtio_device_trylock(self.as_raw()) } {
            return None;
        }

        let locked = Locked {
            // CAST: `Device` is a transparent wrapper, whatever its context.
            // SAFETY: The reference is used only after the checks below, which ensure the context.
            dev: unsafe { &*core::ptr::from_ref(self).cast() },
            _not_send: PhantomData,
        };

        let usable = Adapter::<T>::has_data(self)
            && ResetGate::of(&locked).is_none_or(|gate| gate.is_idle());

        usable.then_some(locked)
    }
}

impl<'a> Deref for Locked<'a> {
    type Target = Device<Core<'a>>;

    fn deref(&self) -> &Self::Target {
        self.dev
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: Locked by `try_lock`, and by the same task, since the type is not `Send`.
        unsafe { bindings::virtio_device_unlock(self.dev.as_raw()) };
    }
}
