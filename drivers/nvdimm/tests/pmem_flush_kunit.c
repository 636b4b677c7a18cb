// SPDX-License-Identifier: GPL-2.0
/* Results of a virtio-pmem driver's callers for valid and invalid answers of the host. */

#include "pmem_script.h"

static void success(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem), *writer, *flusher;
	struct fake_request *request = pmem_take(pmem);

	pmem_waits(sleeper);
	pmem_answer(pmem, request, 0);
	pmem_ends(sleeper, 0);

	flusher = pmem_flusher(pmem);
	request = pmem_take(pmem);
	pmem_waits(flusher);
	pmem_answer(pmem, request, 0);
	pmem_ends(flusher, 0);

	writer = pmem_writer(pmem);
	request = pmem_take(pmem);
	pmem_waits(writer);
	pmem_answer(pmem, request, 0);
	pmem_ends(writer, 0);
	/* The completion of a write can take long, so it does not run in interrupt context. */
	KUNIT_EXPECT_TRUE(test, writer->by_worker);

	pmem_unplug(pmem);
	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* A flush in flight does not count for a caller that arrives after it was sent. */
static void late_callers_wait(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem);
	struct fake_request *request = pmem_take(pmem);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);

	pmem_answer(pmem, request, 0);
	pmem_ends(early, 0);
	pmem_waits(sleeper);
	pmem_waits(writer);

	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
	pmem_unplug(pmem);
}

static void many_share(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleepers[16], *writers[16];
	unsigned int sent = pmem->fake->count[FAKE_NOTIFY];

	for (unsigned int i = 0; i < ARRAY_SIZE(sleepers); i++) {
		sleepers[i] = pmem_sleeper(pmem);
		writers[i] = pmem_writer(pmem);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(sleepers); i++) {
		pmem_serve(pmem, sleepers[i]);
		pmem_serve(pmem, writers[i]);
		pmem_ends(sleepers[i], 0);
		pmem_ends(writers[i], 0);
	}

	/* One for the first and one that all others share; one more if two may be in flight. */
	sent = pmem->fake->count[FAKE_NOTIFY] - sent;
	KUNIT_EXPECT_GE(test, sent, 2);
	KUNIT_EXPECT_LE(test, sent, 3);

	/* In order of arrival. */
	for (unsigned int i = 1; i < ARRAY_SIZE(writers); i++)
		KUNIT_EXPECT_LT(test, writers[i - 1]->place, writers[i]->place);
	pmem_unplug(pmem);
}

static const u32 bad_statuses[] = { 1, U32_MAX, 2, 0x80000000, 0x100 };

static void status_to_desc(const u32 *status, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%#x", *status);
}

KUNIT_ARRAY_PARAM(bad_status, bad_statuses, status_to_desc);

static void bad_status(struct kunit *test)
{
	const u32 *status = test->param_value;
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem), *writer, *flusher;
	struct fake_request *request = pmem_take(pmem);

	writer = pmem_writer(pmem);
	pmem_answer(pmem, request, *status);
	pmem_ends(sleeper, -EIO);

	/* Only the callers of the failed flush get the error, */
	pmem_waits(writer);
	request = pmem_take(pmem);
	pmem_answer(pmem, request, *status);
	pmem_ends(writer, -EIO);

	flusher = pmem_flusher(pmem);
	request = pmem_take(pmem);
	pmem_answer(pmem, request, *status);
	pmem_ends(flusher, -EIO);

	/* and the next flush works. */
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/*
 * How many bytes of the response the host writes, and how many it reports. A status that was
 * written counts, whatever the length. Behind a mapping the driver cannot check that it was
 * written, so the length has to be right.
 */
static const struct length {
	u32 written, used;
	bool mapped;
	int result;
} lengths[] = {
	{ 4, 4, false, 0 },
	{ 4, 0, false, 0 },
	{ 4, 3, false, 0 },
	{ 4, 5, false, 0 },
	{ 4, U32_MAX, false, 0 },
	{ 0, 0, false, -EIO },
	{ 1, 1, false, -EIO },
	{ 2, 2, false, -EIO },
	{ 3, 3, false, -EIO },
	{ 3, 0, false, -EIO },
	{ 4, 4, true, 0 },
	{ 4, 0, true, -EIO },
	{ 4, 3, true, -EIO },
	{ 0, 0, true, -EIO },
};

static void length_to_desc(const struct length *length, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u written, %u used%s", length->written,
		 length->used, length->mapped ? ", mapped" : "");
}

KUNIT_ARRAY_PARAM(length, lengths, length_to_desc);

static void answer_of_length(struct pmem *pmem, const struct length *length)
{
	struct fake_request *request = pmem_take(pmem);

	if (!length->result)
		pmem->durable = max(pmem->durable, request->available);
	fake_virtio_write(request, "\0\0\0\0", length->written);
	fake_virtio_used(pmem->fake, 0, request->id, length->used);
	fake_virtio_interrupt(pmem->fake, 0);
}

static void used_length(struct kunit *test)
{
	const struct length *length = test->param_value;
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *sleeper, *writer;

	if (length->mapped)
		pmem->fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	pmem_plug(pmem);
	sleeper = pmem_sleeper(pmem);
	answer_of_length(pmem, length);
	pmem_ends(sleeper, length->result);
	writer = pmem_writer(pmem);
	answer_of_length(pmem, length);
	pmem_ends(writer, length->result);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void spurious_interrupts(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper;
	struct fake_request *request;

	fake_virtio_interrupt(pmem->fake, 0);
	sleeper = pmem_sleeper(pmem);
	fake_virtio_interrupt(pmem->fake, 0);
	request = pmem_take(pmem);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_waits(sleeper);
	pmem_answer(pmem, request, 0);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

static const u64 ring_formats[] = { 0, BIT_ULL(VIRTIO_F_RING_PACKED) };

static void ring_format_to_desc(const u64 *format, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s ring", *format ? "packed" : "split");
}

KUNIT_ARRAY_PARAM(ring_format, ring_formats, ring_format_to_desc);

/*
 * The IOMMU runs out of memory, and later has some: callers wait, none fails, and all are served.
 * The ring's error code depends on its format.
 */
static void no_memory_to_map(struct kunit *test)
{
	const u64 *format = test->param_value;
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *sleeper, *writer;

	pmem->fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | *format;
	pmem_plug(pmem);
	pmem_works(pmem);

	pmem->fake->fail[FAKE_MAP] = -ENOMEM;
	sleeper = pmem_sleeper(pmem);
	writer = pmem_writer(pmem);
	pmem_waits(sleeper);
	pmem_waits(writer);
	KUNIT_EXPECT_FALSE(test, fake_virtio_has_request(pmem->fake, 0));

	pmem->fake->fail[FAKE_MAP] = 0;
	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_flush_cases[] = {
	KUNIT_CASE(success),
	KUNIT_CASE(late_callers_wait),
	KUNIT_CASE(many_share),
	KUNIT_CASE_PARAM(bad_status, bad_status_gen_params),
	KUNIT_CASE_PARAM(used_length, length_gen_params),
	KUNIT_CASE(spurious_interrupts),
	KUNIT_CASE_PARAM(no_memory_to_map, ring_format_gen_params),
	{}
};

static struct kunit_suite pmem_flush_suite = {
	.name = "virtio_pmem_flush",
	.test_cases = pmem_flush_cases,
};

kunit_test_suite(pmem_flush_suite);
