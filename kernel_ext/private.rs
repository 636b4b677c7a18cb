// SPDX-License-Identifier: GPL-2.0

//! What is private in the kernel's crate, and used by the abstractions.

use crate::{
    bindings,
    workqueue::{
        Builder,
        Queue, //
    }, //
};
use rust_kernel::{
    alloc::Flags,
    device::{
        CoreInternal,
        Device,
        DeviceContext, //
    },
    prelude::*,
    time::hrtimer::HrTimer,
    types::ForeignOwnable, //
};

/// `Device::as_raw()`.
pub trait DeviceExt {
    /// Returns the C device.
    fn as_raw(&self) -> *mut bindings::device;
}

impl<Ctx: DeviceContext> DeviceExt for Device<Ctx> {
    fn as_raw(&self) -> *mut bindings::device {
        // CAST: `Device` is a transparent wrapper of `Opaque<bindings::device>`.
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// `Device::drvdata_obtain()`.
pub trait DrvdataExt {
    /// Takes the driver's data from the device.
    ///
    /// # Safety
    ///
    /// `T` is the type that was stored by `set_drvdata()`.
    unsafe fn drvdata_obtain<T>(&self) -> Option<Pin<KBox<T>>>;
}

impl DrvdataExt for Device<CoreInternal<'_>> {
    unsafe fn drvdata_obtain<T>(&self) -> Option<Pin<KBox<T>>> {
        // SAFETY: The device is valid.
        let ptr = unsafe { bindings::dev_get_drvdata(self.as_raw()) };

        // SAFETY: The device is valid.
        unsafe { bindings::dev_set_drvdata(self.as_raw(), core::ptr::null_mut()) };
        // SAFETY: If it is not null, it is from `into_foreign()` in `set_drvdata()`, by the safety
        // requirements for this type.
        (!ptr.is_null()).then(|| unsafe { Pin::<KBox<T>>::from_foreign(ptr.cast()) })
    }
}

/// `Error::to_blk_status()`.
pub trait ErrorExt {
    /// Returns the error as a status of the block layer.
    fn to_blk_status(self) -> bindings::blk_status_t;
}

impl ErrorExt for Error {
    fn to_blk_status(self) -> bindings::blk_status_t {
        // SAFETY: This function can be called with any error.
        unsafe { bindings::errno_to_blk_status(self.to_errno()) }
    }
}

/// `Flags::as_raw()`.
pub trait FlagsExt {
    /// Returns the flags as C has them.
    fn as_raw(self) -> u32;
}

impl FlagsExt for Flags {
    fn as_raw(self) -> u32 {
        // SAFETY: `Flags` is a wrapper of this one integer.
        unsafe { core::mem::transmute(self) }
    }
}

/// `Queue::new_ordered()`.
pub trait QueueExt {
    /// Begins the description of a queue that runs one work item at a time.
    fn new_ordered() -> Builder;
}

impl QueueExt for Queue {
    fn new_ordered() -> Builder {
        Builder::ordered()
    }
}

/// `HrTimer::raw_cancel()`.
pub trait HrTimerExt {
    /// Cancels the timer, and waits until its function has ended.
    ///
    /// # Safety
    ///
    /// `this` is valid, and its timer was initialised.
    unsafe fn raw_cancel(this: *const Self) -> bool;
}

impl<T> HrTimerExt for HrTimer<T> {
    unsafe fn raw_cancel(this: *const Self) -> bool {
        // CAST: `HrTimer` begins with an `Opaque<bindings::hrtimer>`; its mode takes no space.
        // SAFETY: By the safety requirements.
        unsafe { bindings::hrtimer_cancel(this.cast_mut().cast()) != 0 }
    }
}

/// `declare_trace!` for events of the module, which the bindings of the kernel's crate lack.
#[macro_export]
macro_rules! declare_trace {
    ($(unsafe fn $name:ident($($arg:ident : $ty:ty),* $(,)?);)*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $ty),*) {
            #[cfg(CONFIG_TRACEPOINTS)]
            $crate::macros::paste! {
                // SAFETY: The key is that of a tracepoint, and can be read at any time.
                let is_on = unsafe {
                    $crate::jump_label::static_branch_unlikely!(
                        $crate::bindings::[< __tracepoint_ $name >],
                        $crate::bindings::tracepoint,
                        key
                    )
                };

                if is_on {
                    // SAFETY: By the safety requirements of the event.
                    unsafe { $crate::bindings::[< rust_do_trace_ $name >]($($arg),*) };
                }
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            let _ = ($($arg,)*);
        }
    )*};
}
