// SPDX-License-Identifier: GPL-2.0

//! The lock of a virtio device, for what a driver does outside the bus' callbacks.

use super::Device;
use crate::{
    bindings,
    device::Core,
    types::NotThreadSafe, //
};
use core::{
    marker::PhantomData,
    ops::Deref, //
};

/// A device that is locked and bound to a driver: it stays so until this is dropped.
///
/// The bus calls probe, remove, freeze, restore and the reset callbacks with the same lock held, so
/// this excludes them all and gives what they give, a device in the [`Core`] context.
#[must_use = "the device is unlocked when this is dropped"]
pub struct Locked<'a> {
    dev: &'a Device<Core<'a>>,
    _not_send: NotThreadSafe,
}

impl Device {
    /// Locks the device, if nobody has it locked and a driver has finished binding to it.
    ///
    /// Does not sleep: whoever holds the lock may be waiting for the caller. May not be called in
    /// interrupt context.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::virtio::{
    ///     self,
    ///     Status, //
    /// };
    ///
    /// /// Returns [`None`] if that cannot be told now.
    /// fn needs_reset(vdev: &virtio::Device) -> Option<bool> {
    ///     let vdev = vdev.try_lock()?;
    ///
    ///     Some(vdev.status().contains(Status::NEEDS_RESET))
    /// }
    /// ```
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        // SAFETY: The device is valid.
        if !unsafe { bindings::virtio_device_trylock(self.as_raw()) } {
            return None;
        }

        let locked = Locked {
            // CAST: `Device` is a transparent wrapper, whatever its context.
            // SAFETY: The reference is used only after the check below, that the context holds.
            dev: unsafe { &*core::ptr::from_ref(self).cast() },
            _not_send: PhantomData,
        };

        // Drivers' data is published at the end of probe, and withdrawn when remove begins.
        //
        // SAFETY: The device is valid.
        let data = unsafe { bindings::dev_get_drvdata(self.as_ref().as_raw()) };
        (!data.is_null()).then_some(locked)
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
