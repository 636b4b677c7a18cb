// SPDX-License-Identifier: GPL-2.0

//! The driver trait and the adapter that registers a driver with the virtio bus.

use super::{
    queues,
    reset::ResetGate,
    Device,
    Feature,
    Status, //
};
use crate::{
    bindings,
    device::{
        Bound,
        Core,
        CoreInternal, //
    },
    device_id::RawDeviceId,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    types::Opaque,
    ThisModule, //
};
use core::{
    mem::offset_of,
    ops::Deref, //
};

/// The ID of a virtio device type, for a driver's table.
///
/// Wraps the C `struct virtio_device_id`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Devices of type `device` (`VIRTIO_ID_*`) of any vendor.
    pub const fn new(device: u32) -> Self {
        Self::with_vendor(device, bindings::VIRTIO_DEV_ANY_ID)
    }

    /// Devices of type `device` of one vendor.
    pub const fn with_vendor(device: u32, vendor: u32) -> Self {
        Self(bindings::virtio_device_id { device, vendor })
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `struct virtio_device_id`.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// [`IdTable`](crate::device_id::IdTable) type for virtio.
pub type IdTable = &'static dyn crate::device_id::IdTable<DeviceId, ()>;

/// Creates a virtio [`IdTable`](crate::virtio::IdTable) with its alias for modpost, by which udev
/// and modprobe load the module.
///
/// # Examples
///
/// ```
/// use kernel::virtio;
///
/// kernel::virtio_device_table!(TABLE, [virtio::DeviceId::new(4)]);
/// # let _: virtio::IdTable = &TABLE;
/// ```
#[macro_export]
macro_rules! virtio_device_table {
    ($table_name:ident, [$($id:expr),* $(,)?]) => {
        $crate::module_device_table!(
            "virtio", $crate::virtio::DeviceId, $table_name, @none, [$($id),*]
        );
    };
}

/// Declares a kernel module that exposes a single virtio driver.
///
/// # Examples
///
/// ```ignore
/// kernel::module_virtio_driver! {
///     type: MyDriver,
///     name: "my_driver",
///     authors: ["Author name"],
///     description: "My virtio driver",
///     license: "GPL",
/// }
/// ```
#[macro_export]
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        $crate::module_driver!(<T>, $crate::virtio::Adapter<T>, { $($f)* });
    };
}

/// A device whose features are being negotiated, for [`Driver::validate`].
///
/// It is not in the [`Core`] context, because queues may not be found yet.
pub struct Negotiation<'a>(&'a Device<Bound>);

impl Negotiation<'_> {
    /// Withdraws `feature`, whether or not the driver's table lists it: those of the ring and the
    /// transport are negotiated without being listed.
    pub fn clear_feature(&self, feature: Feature) {
        // SAFETY: The device is valid, `Feature` is within its array, and during `validate` there
        // is no other access to it.
        unsafe { bindings::virtio_clear_bit(self.0.as_raw(), feature.bit()) }
    }
}

impl Deref for Negotiation<'_> {
    type Target = Device<Bound>;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

/// A virtio driver.
///
/// All callbacks but [`config_changed`](Self::config_changed) may sleep and exclude each other.
/// They run with the device's lock held, except [`reset_done`](Self::reset_done).
///
/// Queues that the driver still owns after [`remove`](Self::remove) or a failed
/// [`probe`](Self::probe) are closed by the bus: no buffer stays with the device.
///
/// C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h), `struct virtio_driver`
///
/// # Examples
///
/// ```
/// use kernel::{
///     device::Core,
///     virtio, //
/// };
///
/// struct MyDriver;
///
/// kernel::virtio_device_table!(TABLE, [virtio::DeviceId::new(0xffff)]);
///
/// #[vtable]
/// impl virtio::Driver for MyDriver {
///     type Data<'bound> = Self;
///     const ID_TABLE: virtio::IdTable = &TABLE;
///
///     fn probe<'bound>(
///         vdev: &'bound virtio::Device<Core<'_>>,
///     ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
///         dev_info!(vdev, "a device of type {}\n", vdev.device_id());
///         Err(ENODEV)
///     }
/// }
/// ```
#[vtable]
pub trait Driver {
    /// The driver's private data of a device. `Sync`, since
    /// [`config_changed`](Self::config_changed) can be called any time.
    type Data<'bound>: Send + Sync + 'bound;

