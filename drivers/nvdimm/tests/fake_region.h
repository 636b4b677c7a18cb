/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A region of libnvdimm for tests, with a disk that works: its memory is reserved memory that the
 * module parameters "start" and "size" name, and its flush callback does what the test says and
 * records what it was asked.
 */
#ifndef _FAKE_REGION_H
#define _FAKE_REGION_H

#include <linux/bio.h>
#include <linux/libnvdimm.h>
#include <linux/sizes.h>
#include <kunit/test.h>

/* What the provider does when it is asked to flush, instead of returning a value. */
#define FAKE_TAKE_AND_END	1000	/* takes the bio, completes it, and only then returns */

/* One page that cannot be written. */
#define FAKE_BAD_PAGE		(SZ_1M / PAGE_SIZE)

struct fake_call {
	struct bio *bio;
	/* The first byte of the first page when the callback was called. */
	u8 seen;
};

struct fake_region {
	struct nvdimm_bus_descriptor desc;
	struct nvdimm_bus *bus;
	struct nd_region *region;
	struct block_device *bdev;
	/* A mapping of the memory that is not the disk's. */
	u8 *memory;

	/* What the callback returns each time, 0 where nothing is said. */
	int answers[8];
	struct fake_call calls[8];
	unsigned int count;

	struct device *parent;
	struct file *file;
};

/*
 * Make a region with these flags, and with a callback or without, which is gone at the end of the
 * test. Its memory is filled with zeroes. Skips the test if there is no memory.
 */
struct fake_region *fake_region(struct kunit *test, unsigned long flags, bool callback);

/* Wait for the disk of a region, and open it. */
void fake_region_open(struct kunit *test, struct fake_region *fake);

/* Unregister a region before the end of the test. */
void fake_region_remove(struct kunit *test, struct fake_region *fake);

#endif
