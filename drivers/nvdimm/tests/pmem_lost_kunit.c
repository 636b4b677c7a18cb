// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio-pmem driver with hosts that lose a flush, or seem to. The driver's parameter
 * resend_after has to be 300 s.
 */

#include "pmem_script.h"

#include <linux/delay.h>
#include <linux/ktime.h>
#include <uapi/linux/virtio_config.h>

#define PATIENCE	300

/* The time in seconds, for taken_again(). */
static s64 now(void)
{
	return ktime_get_seconds();
}

/* Takes the flush that is sent again, and checks when that is. */
static struct fake_request *taken_again(struct pmem *pmem, s64 *sent, unsigned int patience)
{
	unsigned int resets = pmem->fake->count[FAKE_RESET];
	struct fake_request *request = pmem_take(pmem);

	KUNIT_EXPECT_GE(pmem->test, now() - *sent, patience);
	KUNIT_EXPECT_LE(pmem->test, now() - *sent, patience + 3);
	KUNIT_EXPECT_EQ(pmem->test, resets + 1, pmem->fake->count[FAKE_RESET]);
	*sent = now();
	return request;
}

static void lost_answer(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	s64 sent = now();

	pmem_take(pmem);
	pmem_answer(pmem, taken_again(pmem, &sent, PATIENCE), 0);
	pmem_ends(sleeper, 0);
	pmem_serve(pmem, writer);
	pmem_ends(writer, 0);

	/* The next one has the same time. */
	sleeper = pmem_sleeper(pmem);
	sent = now();
	pmem_take(pmem);
	pmem_answer(pmem, taken_again(pmem, &sent, PATIENCE), 0);
	pmem_ends(sleeper, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void slow_answer(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	unsigned int resets = pmem->fake->count[FAKE_RESET];

	for (unsigned int i = 0; i < 3; i++) {
		struct pmem_caller *sleeper = pmem_sleeper(pmem);
		struct fake_request *request = pmem_take(pmem);

		msleep((PATIENCE - 10) * MSEC_PER_SEC);
		pmem_waits(sleeper);
		pmem_answer(pmem, request, 0);
		pmem_ends(sleeper, 0);
	}
	KUNIT_EXPECT_EQ(test, resets, pmem->fake->count[FAKE_RESET]);
	pmem_unplug(pmem);
}

static void late_answer(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	s64 sent = now();
	struct fake_request *late = pmem_take(pmem);
	struct fake_request *again = taken_again(pmem, &sent, PATIENCE);

	pmem_answer(pmem, late, 0);
	pmem_waits(sleeper);
	pmem_answer(pmem, again, 0);
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* A host that needs longer than the driver waits answers all flushes in the end. */
static void very_slow_host(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct fake_request *requests[5];
	s64 sent = now();

	requests[0] = pmem_take(pmem);
	requests[1] = taken_again(pmem, &sent, PATIENCE);
	requests[2] = taken_again(pmem, &sent, 2 * PATIENCE);
	/* The two after the late answers are of flushes that were sent before. */
	pmem_answer(pmem, requests[0], 0);
	pmem_answer(pmem, requests[1], 0);
	requests[3] = pmem_take(pmem);
	pmem_answer(pmem, requests[2], 0);
	pmem_waits(sleeper);
	pmem_answer(pmem, requests[3], 0);
	requests[4] = pmem_take(pmem);
	pmem_answer(pmem, requests[4], 0);
	pmem_ends(sleeper, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* After a late answer that to its successor is lost, too. */
static void lost_after_late(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	s64 sent = now();
	struct fake_request *late = pmem_take(pmem);

	taken_again(pmem, &sent, PATIENCE);
	pmem_answer(pmem, late, 0);
	sent = now();
	pmem_answer(pmem, taken_again(pmem, &sent, 2 * PATIENCE), 0);
	pmem_ends(sleeper, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* The answer was written, and only its interrupt is lost: it counts. */
static void lost_interrupt(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);

	pmem_answer_silently(pmem, pmem_take(pmem), 0);
	pmem_ends(sleeper, 0);
	KUNIT_EXPECT_NULL(test, pmem_try_take(pmem));
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* Behind an IOMMU a flush cannot be sent again. */
static void lost_behind_a_mapping(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	unsigned int resets;
	struct pmem_caller *sleeper;
	struct fake_request *request;

	pmem->fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	pmem_plug(pmem);
	resets = pmem->fake->count[FAKE_RESET];
	sleeper = pmem_sleeper(pmem);
	request = pmem_take(pmem);
	msleep(4 * PATIENCE * MSEC_PER_SEC);
	pmem_waits(sleeper);
	KUNIT_EXPECT_EQ(test, resets, pmem->fake->count[FAKE_RESET]);
	pmem_answer(pmem, request, 0);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_lost_cases[] = {
	KUNIT_CASE(lost_answer),
	KUNIT_CASE(slow_answer),
	KUNIT_CASE(late_answer),
	KUNIT_CASE(very_slow_host),
	KUNIT_CASE(lost_after_late),
	KUNIT_CASE(lost_interrupt),
	KUNIT_CASE(lost_behind_a_mapping),
	{}
};

static struct kunit_suite pmem_lost_suite = {
	.name = "virtio_pmem_lost",
	.test_cases = pmem_lost_cases,
};

kunit_test_suite(pmem_lost_suite);
