// SPDX-License-Identifier: GPL-2.0

//! Driver for virtio-pmem devices.
//!
//! The memory of such a device is a file of the host, mapped into the guest. Stores land in the
//! host's page cache; a FLUSH on the device's one virtqueue has the host write them back. This
//! driver makes the memory a region of libnvdimm and provides its flush.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.19 "PMEM Device".
//! C header: [`include/uapi/linux/virtio_pmem.h`](srctree/include/uapi/linux/virtio_pmem.h)

#![crate_name = "virtio_pmem_rust"]

mod callers;
// The file is also compiled by a host crate, and there it is public.
#[allow(dead_code, unreachable_pub)]
mod engine;
mod flush;
mod lifecycle;
mod range;
mod stats;
mod trace;

use flush::Flush;
use kernel::{
    bindings,
    device::{
        Bound,
        Core, //
    },
    new_mutex,
    nvdimm::{
        Bus,
        BusDesc,
        RegionDesc,
        RegionFlag, //
    },
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    virtio::{
        self,
        Feature, //
    },
    ModuleMetadata, //
};
use lifecycle::{
    Lifecycle,
    Watch, //
};
use range::{
    Range,
    SHMEM_REGION, //
};

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(bindings::VIRTIO_ID_PMEM)]);

kernel::module_virtio_driver! {
    type: VirtioPmem,
    name: "virtio_pmem_rust",
    authors: ["virtio-pmem-rust project"],
    description: "Virtio pmem driver",
    license: "GPL",
    params: {
        timeout: u32 {
            default: 30,
            description: "Seconds without an answer that end a removal or a suspend",
        },
    },
}

/// The module's parameter, within reason.
fn timeout_secs() -> u32 {
    module_parameters::timeout.value().clamp(1, 3600)
}

struct VirtioPmem;

/// A bound device.
#[pin_data]
struct Device {
    /// Dropped before the flush path: without it there are no new callers.
    bus: Option<Bus<Flush>>,
    running: Running,
    /// Bounds the time that callers wait for a resume that does not come.
    #[pin]
    suspended: Mutex<Option<Watch>>,
}

impl Device {
    /// Watches, until it is resumed, a device that is suspended or reset.
    fn watch(&self) {
        let mut suspended = self.suspended.lock();

        // The last resume may not have come. To drop its watch ends the new one, too.
        *suspended = None;
        *suspended = Some(self.running.0.watch());
    }
}

/// A device that is stopped in good order when this is dropped.
struct Running(Arc<Lifecycle>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.finish();
    }
}

#[vtable]
impl virtio::Driver for VirtioPmem {
    type Data<'bound> = Device;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [Feature] = &[SHMEM_REGION];

    fn validate(vdev: &virtio::Negotiation<'_>) -> Result {
        // The ring would allocate a table for each request.
        vdev.clear_feature(Feature::RING_INDIRECT_DESC);

        if vdev.has_feature(SHMEM_REGION) && Range::from_shm_region(vdev).is_none() {
            dev_notice!(
                vdev.as_ref(),
                "no valid shared memory region, using the configuration space\n"
            );
            vdev.clear_feature(SHMEM_REGION);
        }
        Ok(())
    }

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let range = Range::of(vdev)?;
            let desc = RegionDesc::new(range.start, range.size)?
                .flags(RegionFlag::Pagemap | RegionFlag::Async);

            let device = Lifecycle::new(vdev)?;
            // Callers can come as soon as there is a region, so everything they need comes before.
            device.start(vdev)?;
            let running = Running(device);

            let mut bus = Bus::register(
                vdev.as_ref(),
                BusDesc {
                    provider_name: c"virtio-pmem",
                    module: &LocalModule::THIS_MODULE,
                },
            )
            .inspect_err(|_| dev_err!(vdev, "cannot register an nvdimm bus\n"))?;

            bus.create_pmem_region(&desc, running.0.flush.clone())
                .inspect_err(|_| dev_err!(vdev, "cannot create an nvdimm region\n"))?;

            Ok(try_pin_init!(Device {
                bus: Some(bus),
                running,
                suspended <- new_mutex!(None),
            }))
        })
    }

    fn remove<'bound>(_vdev: &'bound virtio::Device<Core<'_>>, mut data: Pin<KBox<Device>>) {
        let device = data.as_mut().project();
        let running = &device.running.0;

        // Breaking a device calls nobody back.
        running.flush.give_up_if_broken();

        // The block layer's last write-back needs the flush path. While this task sleeps in it, a
        // host that does not answer must be given up from elsewhere.
        let watch = running.watch();
        drop(device.bus.take());
        drop(watch);

        // With the data, the flush path ends.
        drop(data);
    }

    fn config_changed<'bound>(
        _vdev: &'bound virtio::Device<Bound>,
        data: Pin<&Self::Data<'bound>>,
    ) {
        data.running.0.check();
    }

    fn freeze<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let device = &data.running.0;

        device.flush.quiesce().inspect_err(|_| {
            dev_err!(
                vdev,
                "the host does not answer, so it cannot be suspended\n"
            );
            device.flush.start();
        })?;
        device.flush.detach();
        data.watch();
        Ok(())
    }

    fn restore<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        *data.suspended.lock() = None;
        resume(&data.running.0, vdev)
    }

    fn reset_prepare<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let device = &data.running.0;

        // This cannot be refused. A flush that is lost is sent again.
        if device.flush.quiesce().is_err() {
            dev_warn!(vdev, "the host does not answer, resetting nevertheless\n");
        }
        device.flush.detach();
        data.watch();
        Ok(())
    }

    fn reset_done<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        *data.suspended.lock() = None;
        resume(&data.running.0, vdev)
    }

    fn shutdown<'bound>(vdev: &'bound virtio::Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        // Whoever still comes waits until the machine is off. To fail would be worse: a file system
        // would record an error, and that reaches the memory without any flush.
        if data.running.0.flush.quiesce().is_err() {
            dev_warn!(
                vdev,
                "the host does not answer, shutting down nevertheless\n"
            );
        }
        data.running.0.flush.retire();
    }
}

/// Starts a device after it was suspended or reset; whoever waits fails if that is not possible.
fn resume(device: &Arc<Lifecycle>, vdev: &virtio::Device<Core<'_>>) -> Result {
    device
        .start(vdev)
        .inspect_err(|_| device.flush.give_up("the device could not be resumed"))
}