    /// The device types that the driver supports.
    const ID_TABLE: IdTable;

    /// The device type's features that the driver supports.
    const FEATURES: &'static [Feature] = &[];

    /// The same for devices older than virtio 1.0, if different.
    const FEATURES_LEGACY: Option<&'static [Feature]> = None;

    /// Checks the offered features and the configuration space before the features are final. An
    /// error keeps the driver from binding.
    fn validate(vdev: &Negotiation<'_>) -> Result {
        let _ = vdev;
        Ok(())
    }

    /// Binds to a device. Its queues can be used before this returns, after
    /// [`ready`](Device::ready). An error keeps the driver from binding.
    fn probe<'bound>(
        vdev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Called once after a successful [`probe`](Self::probe), when the device is ready.
    fn scan<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }

    /// Unbinds from the device. For steps that need a certain order; the data is dropped at the
    /// end, while the device can still be used.
    fn remove<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<KBox<Self::Data<'bound>>>) {
        let _ = vdev;
        drop(data);
    }

    /// Called when the device's configuration or status has changed.
    ///
    /// Runs in interrupt context with the device's configuration lock held, possibly at the same
    /// time as another callback: configuration space and status can be read only later, from a work
    /// item.
    fn config_changed<'bound>(vdev: &'bound Device<Bound>, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }

    /// Stops the device before the system is suspended or hibernated. The queues must be dropped,
    /// because the device loses its state. An error aborts the suspend.
    fn freeze<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) -> Result {
        let _ = (vdev, data);
        Err(EOPNOTSUPP)
    }

    /// Starts the device after the system was resumed. The features are negotiated again; the
    /// driver finds its queues. An error fails the resume of the device.
    fn restore<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) -> Result {
        let _ = (vdev, data);
        Err(EOPNOTSUPP)
    }

    /// Stops the device before its transport is reset, e.g. by a PCI function reset. The queues
    /// must be dropped. PCI resets the device even if this fails, and then does not call
    /// [`reset_done`](Self::reset_done).
    fn reset_prepare<'bound>(
        vdev: &'bound Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let _ = (vdev, data);
        Err(EOPNOTSUPP)
    }

    /// Starts the device after its transport was reset. The features are negotiated again; the
    /// driver finds its queues.
    ///
    /// Called without the device's lock, which an unbind that waits for this may hold.
    fn reset_done<'bound>(
        vdev: &'bound Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let _ = (vdev, data);
        Err(EOPNOTSUPP)
    }

    /// Stops using the device, because the system goes down. The core breaks and resets it
    /// afterwards.
    fn shutdown<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }
}

/// An adapter for the registration of virtio drivers.
pub struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is valid if a preceding call
// to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        vdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // After `reset_prepare` an unbind waits for `reset_done`.
        const { assert!(T::HAS_RESET_PREPARE == T::HAS_RESET_DONE) };

        let vdrv = vdrv.get();

        // SAFETY: It is safe to set the fields of `struct virtio_driver` on initialization.
        // `Feature` is a transparent wrapper of the C table's element type, and the tables are
        // static.
        unsafe {
            (*vdrv).driver.name = name.as_char_ptr();
            (*vdrv).id_table = T::ID_TABLE.as_ptr();
            (*vdrv).feature_table = T::FEATURES.as_ptr().cast();
            (*vdrv).feature_table_size = T::FEATURES.len() as u32;

            if let Some(legacy) = T::FEATURES_LEGACY {
                (*vdrv).feature_table_legacy = legacy.as_ptr().cast();
                (*vdrv).feature_table_size_legacy = legacy.len() as u32;
            }

            (*vdrv).probe = Some(Self::probe_callback);
            (*vdrv).remove = Some(Self::remove_callback);

            if T::HAS_VALIDATE {
                (*vdrv).validate = Some(Self::validate_callback);
            }
            if T::HAS_SCAN {
                (*vdrv).scan = Some(Self::scan_callback);
            }
            if T::HAS_CONFIG_CHANGED {
                (*vdrv).config_changed = Some(Self::config_changed_callback);
            }
            if T::HAS_FREEZE {
                (*vdrv).freeze = Some(Self::freeze_callback);
            }
            if T::HAS_RESTORE {
                (*vdrv).restore = Some(Self::restore_callback);
            }
            if T::HAS_RESET_PREPARE {
                (*vdrv).reset_prepare = Some(Self::reset_prepare_callback);
            }
            if T::HAS_RESET_DONE {
                (*vdrv).reset_done = Some(Self::reset_done_callback);
            }
            if T::HAS_SHUTDOWN {
                (*vdrv).shutdown = Some(Self::shutdown_callback);
            }
        }

        // SAFETY: `vdrv` is a valid `struct virtio_driver`, initialized above.
        to_result(unsafe { bindings::__register_virtio_driver(vdrv, module.as_ptr()) })
    }

    unsafe fn unregister(vdrv: &Opaque<Self::DriverType>) {
        // SAFETY: By the safety requirements `vdrv` was registered.
        unsafe { bindings::unregister_virtio_driver(vdrv.get()) };
    }
}

