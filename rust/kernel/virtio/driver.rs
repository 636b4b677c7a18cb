// SPDX-License-Identifier: GPL-2.0

//! The driver trait and the adapter that registers a driver with the virtio bus.

use super::{
    binding::Binding,
    device_work::DeviceWork,
    queues,
    Device,
    Feature, //
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
#[doc(alias = "virtio_device_id")]
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Devices of type `device` (`VIRTIO_ID_*`) of any vendor.
    #[inline]
    pub const fn new(device: u32) -> Self {
        Self::with_vendor(device, bindings::VIRTIO_DEV_ANY_ID)
    }

    /// Devices of type `device` of one vendor.
    #[inline]
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
    /// Returns whether `feature` is offered by the device and known to the driver.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtio_has_feature")]
    #[inline]
    pub fn has_feature(&self, feature: Feature) -> bool {
        self.0.test_feature(feature)
    }

    /// Withdraws `feature`, whether or not the driver's table lists it: those of the ring and the
    /// transport are negotiated without being listed.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtio_clear_bit")]
    #[inline]
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
/// All callbacks but [`config_changed`](Self::config_changed) may sleep. They run with the device's
/// lock held, so they exclude each other.
///
/// The bus stops the device and deletes its queues after [`unbind`](Self::unbind), a failed
/// [`probe`](Self::probe), [`freeze`](Self::freeze) and [`reset_prepare`](Self::reset_prepare). A
/// driver does that itself ([`Device::stop_queues`]) if it takes buffers back.
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
#[doc(alias = "virtio_driver")]
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
    ///
    /// After an error the bus stops the device when what this has made was dropped. A driver that
    /// lends a device more than buffers starts it in [`scan`](Self::scan).
    fn probe<'bound>(
        vdev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Called once after a successful [`probe`](Self::probe), when the device is ready.
    fn scan<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }

    /// Unbinds from the device: ends what uses it. The bus then drops the data, stops the device
    /// and deletes its queues.
    #[doc(alias = "remove")]
    fn unbind<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }

    /// Does what needs process context or the device's lock, and which any context has asked for
    /// ([`DeviceWork`]): reads the configuration space after a change, or recovers a device that
    /// needs a reset ([`Status`](super::Status)).
    ///
    /// Called between [`probe`](Self::probe) and [`unbind`](Self::unbind), but not from
    /// [`freeze`](Self::freeze) or [`reset_prepare`](Self::reset_prepare) until
    /// [`restore`](Self::restore) or [`reset_done`](Self::reset_done) has succeeded; what was asked
    /// for meanwhile follows then.
    fn work<'bound>(vdev: &'bound Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }

    /// Called when the device's configuration or status has changed.
    ///
    /// Runs in interrupt context with the device's configuration lock held, possibly at the same
    /// time as another callback: configuration space and status can be read only later, by
    /// [`work`](Self::work).
    ///
    /// # Examples
    ///
    /// ```ignore,compile_fail,E0599
    /// use kernel::virtio;
    ///
    /// fn config_changed(vdev: &virtio::Device) {
    ///     let _ = vdev.config();
    /// }
    /// ```
    fn config_changed<'bound>(vdev: &'bound Device, data: Pin<&Self::Data<'bound>>) {
        let _ = (vdev, data);
    }

    /// Stops the device before the system is suspended or hibernated. The bus then deletes the
    /// queues, because the device loses its state. An error aborts the suspend.
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

    /// Stops the device before its transport is reset, e.g. by a PCI function reset. The bus then
    /// deletes the queues. PCI resets the device even if this fails, and then does not call
    /// [`reset_done`](Self::reset_done).
    ///
    /// From here to the end of [`reset_done`](Self::reset_done) the device is locked.
    fn reset_prepare<'bound>(
        vdev: &'bound Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let _ = (vdev, data);
        Err(EOPNOTSUPP)
    }

    /// Starts the device after its transport was reset. The features are negotiated again; the
    /// driver finds its queues.
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
        // The device stays locked from `reset_prepare` to `reset_done`.
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
            // Elsewhere nothing excludes an unbind between the two.
            #[cfg(not(out_of_tree))]
            if T::HAS_RESET_PREPARE {
                (*vdrv).reset_prepare = Some(Self::reset_prepare_callback);
            }
            #[cfg(not(out_of_tree))]
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
    /// `vdev` is a pointer that the virtio bus passes to one of its callbacks, with the device's
    /// lock held, and the returned reference is not used after that callback.
    unsafe fn device<'a>(vdev: *mut bindings::virtio_device) -> &'a Device<CoreInternal<'a>> {
        // SAFETY: By the safety requirements the pointer is valid.
        unsafe { &*vdev.cast() }
    }

    /// Returns the driver's data.
    ///
    /// # Safety
    ///
    /// The device is bound to `T`: `probe_callback()` has succeeded, and `remove_callback()` does
    /// not drop the data as long as the returned reference is used.
    unsafe fn data<'a>(vdev: &'a Device<CoreInternal<'_>>) -> Pin<&'a T::Data<'a>> {
        let dev: &crate::device::Device<CoreInternal<'_>> = vdev.as_ref();

        // SAFETY: `probe_callback()` has stored the data, by the safety requirements.
        unsafe { dev.drvdata_borrow::<T::Data<'a>>() }
    }

    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };

        from_result(|| T::validate(&Negotiation(vdev)).map(|()| 0))
    }

    extern "C" fn probe_callback(raw: *mut bindings::virtio_device) -> c_int {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(raw) };
        let dev: &crate::device::Device<CoreInternal<'_>> = vdev.as_ref();

        from_result(|| {
            let work = if T::HAS_WORK {
                // SAFETY: `end_work()` ends it. If it gets the lock before, the device is bound.
                Some(unsafe { DeviceWork::new(vdev, Self::work_callback) }?)
            } else {
                None
            };

            // SAFETY: The device is about to be bound. `release()` removes the binding.
            unsafe { Binding::create(raw, work) }?;
            dev.set_drvdata(T::probe(vdev)).inspect_err(|_| {
                Self::end_work(vdev);
                // SAFETY: There is no data of the driver.
                unsafe { Self::release(vdev) };
            })?;
            Ok(0)
        })
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };
        let dev: &crate::device::Device<CoreInternal<'_>> = vdev.as_ref();

        Self::end_work(vdev);
        // SAFETY: The bus calls this after a successful `probe_callback()`.
        T::unbind(vdev, unsafe { Self::data(vdev) });

        // The bus checks after this callback that the device was reset, so the data cannot wait
        // for the driver core, which would drop it only then.
        //
        // SAFETY: `probe_callback()` has stored the data. No callback of the bus is running: all
        // but `config_changed` hold the device's lock, and the bus has disabled that one.
        drop(unsafe { dev.drvdata_obtain::<T::Data<'_>>() });

        // SAFETY: The data was dropped.
        unsafe { Self::release(vdev) };
    }

    fn end_work(vdev: &Device<CoreInternal<'_>>) {
        if let Some(work) = &Binding::of(vdev).work {
            work.end();
        }
    }

    /// Stops the device and ends the binding. May sleep.
    ///
    /// # Safety
    ///
    /// The driver's data was dropped, and its callbacks have ended.
    unsafe fn release(vdev: &Device<CoreInternal<'_>>) {
        queues::delete(vdev);
        // A driver may use a device without queues.
        if !vdev.status().is_reset() && !vdev.status().is_gone() {
            vdev.reset();
        }
        // SAFETY: `probe_callback()` has made the binding, and the queues were deleted above.
        unsafe { Binding::remove(vdev.as_raw()) };
    }

    extern "C" fn scan_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(vdev) };

        // SAFETY: Called after a successful probe, with the device's lock held.
        T::scan(vdev, unsafe { Self::data(vdev) });
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus. The driver gets the device without a context.
        let vdev = unsafe { Self::device(vdev) };

        // SAFETY: The bus calls this from after a successful probe until before remove, which waits
        // for it: the configuration lock is held.
        T::config_changed(vdev, unsafe { Self::data(vdev) });
    }

    /// Calls the driver. Used by [`DeviceWork`].
    ///
    /// # Safety
    ///
    /// The device is locked, and bound to `T`.
    unsafe fn work_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the safety requirements, as in a callback of the bus.
        let vdev = unsafe { Self::device(vdev) };

        // SAFETY: By the safety requirements.
        T::work(vdev, unsafe { Self::data(vdev) });
    }

    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::locked(vdev, || Self::stop(vdev, T::freeze))
    }

    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::locked(vdev, || Self::start(vdev, T::restore))
    }

    /// Calls `f` with the device locked. In-tree the core has locked it.
    ///
    /// Elsewhere the core has not, when it suspends or resumes the device and finds the driver. But
    /// then user tasks are frozen, and the transport's device is locked, so no driver is unbound.
    fn locked(vdev: *mut bindings::virtio_device, f: impl FnOnce() -> c_int) -> c_int {
        // SAFETY: Called from callbacks of the virtio bus only, so the device is valid.
        #[cfg(out_of_tree)]
        unsafe {
            bindings::virtio_device_lock(vdev)
        };
        let _ = vdev;
        let result = f();
        // SAFETY: As above; it was locked above.
        #[cfg(out_of_tree)]
        unsafe {
            bindings::virtio_device_unlock(vdev)
        };
        result
    }

    #[cfg_attr(out_of_tree, expect(dead_code))]
    extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::stop(vdev, T::reset_prepare)
    }

    #[cfg_attr(out_of_tree, expect(dead_code))]
    extern "C" fn reset_done_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::start(vdev, T::reset_done)
    }

    extern "C" fn shutdown_callback(raw: *mut bindings::virtio_device) {
        // SAFETY: Called by the virtio bus.
        let vdev = unsafe { Self::device(raw) };

        // SAFETY: The device is bound, and called with its lock held.
        T::shutdown(vdev, unsafe { Self::data(vdev) });

        // SAFETY: The device is valid. The core calls this only for drivers without a callback.
        unsafe { bindings::virtio_device_shutdown(raw) };
    }

    /// Calls `f`, by which the driver stops the device. If it does, the queues are deleted.
    fn stop(
        vdev: *mut bindings::virtio_device,
        f: impl for<'a> FnOnce(&'a Device<Core<'_>>, Pin<&T::Data<'a>>) -> Result,
    ) -> c_int {
        // SAFETY: Called from callbacks of the virtio bus only.
        let vdev = unsafe { Self::device(vdev) };

        from_result(|| {
            // SAFETY: The device is bound, and locked.
            f(vdev, unsafe { Self::data(vdev) })?;
            queues::delete(vdev);
            if let Some(work) = &Binding::of(vdev).work {
                work.suspend(vdev);
            }
            Ok(0)
        })
    }

    /// Calls `f`, by which the driver starts the device. If it fails, the queues are deleted.
    fn start(
        vdev: *mut bindings::virtio_device,
        f: impl for<'a> FnOnce(&'a Device<Core<'_>>, Pin<&T::Data<'a>>) -> Result,
    ) -> c_int {
        // SAFETY: Called from callbacks of the virtio bus only.
        let vdev = unsafe { Self::device(vdev) };

        from_result(|| {
            // SAFETY: The device is bound, and locked.
            f(vdev, unsafe { Self::data(vdev) }).inspect_err(|_| queues::delete(vdev))?;
            if let Some(work) = &Binding::of(vdev).work {
                work.resume(vdev);
            }
            Ok(0)
        })
    }
}
