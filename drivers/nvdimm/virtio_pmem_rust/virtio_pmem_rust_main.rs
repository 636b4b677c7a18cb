// SPDX-License-Identifier: GPL-2.0

//! Driver for virtio-pmem devices.
//!
//! The memory of such a device is a file of the host, mapped into the guest. Stores go to the
//! host's page cache; a FLUSH on the device's one virtqueue makes the host write them back. This
//! driver makes the memory a region of libnvdimm and provides its flush.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.19 "PMEM Device".
//! C header: [`include/uapi/linux/virtio_pmem.h`](srctree/include/uapi/linux/virtio_pmem.h)

#![crate_name = "virtio_pmem_rust"]

// Out of tree, the abstractions that the kernel lacks are part of the module.
#[cfg(out_of_tree)]
extern crate kernel_ext as kernel;

mod callers;
// This file and `gather` are also compiled by the model's crate, where they are public.
#[allow(dead_code, unreachable_pub)]
mod engine;
mod flush;
#[allow(dead_code, unreachable_pub)]
mod gather;
mod lifecycle;
mod range;
mod read_only;
mod stats;
mod trace;
mod watchdog;

use flush::FlushPath;
use kernel::{
    bindings,
    device::Core,
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
use lifecycle::Lifecycle;
use range::{
    Range,
    SHMEM_REGION, //
};
use watchdog::{
    Expiry,
    Subject, //
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
            default: 600,
            description: "Seconds that a removal, a suspend or a reset waits without progress",
        },
        resend_after: u32 {
            default: 0,
            description: "Seconds without an answer after which a flush is sent again (0: never)",
        },
        gathering: bool {
            default: true,
            description: "Hold a flush back for callers that were just answered",
        },
    },
}

/// Returns the module's parameter, the initial limit of each device.
///
/// For one flush a host may have to write back tens of GiB, or it may limit the rate of flushes.
fn timeout_secs() -> u32 {
    module_parameters::timeout.value().max(1)
}

/// Returns the module's parameter, the initial patience of each device in seconds.
fn resend_after() -> u32 {
    module_parameters::resend_after.value()
}

/// Returns the module's parameter: whether a device gathers at first.
fn gathers() -> bool {
    module_parameters::gathering.value()
}

struct VirtioPmem;

/// A bound device.
#[pin_data]
struct Device {
    lifecycle: Arc<Lifecycle>,
    /// [`None`] when the driver is unbound.
    #[pin]
    bus: Mutex<Option<Bus<FlushPath>>>,
}

impl Device {
    fn new(vdev: &virtio::Device<Core<'_>>) -> Result<impl PinInit<Self, Error>> {
        let range = Range::of(vdev)?;
        let mut desc = RegionDesc::new(range.start, range.size)?
            .flags(RegionFlag::Pagemap | RegionFlag::Async);
        let (is_set, read_only) = read_only::is_named(vdev);

        if read_only {
            desc = desc.read_only().inspect_err(|_| {
                dev_err!(
                    vdev,
                    "read_only: this kernel's libnvdimm cannot protect the memory\n"
                )
            })?;
        } else if is_set {
            dev_notice!(vdev, "not named by read_only: the memory is writable\n");
        }

        let lifecycle = Lifecycle::new(vdev, read_only)?;
        // Callers can come as soon as there is a region, so the device is started first.
        lifecycle.start(vdev)?;
        let bus = Self::register(vdev, &desc, lifecycle.flush.clone())
            .inspect_err(|_| lifecycle.finish(vdev))?;

        Ok(try_pin_init!(Self {
            lifecycle,
            bus <- new_mutex!(Some(bus)),
        }))
    }

    /// Makes the region.
    fn register(
        vdev: &virtio::Device<Core<'_>>,
        desc: &RegionDesc,
        flush: Arc<FlushPath>,
    ) -> Result<Bus<FlushPath>> {
        let mut bus = Bus::register(
            vdev.as_ref(),
            BusDesc {
                provider_name: c"virtio-pmem",
                module: &LocalModule::THIS_MODULE,
            },
        )
        .inspect_err(|_| dev_err!(vdev, "cannot register an nvdimm bus\n"))?;

        bus.create_pmem_region(desc, flush)
            .inspect_err(|_| dev_err!(vdev, "cannot create an nvdimm region\n"))?;
        Ok(bus)
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
        pin_init::pin_init_scope(move || Device::new(vdev))
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, data: Pin<&Device>) {
        let lifecycle = &data.lifecycle;

        // No callback reports a device that was broken.
        lifecycle.flush.give_up_if_broken();
        lifecycle.recover(vdev);

        // The block layer's last write-back needs the flush path. While this task sleeps in it, the
        // watchdog gives up on a host that does not answer.
        lifecycle.watchdog.start(Subject::Removal, Expiry::GiveUp);
        let bus = data.bus.lock().take();
        drop(bus);

        lifecycle.finish(vdev);
    }

    fn work<'bound>(vdev: &'bound virtio::Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        data.lifecycle.recover(vdev);
    }

    fn config_changed<'bound>(_vdev: &'bound virtio::Device, data: Pin<&Self::Data<'bound>>) {
        data.lifecycle.check();
    }

    fn freeze<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        data.lifecycle.suspend(vdev).inspect_err(|_| {
            dev_err!(
                vdev,
                "the host does not answer, so it cannot be suspended\n"
            )
        })
    }

    fn restore<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        data.lifecycle.resume(vdev)
    }

    fn reset_prepare<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        // A reset cannot be refused.
        data.lifecycle.prepare_reset(vdev);
        Ok(())
    }

    fn reset_done<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        data.lifecycle.resume(vdev)
    }

    fn shutdown<'bound>(vdev: &'bound virtio::Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        // Later callers wait until the machine is off. An error would be worse: a file system would
        // record it, and that record reaches the memory without a flush.
        data.lifecycle.shut_down(vdev);
    }
}
