/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A libnvdimm region for tests, with a working disk. Its memory is reserved memory, given by the
 * module parameters "start" and "size". Its flush callback returns what the test has set, and
 * records its calls.
 */
#ifndef _FAKE_REGION_H
#define _FAKE_REGION_H

#include <linux/bio.h>
#include <linux/libnvdimm.h>
#include <linux/sizes.h>
#include <kunit/test.h>

/* An answer of the provider beside the callback's return values. */
#define FAKE_TAKE_AND_END	1000	/* takes the bio and completes it before returning */

/* One page that cannot be written. */
#define FAKE_BAD_PAGE		(SZ_1M / PAGE_SIZE)

struct fake_call {
	struct bio *bio;
	/* The region's first byte at the time of the call. */
	u8 first_byte;
};

struct fake_region {
	struct nvdimm_bus_descriptor desc;
	struct nvdimm_bus *bus;
	struct nd_region *region;
	struct block_device *bdev;
	/* The test's own mapping of the memory. */
	u8 *memory;

	/* What each call of the callback returns; 0 by default. */
	int answers[8];
	struct fake_call calls[8];
	unsigned int count;

	struct device *parent;
	struct file *file;
};

/*
 * Creates a region with these flags, and with or without a callback, which exists until the end of
 * the test. Its memory is filled with zeroes. Skips the test if no memory was given.
 */
struct fake_region *fake_region(struct kunit *test, unsigned long flags, bool callback);

/* Waits for the disk of a region, and opens it. */
void fake_region_open(struct kunit *test, struct fake_region *fake);

/* Unregisters a region before the end of the test. */
void fake_region_remove(struct kunit *test, struct fake_region *fake);

#endif
