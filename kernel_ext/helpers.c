// SPDX-License-Identifier: GPL-2.0
/*
 * The helpers that a kernel with the overlay has in its own rust/helpers/: whole files, and what
 * the patches add to the kernel's. And what replaces the patches of libnvdimm.
 */

#include <linux/bio.h>
#include <linux/hrtimer.h>
#include <linux/kmemleak.h>
#include <linux/libnvdimm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/virtio_pci.h>
#include <linux/workqueue.h>

#define __rust_helper

#include "../rust/helpers/bio.c"
#include "../rust/helpers/nvdimm.c"
#include "../rust/helpers/virtio.c"

/* With the overlay, the core does this. */
__rust_helper void rust_helper_virtio_device_lock(struct virtio_device *vdev)
{
	device_lock(&vdev->dev);
}

/*
 * Modern PCI maps this much, at most a page, and stops an access beyond it by BUG_ON(). Others have
 * 256 bytes: ccw's buffer, and what MMIO has behind its registers.
 */
__rust_helper size_t rust_helper_virtio_config_len(struct virtio_device *vdev)
{
	struct pci_dev *pdev;
	int pos;

	if (!dev_is_pci(vdev->dev.parent))
		return 256;

	pdev = to_pci_dev(vdev->dev.parent);
	for (pos = pci_find_capability(pdev, PCI_CAP_ID_VNDR); pos > 0;
	     pos = pci_find_next_capability(pdev, pos, PCI_CAP_ID_VNDR)) {
		u32 offset, length;
		u8 type, bar;

		pci_read_config_byte(pdev, pos + offsetof(struct virtio_pci_cap, cfg_type), &type);
		pci_read_config_byte(pdev, pos + offsetof(struct virtio_pci_cap, bar), &bar);
		if (type != VIRTIO_PCI_CAP_DEVICE_CFG || bar >= PCI_STD_NUM_BARS ||
		    !pci_resource_len(pdev, bar))
			continue;

		pci_read_config_dword(pdev, pos + offsetof(struct virtio_pci_cap, offset), &offset);
		pci_read_config_dword(pdev, pos + offsetof(struct virtio_pci_cap, length), &length);
		if (offset >= pci_resource_len(pdev, bar))
			return 0;
		return min3(length, PAGE_SIZE, pci_resource_len(pdev, bar) - offset);
	}
	return 0;
}

__rust_helper unsigned int rust_helper_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

__rust_helper void rust_helper_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

__rust_helper void rust_helper_kmemleak_ignore(const void *ptr)
{
	kmemleak_ignore(ptr);
}

__rust_helper void rust_helper_kmemleak_not_leak(const void *ptr)
{
	kmemleak_not_leak(ptr);
}

__rust_helper struct workqueue_struct *
rust_helper_alloc_ordered_workqueue(const char *name, unsigned int flags)
{
	return alloc_ordered_workqueue("%s", flags, name);
}

__rust_helper unsigned int rust_helper_hrtimer_get_resolution(void)
{
	return hrtimer_resolution;
}

static bool fua;
module_param(fua, bool, 0444);
MODULE_PARM_DESC(fua, "Advertise FUA, at the price of a DIMM (nmem) that stands for the device");

static int (*provider_flush)(struct nd_region *region, struct bio *bio);

/*
 * The BTT of a kernel without our patch flushes under a spinlock, for which the host cannot be
 * awaited. An error fails the write before it changes the map.
 */
static int flush_if_able(struct nd_region *region, struct bio *bio)
{
	if (!bio && (in_atomic() || irqs_disabled())) {
		pr_err_ratelimited("virtio_pmem_rust: this kernel cannot write in sector mode: use 'ndctl create-namespace --mode=fsdax' or raw mode\n");
		return -EOPNOTSUPP;
	}
	return provider_flush(region, bio);
}

/*
 * libnvdimm has no callback with which a provider could refuse a BTT, and without our patch it
 * advertises FUA only for a region with a DIMM. It copies the mapping.
 */
__rust_helper struct nd_region *
rust_helper_nvdimm_pmem_region_create(struct nvdimm_bus *bus, struct nd_region_desc *desc)
{
	struct nd_mapping_desc mapping = { .size = resource_size(desc->res) };

	provider_flush = desc->flush;
	desc->flush = flush_if_able;
	if (fua) {
		mapping.nvdimm = nvdimm_create(bus, NULL, NULL, 0, 0, 0, NULL);
		if (!mapping.nvdimm)
			return NULL;
		desc->mapping = &mapping;
		desc->num_mappings = 1;
	}
	return nvdimm_pmem_region_create(bus, desc);
}
