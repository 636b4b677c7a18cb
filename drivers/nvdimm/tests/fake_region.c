// SPDX-License-Identifier: GPL-2.0
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <kunit/device.h>
#include "fake_region.h"

static ulong start;
module_param(start, ulong, 0444);
MODULE_PARM_DESC(start, "address of reserved memory (memmap=SIZE$START), which is overwritten");

static ulong size;
module_param(size, ulong, 0444);
MODULE_PARM_DESC(size, "size of that memory, at least 4 MiB");

static int fake_flush(struct nd_region *nd_region, struct bio *bio)
{
	struct fake_region *fake = nd_region_provider_data(nd_region);
	unsigned int call = fake->count++;
	int answer;

	if (call >= ARRAY_SIZE(fake->calls))
		return 0;
	fake->calls[call].bio = bio;
	fake->calls[call].first_byte = READ_ONCE(fake->memory[0]);
	answer = fake->answers[call];
	/* Without a bio there is nothing to take. */
	if (answer > 0 && !bio)
		return -EINVAL;

	if (answer != FAKE_TAKE_AND_END)
		return answer;
	bio_endio(bio);
	return NVDIMM_FLUSH_ASYNC;
}

/* Bad memory cannot be repaired. */
static int fake_ndctl(struct nvdimm_bus_descriptor *desc, struct nvdimm *nvdimm, unsigned int cmd,
		      void *buf, unsigned int buf_len, int *cmd_rc)
{
	return -ENOTTY;
}

static void fake_unmap(void *memory)
{
	memunmap(memory);
}

static void fake_unregister(void *data)
{
	struct fake_region *fake = data;

	if (fake->file)
		bdev_fput(fake->file);
	nvdimm_bus_unregister(fake->bus);
}

struct fake_region *fake_region(struct kunit *test, unsigned long flags, bool callback)
{
	struct resource res = { .start = start, .end = start + size - 1 };
	struct nd_region_desc desc = {
		.res = &res,
		.flags = flags,
		.flush = callback ? fake_flush : NULL,
	};
	struct fake_region *fake;

	if (size < SZ_4M)
		kunit_skip(test, "needs the parameters start and size");

	fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, fake);
	desc.provider_data = fake;

	fake->memory = memremap(start, size, MEMREMAP_WB);
	KUNIT_ASSERT_NOT_NULL(test, fake->memory);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, fake_unmap, fake->memory));
	/* libnvdimm could take old data for an info block. */
	memset(fake->memory, 0, size);

	fake->parent = kunit_device_register(test, "fake-region");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, fake->parent);

	fake->desc.provider_name = "fake-region";
	fake->desc.module = THIS_MODULE;
	fake->desc.ndctl = fake_ndctl;
	fake->bus = nvdimm_bus_register(fake->parent, &fake->desc);
	KUNIT_ASSERT_NOT_NULL(test, fake->bus);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, fake_unregister, fake));

	KUNIT_ASSERT_EQ(test, 0, nvdimm_bus_add_badrange(fake->bus,
							 start + FAKE_BAD_PAGE * PAGE_SIZE,
							 PAGE_SIZE));
	fake->region = nvdimm_pmem_region_create(fake->bus, &desc);
	KUNIT_ASSERT_NOT_NULL(test, fake->region);
	return fake;
}

static int is_namespace(struct device *dev, const void *data)
{
	return !strncmp(dev_name(dev), "namespace", strlen("namespace"));
}

static int is_disk(struct device *dev, const void *data)
{
	return dev->devt && !strncmp(dev_name(dev), "pmem", strlen("pmem"));
}

/* Returns the device number of the region's disk, or 0 if there is none yet. */
static dev_t find_disk(struct fake_region *fake)
{
	struct device *namespace, *disk;
	dev_t number = 0;

	namespace = device_find_child(nd_region_dev(fake->region), NULL, is_namespace);
	if (!namespace)
		return 0;
	disk = device_find_child(namespace, NULL, is_disk);
	if (disk)
		number = disk->devt;
	put_device(disk);
	put_device(namespace);
	return number;
}

void fake_region_open(struct kunit *test, struct fake_region *fake)
{
	int tries;

	/* libnvdimm creates the disk asynchronously. */
	for (tries = 0; tries < 1000; tries++) {
		dev_t number = find_disk(fake);
		struct file *file;

		if (number) {
			file = bdev_file_open_by_dev(number, BLK_OPEN_READ | BLK_OPEN_WRITE, NULL,
						     NULL);
			if (!IS_ERR(file)) {
				fake->file = file;
				fake->bdev = file_bdev(file);
				return;
			}
		}
		msleep(20);
	}
	KUNIT_FAIL_AND_ABORT(test, "the region has no disk");
}

void fake_region_remove(struct kunit *test, struct fake_region *fake)
{
	kunit_release_action(test, fake_unregister, fake);
	kunit_device_unregister(test, fake->parent);
}

MODULE_DESCRIPTION("KUnit tests of libnvdimm's flush interface for region providers");
MODULE_LICENSE("GPL");