impl<T: Driver> Adapter<T> {
    /// # Safety
    ///
    /// `vdev` is a pointer that the virtio bus passes to one of its callbacks, and the returned
    /// reference is not used after that callback.
    unsafe fn device<'a>(vdev: *mut bindings::virtio_device) -> &'a Device<CoreInternal<'a>> {
        // SAFETY: By the safety requirements the pointer is valid.
        unsafe { &*vdev.cast() }
    }

    /// Returns whether the device has the data of `T`: probe has finished and remove has not begun.
    ///
    /// The result stays valid as long as the caller excludes remove.
    pub(super) fn has_data(vdev: &Device) -> bool {
        let dev = vdev.as_ref().as_raw();

        // SAFETY: The device is valid.
        let (driver, data) = unsafe { ((*dev).driver, bindings::dev_get_drvdata(dev)) };

        if driver.is_null() || data.is_null() {
            return false;
        }

        // Drivers in C keep data there, too.
        //
        // SAFETY: A device on the virtio bus is bound to a `struct virtio_driver`, which stays as
        // long as the device is bound.
        let probe =
            unsafe { (*crate::container_of!(driver, bindings::virtio_driver, driver)).probe };
        let own: unsafe extern "C" fn(*mut bindings::virtio_device) -> c_int = Self::probe_callback;

        probe.is_some_and(|probe| core::ptr::fn_addr_eq(probe, own))
    }

    /// Returns the driver's data, or [`None`] if probe has not finished or remove has begun.
    ///
    /// # Safety
    ///
    /// The data is not dropped as long as the returned reference is used.
    unsafe fn data<'a>(vdev: &'a Device<CoreInternal<'_>>) -> Option<Pin<&'a T::Data<'a>>> {
        let dev: &crate::device::Device<CoreInternal<'_>> = vdev.as_ref();

        // SAFETY: If the device has data of `T`, it was stored by `set_drvdata()` in
        // `probe_callback()`, and stays by the safety requirements.
        Self::has_data(vdev).then(|| unsafe { dev.drvdata_borrow::<T::Data<'a>>() })
    }

    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };

        from_result(|| T::validate(&Negotiation(vdev)).map(|()| 0))
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };
        let dev: &crate::device::Device<CoreInternal<'_>> = vdev.as_ref();

        queues::prepare(vdev);
        from_result(|| {
            dev.set_drvdata(T::probe(vdev))
                .inspect_err(|_| queues::release(vdev))?;
            Ok(0)
        })
    }

    extern "C" fn remove_callback(raw: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(raw) };
        let dev: &crate::device::Device<CoreInternal<'_>> = vdev.as_ref();

        if let Some(gate) = ResetGate::of(vdev) {
            gate.wait(|| Self::reset_has_failed(vdev));
        }

        // The bus has disabled changes of the configuration, but the end of a reset or of a suspend
        // enables them again.
        //
        // SAFETY: The device is valid. This waits for a callback that is running.
        unsafe { bindings::virtio_config_driver_disable(raw) };

        // The bus checks after this callback that the device was reset, so the data cannot wait
        // for the driver core, which would drop it only then.
        //
        // SAFETY: The bus calls this after a successful `probe_callback()`, which stored `T::Data`.
        // No callback of the bus is running: all but `config_changed` hold the device's lock or the
        // gate, and that one was disabled just now.
        if let Some(data) = unsafe { dev.drvdata_obtain::<T::Data<'_>>() } {
            T::remove(vdev, data);
        }

        queues::release(vdev);
        // SAFETY: The device is valid. Without data, no driver is called.
        unsafe { bindings::virtio_config_driver_enable(raw) };
    }

    extern "C" fn scan_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };

        // SAFETY: Called with the device's lock held, which excludes remove.
        if let Some(data) = unsafe { Self::data(vdev) } {
            T::scan(vdev, data);
        }
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };

        // SAFETY: Called with the configuration lock held and callbacks enabled; remove disables
        // them under that lock before it drops the data.
        if let Some(data) = unsafe { Self::data(vdev) } {
            T::config_changed(vdev, data);
        }
    }

    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::locked(vdev, |_| Self::with_data(vdev, T::freeze))
    }

    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::locked(vdev, |_| Self::with_data(vdev, T::restore))
    }

    extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::locked(vdev, |device| {
            let ret = Self::with_data(vdev, T::reset_prepare);

            if let (0, Some(gate)) = (ret, ResetGate::of(device)) {
                gate.begin();
            }
            ret
        })
    }

    extern "C" fn reset_done_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // An unbind now waits for this, with the lock held.
        //
        // SAFETY: Called by the virtio bus.
        let gate = ResetGate::of(unsafe { Self::device(vdev) });

        gate.and_then(|gate| gate.end(|| Self::with_data(vdev, T::reset_done)))
            .unwrap_or_else(|| Self::locked(vdev, |_| Self::with_data(vdev, T::reset_done)))
    }

    extern "C" fn shutdown_callback(raw: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(raw) };

        // SAFETY: Called with the device's lock held, which excludes remove.
        if let Some(data) = unsafe { Self::data(vdev) } {
            T::shutdown(vdev, data);
        }

        // SAFETY: The device is valid. The core calls this only for drivers without a callback.
        unsafe { bindings::virtio_device_shutdown(raw) };
    }

    /// Returns whether the core has failed before the call of `reset_done`. It then marks the
    /// device as failed, and makes no call.
    fn reset_has_failed(vdev: &Device<CoreInternal<'_>>) -> bool {
        let status = vdev.status();

        // The core also marks a device that had failed before, and a device that is gone reads as
        // all ones.
        //
        // SAFETY: The device is valid. `failed` was set before `reset_prepare` was called.
        let failed_before = unsafe { (*vdev.as_raw()).failed };

        status.contains(Status::FAILED) && !status.contains(Status::DRIVER_OK) && !failed_before
    }

    /// Calls `f` with the driver's data; without data (unbound meanwhile) returns [`ENODEV`].
    fn with_data(
        vdev: *mut bindings::virtio_device,
        f: impl for<'a> FnOnce(&'a Device<Core<'_>>, Pin<&T::Data<'a>>) -> Result,
    ) -> c_int {
        // SAFETY: Called from callbacks of the virtio bus only.
        let vdev = unsafe { Self::device(vdev) };

        from_result(|| {
            // SAFETY: The callers hold the device's lock, or the gate; either excludes remove.
            let data = unsafe { Self::data(vdev) }.ok_or(ENODEV)?;

            f(vdev, data).map(|()| 0)
        })
    }

    /// Calls `f` with the device's lock held.
    ///
    /// A reset by sysfs and a suspend hold the lock of the transport's device only, so they race
    /// with an unbind, and with a driver that has [locked](super::Locked) the device.
    fn locked(
        raw: *mut bindings::virtio_device,
        f: impl FnOnce(&Device<CoreInternal<'_>>) -> c_int,
    ) -> c_int {
        // SAFETY: Called from callbacks of the virtio bus only.
        let vdev = unsafe { Self::device(raw) };

        // SAFETY: The device is valid. The transport's lock is not taken under this one.
        unsafe { bindings::virtio_device_lock(raw) };
        let ret = f(vdev);
        // SAFETY: Locked above.
        unsafe { bindings::virtio_device_unlock(raw) };
        ret
    }
}
