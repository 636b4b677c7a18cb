// SPDX-License-Identifier: GPL-2.0
/* A virtio-pmem driver whose parameter read_only names the device. */

#include "nd.h"
#include "pmem_script.h"

#include <linux/delay.h>

static void restore(void *data)
{
	virtio_pmem_rust_read_only = data;
}

static void name(struct kunit *test, char *names)
{
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action(test, restore, virtio_pmem_rust_read_only));
	virtio_pmem_rust_read_only = names;
}

static struct pmem *read_only(struct kunit *test)
{
	struct pmem *pmem;

	name(test, "all");
	pmem = pmem_plugged(test);
	/* Nothing is written, so nothing has to be flushed. */
	pmem->durable = U64_MAX;
	return pmem;
}

/* Callers of each kind. */
static void no_caller_is_served(struct pmem *pmem)
{
	pmem_ends(pmem_sleeper(pmem), -EIO);
	pmem_ends(pmem_flusher(pmem), 0);
	KUNIT_EXPECT_NULL(pmem->test, pmem_try_take(pmem));
}

static void region_is_read_only(struct kunit *test)
{
	struct pmem *pmem = read_only(test);

	KUNIT_EXPECT_TRUE(test, test_bit(ND_REGION_RDONLY, &pmem->region->flags));
	KUNIT_EXPECT_EQ(test, 1, pmem->region->ro);
	no_caller_is_served(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
}

static void writes_fail(struct kunit *test)
{
	struct pmem *pmem = read_only(test);
	struct bio_vec vec = { .bv_page = ZERO_PAGE(0), .bv_len = PAGE_SIZE };
	struct bio bio;

	bio_init(&bio, NULL, &vec, 1, REQ_OP_WRITE | REQ_FUA);
	bio.bi_vcnt = 1;
	bio.bi_iter.bi_size = PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, -EIO, nvdimm_flush(pmem->region, &bio));
	KUNIT_EXPECT_NULL(test, pmem_try_take(pmem));
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
}

/* A queue that was recovered or found again gets no flush, either. */
static void resets_send_nothing(struct kunit *test)
{
	struct pmem *pmem = read_only(test);
	unsigned int resets;

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	KUNIT_EXPECT_EQ(test, 0, pmem_reset_prepare(pmem));
	KUNIT_EXPECT_EQ(test, 0, pmem_reset_done(pmem));
	no_caller_is_served(pmem);

	resets = pmem->fake->count[FAKE_RESET];
	fake_virtio_needs_reset(pmem->fake);
	pmem_was_reset(pmem, resets + 1);
	msleep(100);
	no_caller_is_served(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
}

static void others_are_writable(struct kunit *test)
{
	struct pmem *pmem;

	name(test, "virtio99999,all-others");
	pmem = pmem_plugged(test);
	KUNIT_EXPECT_EQ(test, 0, pmem->region->ro);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* A device may be named by its transport, whose name is the same each time. */
static void named_by_transport(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	static char names[64];

	snprintf(names, sizeof(names), "virtio99999,%s", dev_name(pmem->fake->vdev.dev.parent));
	KUNIT_EXPECT_EQ(test, 0, pmem->region->ro);
	pmem_unplug(pmem);
	name(test, names);
	pmem_plug(pmem);
	KUNIT_EXPECT_EQ(test, 1, pmem->region->ro);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
}

static struct kunit_case pmem_read_only_cases[] = {
	KUNIT_CASE(region_is_read_only),
	KUNIT_CASE(writes_fail),
	KUNIT_CASE(resets_send_nothing),
	KUNIT_CASE(others_are_writable),
	KUNIT_CASE(named_by_transport),
	{}
};

static struct kunit_suite pmem_read_only_suite = {
	.name = "virtio_pmem_read_only",
	.test_cases = pmem_read_only_cases,
};

kunit_test_suite(pmem_read_only_suite);
