// SPDX-License-Identifier: GPL-2.0

//! Driver for virtio-pmem devices.
//!
//! The memory of such a device is a file of the host, mapped into the guest. Stores land in the
//! host's page cache; a FLUSH on the device's one virtqueue has the host write them back. This
//! driver makes the memory a region of libnvdimm and provides its flush.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.19 "PMEM Device".
//! C header: [`include/uapi/linux/virtio_pmem.h`](srctree/include/uapi/linux/virtio_pmem.h)

mod callers;
// The file is also compiled by a host crate, and there it is public.
#[allow(dead_code, unreachable_pub)]
mod engine;
mod flush;
mod range;

use flush::{
    Flush,
    Watch, //
};
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
use range::{
    Range,
    SHMEM_REGION, //
};

kernel::virtio_device_table!(
    ID_TABLE,
    [virtio::DeviceId::new(bindings::VIRTIO_ID_PMEM)]
);

kernel::module_virtio_driver! {
    type: VirtioPmem,
    name: "virtio_pmem_rust",
    authors: ["virtio-pmem-rust project"],
    description: "Virtio pmem driver",
    license: "GPL",
    params: {
        timeout: u32 {
            default: 30,
            description: "Seconds without progress after which a host is given up on removal, and a suspend is aborted",
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
    flush: Running,
    /// Bounds the time that callers wait for a resume that does not come.
    #[pin]
    suspended: Mutex<Option<Watch>>,
}

/// A flush path that is ended when it is dropped.
struct Running(Arc<Flush>);

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

            let flush = Flush::new(vdev)?;
            // Callers can come as soon as there is a region, so everything they need comes before.
            flush.start(vdev)?;
            let flush = Running(flush);

            let mut bus = Bus::register(
                vdev.as_ref(),
                BusDesc {
                    provider_name: c"virtio-pmem",
                    module: &LocalModule::THIS_MODULE,
                },
            )
            .inspect_err(|_| dev_err!(vdev, "cannot register an nvdimm bus\n"))?;

            bus.create_pmem_region(&desc, flush.0.clone())
                .inspect_err(|_| dev_err!(vdev, "cannot create an nvdimm region\n"))?;

            Ok(try_pin_init!(Device {
                bus: Some(bus),
                flush,
                suspended <- new_mutex!(None),
            }))
        })
    }

    fn remove<'bound>(_vdev: &'bound virtio::Device<Core<'_>>, mut data: Pin<KBox<Device>>) {
        let device = data.as_mut().project();
        let flush = &device.flush.0;

        // Breaking a device calls nobody back.
        flush.give_up_if_broken();

        // The block layer's last write-back needs the flush path. While this task sleeps in it, a
        // host that does not answer must be given up from elsewhere.
        let watch = flush.watch();
        drop(device.bus.take());
        drop(watch);

        // With the data, the flush path ends.
        drop(data);
    }

    fn freeze<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let flush = &data.flush.0;

        flush.quiesce().inspect_err(|_| {
            dev_err!(
                vdev,
                "the host does not answer, so the device cannot be suspended\n"
            )
        })?;
        flush.stop();
        *data.suspended.lock() = Some(flush.watch());
        Ok(())
    }

    fn restore<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let flush = &data.flush.0;

        *data.suspended.lock() = None;
        flush
            .start(vdev)
            .inspect_err(|_| flush.give_up("the device was not restored"))
    }

    fn shutdown<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) {
        // Whoever still comes is to fail, not to sleep for ever.
        let _ = data.flush.0.quiesce();
        data.flush.0.give_up("the system shuts down");
    }
}
