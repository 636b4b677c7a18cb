// SPDX-License-Identifier: GPL-2.0
/* Probe of a virtio-pmem driver: valid and invalid devices, and errors. */

#include "pmem_script.h"

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/virtio_pmem.h>
#include "nd.h"

/* Ranges in the configuration space. */
static const struct range_case {
	const char *name;
	u64 start, size;
	bool valid;
} ranges[] = {
	{ "valid", PMEM_START, PMEM_SIZE, true },
	{ "one page", PMEM_START, PAGE_SIZE, true },
	{ "at zero", 0, PMEM_SIZE, true },
	{ "size 0", PMEM_START, 0, false },
	{ "size 1", PMEM_START, 1, false },
	{ "half a page", PMEM_START, PMEM_SIZE + PAGE_SIZE / 2, false },
	{ "unaligned start", PMEM_START + 512, PMEM_SIZE, false },
	{ "the whole address space and more", PMEM_START, U64_MAX, false },
	{ "start wraps", -PAGE_SIZE, 2 * PAGE_SIZE, false },
	{ "size wraps", 2 * PAGE_SIZE, -PAGE_SIZE, false },
	{ "all ones", U64_MAX, U64_MAX, false },
};

static void range_to_desc(const struct range_case *range, char *desc)
{
	strscpy(desc, range->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(range, ranges, range_to_desc);

static void set_config(struct pmem *pmem, u64 start, u64 size)
{
	struct virtio_pmem_config config = {
		.start = cpu_to_le64(start),
		.size = cpu_to_le64(size),
	};

	memcpy(pmem->fake->config, &config, sizeof(config));
}

static void expect_region(struct pmem *pmem, u64 start, u64 size)
{
	KUNIT_ASSERT_NOT_NULL(pmem->test, pmem->region);
	KUNIT_EXPECT_EQ(pmem->test, start, pmem->region->ndr_start);
	KUNIT_EXPECT_EQ(pmem->test, size, pmem->region->ndr_size);
	KUNIT_EXPECT_TRUE(pmem->test, test_bit(ND_REGION_ASYNC, &pmem->region->flags));
	KUNIT_EXPECT_TRUE(pmem->test, test_bit(ND_REGION_PAGEMAP, &pmem->region->flags));
}

/* Plugs the device, and checks that probe fails and leaves nothing. */
static void expect_no_probe(struct pmem *pmem)
{
	KUNIT_EXPECT_EQ(pmem->test, 0, fake_virtio_plug(pmem->fake));
	KUNIT_EXPECT_FALSE(pmem->test, fake_virtio_is_bound(pmem->fake));
	KUNIT_EXPECT_TRUE(pmem->test, pmem->fake->status & VIRTIO_CONFIG_S_FAILED);
	for (unsigned int i = 0; i < FAKE_QUEUES; i++)
		KUNIT_EXPECT_NULL(pmem->test, pmem->fake->queues[i].vq);
	fake_virtio_unplug(pmem->fake);
}

static void config_range(struct kunit *test)
{
	const struct range_case *range = test->param_value;
	struct pmem *pmem = pmem_create(test);

	set_config(pmem, range->start, range->size);
	if (!range->valid) {
		expect_no_probe(pmem);
		return;
	}
	pmem_plug(pmem);
	expect_region(pmem, range->start, range->size);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* Only the namespace's driver detects this conflict, when it requests the range. */
static void config_overlaps_ram(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	u64 start = ALIGN_DOWN(virt_to_phys(pmem), PAGE_SIZE);

	set_config(pmem, start, 4 * PAGE_SIZE);
	pmem_plug(pmem);
	expect_region(pmem, start, 4 * PAGE_SIZE);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void no_config(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem->fake->ops.get = NULL;
	expect_no_probe(pmem);
}

/* The device supplies less than struct virtio_pmem_config. */
static void config_is_short(struct kunit *test)
{
	static const size_t lengths[] = { 0, 4, 8, 15 };

	for (unsigned int i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct pmem *pmem = pmem_create(test);
		struct device *dev = &pmem->fake->vdev.dev;
		struct device_driver *driver;

		pmem->fake->config_len = lengths[i];
		expect_no_probe(pmem);

		/* Only this reports the error. */
		KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(pmem->fake));
		driver = driver_find("virtio_pmem_rust", dev->bus);
		KUNIT_ASSERT_NOT_NULL(test, driver);
		KUNIT_EXPECT_EQ(test, -EINVAL, device_driver_attach(driver, dev));
		fake_virtio_unplug(pmem->fake);
		KUNIT_EXPECT_EQ(test, 0, pmem->fake->bad_accesses);

		pmem->fake->config_len = sizeof(struct virtio_pmem_config);
		pmem_plug(pmem);
		expect_region(pmem, PMEM_START, PMEM_SIZE);
		pmem_unplug(pmem);
		KUNIT_EXPECT_EQ(test, 0, pmem->fake->bad_accesses);
	}
}

static u32 config_generation(struct virtio_device *vdev)
{
	struct fake_virtio *fake = container_of(vdev, struct fake_virtio, vdev);
	struct virtio_pmem_config *config = (void *)fake->config;
	static u32 generation;

	/* The first read spans two generations. */
	if (!config->size) {
		generation++;
		config->size = cpu_to_le64(PMEM_SIZE);
	}
	return generation;
}

static void config_changes_while_read(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	set_config(pmem, PMEM_START, 0);
	pmem->fake->ops.generation = config_generation;
	pmem_plug(pmem);
	expect_region(pmem, PMEM_START, PMEM_SIZE);
	pmem_unplug(pmem);
}

/* A valid shared memory region gives the range; for an invalid one the feature is declined. */
static const struct shm_case {
	const char *name;
	bool there;
	u64 start, size;
	bool valid;
} shms[] = {
	{ "equal to the configuration", true, PMEM_START, PMEM_SIZE, true },
	{ "unlike the configuration", true, 2 * PMEM_START, 2 * PMEM_SIZE, true },
	{ "missing", false, 0, 0, false },
	{ "empty", true, PMEM_START, 0, false },
	{ "less than a page", true, PMEM_START, 512, false },
	{ "unaligned", true, PMEM_START + 512, PMEM_SIZE, false },
	{ "wraps", true, -PAGE_SIZE, 2 * PAGE_SIZE, false },
};

static void shm_to_desc(const struct shm_case *shm, char *desc)
{
	strscpy(desc, shm->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(shm, shms, shm_to_desc);

static void shm_region(struct kunit *test)
{
	const struct shm_case *shm = test->param_value;
	struct pmem *pmem = pmem_create(test);

	pmem->fake->features |= BIT_ULL(VIRTIO_PMEM_F_SHMEM_REGION);
	pmem->fake->has_shm = shm->there;
	pmem->fake->shm.addr = shm->start;
	pmem->fake->shm.len = shm->size;
	pmem_plug(pmem);
	KUNIT_EXPECT_EQ(test, shm->valid,
			!!(pmem->fake->accepted & BIT_ULL(VIRTIO_PMEM_F_SHMEM_REGION)));
	if (shm->valid)
		expect_region(pmem, shm->start, shm->size);
	else
		expect_region(pmem, PMEM_START, PMEM_SIZE);
	pmem_works(pmem);
	pmem_unplug(pmem);

	/* Without a valid range of either kind, probe fails. */
	set_config(pmem, PMEM_START, 0);
	if (!shm->valid)
		expect_no_probe(pmem);
}

/* OpenVMM's device: an empty configuration space, no feature, and shared memory region 0. */
static void shm_region_alone(struct kunit *test)
{
	const struct shm_case *shm = test->param_value;
	struct pmem *pmem = pmem_create(test);

	set_config(pmem, 0, 0);
	pmem->fake->has_shm = shm->there;
	pmem->fake->shm.addr = shm->start;
	pmem->fake->shm.len = shm->size;
	if (!shm->valid) {
		expect_no_probe(pmem);
		return;
	}
	pmem_plug(pmem);
	expect_region(pmem, shm->start, shm->size);
	pmem_works(pmem);
	pmem_unplug(pmem);

	/* A range in the configuration space comes first. */
	set_config(pmem, 4 * PMEM_START, PMEM_SIZE);
	pmem_plug(pmem);
	expect_region(pmem, 4 * PMEM_START, PMEM_SIZE);
	pmem_unplug(pmem);
}

static void take_shm_away(struct fake_virtio *fake, enum fake_op op)
{
	if (op == FAKE_FINALIZE)
		fake->has_shm = false;
}

/* The region was there when the features were negotiated. */
static void shm_region_vanishes(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem->fake->features |= BIT_ULL(VIRTIO_PMEM_F_SHMEM_REGION);
	pmem->fake->has_shm = true;
	pmem->fake->shm.addr = PMEM_START;
	pmem->fake->shm.len = PMEM_SIZE;
	pmem->fake->hook = take_shm_away;
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_plug(pmem->fake));
	if (fake_virtio_is_bound(pmem->fake)) {
		KUNIT_EXPECT_NOT_NULL(test, pmem_find_region(pmem));
		pmem_unplug(pmem);
	}
}

static void step_fails(struct kunit *test)
{
	static const enum fake_op steps[] = { FAKE_FINALIZE, FAKE_FIND_VQS };
	static const int errors[] = { -ENOENT, -ENOMEM, -EIO, -EPROBE_DEFER };

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		for (unsigned int j = 0; j < ARRAY_SIZE(errors); j++) {
			struct pmem *pmem = pmem_create(test);

			pmem->fake->fail[steps[i]] = errors[j];
			expect_no_probe(pmem);
			pmem->fake->fail[steps[i]] = 0;
			pmem_plug(pmem);
			pmem_works(pmem);
			pmem_unplug(pmem);
		}
	}
}

static void refuse_features(struct fake_virtio *fake, enum fake_op op)
{
	if (op == FAKE_STATUS)
		fake->status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
}

static void features_are_refused(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem->fake->hook = refuse_features;
	expect_no_probe(pmem);
}

static void legacy_device(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem->fake->features = 0;
	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* Returns the variable behind one of failslab's debugfs files. */
static void *failslab(const char *name)
{
	struct dentry *dir = debugfs_lookup("failslab", NULL);
	struct dentry *file = dir ? debugfs_lookup(name, dir) : NULL;
	void *value = file ? d_inode(file)->i_private : NULL;

	dput(file);
	dput(dir);
	return value;
}

static void set_failslab(bool ready)
{
	*(bool *)failslab("ignore-gfp-wait") = !ready;
	*(unsigned long *)failslab("verbose") = ready ? 0 : 2;
}

static void reset_failslab(void *unused)
{
	set_failslab(false);
}

/* Each allocation of probe fails once. Probe succeeds nevertheless, or leaves nothing. */
static void allocation_fails(struct kunit *test)
{
	unsigned int refused = 0;
	struct pmem *pmem;

	if (!failslab("ignore-gfp-wait"))
		kunit_skip(test, "needs CONFIG_FAILSLAB and CONFIG_FAULT_INJECTION_DEBUG_FS");

	pmem = pmem_create(test);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action(test, reset_failslab, NULL));
	set_failslab(true);
	do {
		pmem->fake->fail_nth++;
		KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(pmem->fake));
		if (!fake_virtio_is_bound(pmem->fake)) {
			refused++;
			fake_virtio_unplug(pmem->fake);
			continue;
		}
		/* libnvdimm does not report that it could not register the region. */
		pmem_find_region(pmem);
		pmem_unplug(pmem);
	} while (pmem->fake->failed_nth);

	kunit_info(test, "%u allocations failed, and with %u of them probe\n",
		   pmem->fake->fail_nth - 1, refused);
	/* At least those for the requests, the queues and the region. */
	KUNIT_EXPECT_GT(test, refused, 32);
	pmem->fake->fail_nth = 0;
	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_probe_cases[] = {
	KUNIT_CASE_PARAM(config_range, range_gen_params),
	KUNIT_CASE(config_overlaps_ram),
	KUNIT_CASE(no_config),
	KUNIT_CASE(config_is_short),
	KUNIT_CASE(config_changes_while_read),
	KUNIT_CASE_PARAM(shm_region, shm_gen_params),
	KUNIT_CASE_PARAM(shm_region_alone, shm_gen_params),
	KUNIT_CASE(shm_region_vanishes),
	KUNIT_CASE(step_fails),
	KUNIT_CASE(features_are_refused),
	KUNIT_CASE(legacy_device),
	KUNIT_CASE(allocation_fails),
	{}
};

static struct kunit_suite pmem_probe_suite = {
	.name = "virtio_pmem_probe",
	.test_cases = pmem_probe_cases,
};

kunit_test_suite(pmem_probe_suite);
