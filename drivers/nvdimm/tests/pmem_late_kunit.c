// SPDX-License-Identifier: GPL-2.0
/*
 * Flushes that are lost in resets, and hosts that answer them nevertheless. An answer acknowledges
 * only its own flush, and every caller ends.
 */

#include "pmem_script.h"

#include <linux/delay.h>
#include <uapi/linux/virtio_ring.h>

static void lost_flush_is_sent_again(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);

	pmem_lose(pmem);
	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
	pmem_unplug(pmem);
}

/*
 * QEMU does not cancel requests at a reset: the answer comes in the new queue, with the same id. It
 * does not belong to the flush in flight there.
 */
static void stale_answer(struct kunit *test, u32 status)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *late;
	struct fake_request *lost = pmem_lose(pmem);
	struct fake_request *again = pmem_take(pmem);

	late = pmem_writer(pmem);
	pmem_answer(pmem, lost, status);
	pmem_waits(late);
	pmem_answer(pmem, again, 0);
	pmem_serve(pmem, early);
	pmem_serve(pmem, late);
	pmem_ends(early, 0);
	pmem_ends(late, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void stale_success(struct kunit *test)
{
	stale_answer(test, 0);
}

static void stale_failure(struct kunit *test)
{
	stale_answer(test, 1);
}

/* The stale answer comes while no flush is in flight. */
static void stale_answer_to_idle(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem);
	struct fake_request *lost = pmem_lose(pmem);

	pmem_serve(pmem, early);
	pmem_ends(early, 0);
	pmem_answer(pmem, lost, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* The stale answer comes when the lost flush's callers have ended and another one waits. */
static void stale_answer_to_others(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *late;
	struct fake_request *lost = pmem_lose(pmem), *request;

	pmem_serve(pmem, early);
	pmem_ends(early, 0);
	late = pmem_sleeper(pmem);
	request = pmem_take(pmem);
	pmem_answer(pmem, lost, 0);
	pmem_waits(late);
	pmem_answer(pmem, request, 0);
	pmem_serve(pmem, late);
	pmem_ends(late, 0);
	pmem_unplug(pmem);
}

static void two_stale_answers(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *early, *late;
	struct fake_request *first, *second, *third;

	/* In a packed ring the second answer would overwrite a request not yet read. */
	pmem->fake->features |= BIT_ULL(VIRTIO_F_RING_PACKED);
	pmem_plug(pmem);
	early = pmem_sleeper(pmem);
	first = pmem_lose(pmem);
	second = pmem_lose(pmem);
	third = pmem_take(pmem);

	late = pmem_writer(pmem);
	pmem_answer(pmem, second, 0);
	pmem_waits(late);
	pmem_answer(pmem, first, 0);
	pmem_waits(late);
	pmem_answer(pmem, third, 0);
	pmem_serve(pmem, early);
	pmem_serve(pmem, late);
	/* The driver may fail these callers; pmem_check() verifies any success. */
	pmem_ends(early, early->result ? -EIO : 0);
	pmem_ends(late, late->result ? -EIO : 0);
	pmem_unplug(pmem);
}

/*
 * One interrupt covers both. A host with EVENT_IDX then sends none for the real answer, because the
 * driver has not yet taken the one before it.
 */
static void two_stale_answers_at_once(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = pmem_sleeper(pmem);
	struct fake_request *first = pmem_lose(pmem);
	struct fake_request *second = pmem_lose(pmem);
	struct fake_request *third = pmem_take(pmem);

	pmem_answer_silently(pmem, second, 0);
	pmem_answer(pmem, first, 0);
	pmem_answer_silently(pmem, third, 0);
	pmem_serve(pmem, caller);
	pmem_ends(caller, caller->result ? -EIO : 0);
	pmem_unplug(pmem);
}

/* The driver is bound again; the memory of the lost response has not been reused. */
static void stale_answer_to_next_driver(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = pmem_sleeper(pmem);
	struct fake_request *lost = pmem_take(pmem), *request;

	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(caller, -EIO);

	pmem_plug(pmem);
	caller = pmem_sleeper(pmem);
	request = pmem_take(pmem);
	pmem_answer(pmem, lost, 0);
	pmem_waits(caller);
	pmem_answer(pmem, request, 0);
	pmem_serve(pmem, caller);
	pmem_ends(caller, 0);
	pmem_unplug(pmem);
}

/* A duplicate used element looks like a stale answer. */
static void answered_twice(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = pmem_sleeper(pmem);
	struct fake_request *request = pmem_take(pmem);

	pmem_answer(pmem, request, 0);
	pmem_ends(caller, 0);
	fake_virtio_used(pmem->fake, 0, request->id, 4);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_works(pmem);

	/* The duplicate comes while the next flush is in flight. */
	caller = pmem_sleeper(pmem);
	request = pmem_take(pmem);
	pmem_answer(pmem, request, 0);
	pmem_ends(caller, 0);
	caller = pmem_sleeper(pmem);
	request = pmem_take(pmem);
	fake_virtio_used(pmem->fake, 0, request->id, 4);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_waits(caller);
	pmem_answer(pmem, request, 0);
	pmem_serve(pmem, caller);
	pmem_ends(caller, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/*
 * The answer to the flush in flight comes first, with an interrupt. The answer to the lost flush
 * follows before the driver has read the first, so a host with EVENT_IDX sends no second interrupt.
 * The driver then has nothing in flight, and must still find the surplus answer.
 */
static void late_answer_without_interrupt(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *early, *late;
	struct fake_request *lost, *again;

	pmem->fake->features |= BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
	pmem_plug(pmem);
	pmem->by_event = true;
	early = pmem_sleeper(pmem);
	lost = pmem_lose(pmem);
	again = pmem_take(pmem);

	pmem_answer_silently(pmem, again, 0);
	pmem_answer_silently(pmem, lost, 0);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_ends(early, 0);

	late = pmem_sleeper(pmem);
	pmem_serve(pmem, late);
	pmem_ends(late, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* All kinds of callers of a lost flush end when the flush is sent again. */
static void all_kinds_of_callers(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *first = pmem_flusher(pmem), *callers[6];

	pmem_lose(pmem);
	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		callers[i] = i % 3 == 0 ? pmem_flusher(pmem) :
			     i % 3 == 1 ? pmem_writer(pmem) : pmem_sleeper(pmem);
	/* The first caller's flush is lost again, and the next one covers all callers. */
	pmem_lose(pmem);
	pmem_answer(pmem, pmem_take(pmem), 0);
	pmem_ends(first, 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		pmem_ends(callers[i], 0);
	KUNIT_EXPECT_NULL(test, pmem_try_take(pmem));
	pmem_unplug(pmem);
}

/* The host reports an error once: here before the reset, without an interrupt. */
static void reset_after_error(struct kunit *test, bool used)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem), *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);
	__le32 status = cpu_to_le32(1);

	if (used)
		pmem_answer_silently(pmem, request, 1);
	else
		fake_virtio_write(request, &status, sizeof(status));
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(pmem_begin(pmem, pmem_do_reset_prepare)));
	pmem_ends(sleeper, -EIO);
	KUNIT_EXPECT_EQ(test, 0, pmem_do_reset_done(pmem));
	pmem_serve(pmem, writer);
	pmem_ends(writer, 0);
	pmem_unplug(pmem);
}

static void unread_error(struct kunit *test)
{
	reset_after_error(test, true);
}

/* The reset comes between the response and its used element. */
static void error_without_used_element(struct kunit *test)
{
	reset_after_error(test, false);
}

/* A host that drops its requests at a reset: each reset loses a flush for good. */
static void many_lost_flushes(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);

	for (unsigned int i = 0; i < 40; i++)
		pmem_lose(pmem);
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/*
 * Behind an IOMMU or a bounce buffer the driver cannot keep just the response mapped, which the
 * host may still write. So the whole request stays mapped for good, and the device is given up.
 */
static void lost_behind_a_mapping(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *sleeper, *writer;
	struct fake_request *lost;

	pmem->fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	/* The request and the response of the lost flush. */
	pmem->fake->may_keep = 2;
	pmem_plug(pmem);
	sleeper = pmem_sleeper(pmem);
	writer = pmem_writer(pmem);
	lost = pmem_take(pmem);
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(pmem_begin(pmem, pmem_do_reset_prepare)));
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	/* The fake device checks that the host's write finds its mapping. */
	pmem_answer(pmem, lost, 0);
	KUNIT_EXPECT_LT(test, pmem_do_reset_done(pmem), 0);
	pmem_ends(pmem_sleeper(pmem), -EIO);
	pmem_unplug(pmem);
	KUNIT_EXPECT_EQ(test, 2, atomic_read(&pmem->fake->mapped));
}

/* A flush that was answered before the reset is not lost. */
static void answered_behind_a_mapping(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *sleeper;

	pmem->fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	pmem_plug(pmem);
	sleeper = pmem_sleeper(pmem);
	pmem_answer_silently(pmem, pmem_take(pmem), 0);
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(pmem_begin(pmem, pmem_do_reset_prepare)));
	pmem_ends(sleeper, 0);
	KUNIT_EXPECT_EQ(test, 0, pmem_do_reset_done(pmem));
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_late_cases[] = {
	KUNIT_CASE(lost_flush_is_sent_again),
	KUNIT_CASE(stale_success),
	KUNIT_CASE(stale_failure),
	KUNIT_CASE(stale_answer_to_idle),
	KUNIT_CASE(stale_answer_to_others),
	KUNIT_CASE(two_stale_answers),
	KUNIT_CASE(two_stale_answers_at_once),
	KUNIT_CASE(stale_answer_to_next_driver),
	KUNIT_CASE(answered_twice),
	KUNIT_CASE(late_answer_without_interrupt),
	KUNIT_CASE(all_kinds_of_callers),
	KUNIT_CASE(unread_error),
	KUNIT_CASE(error_without_used_element),
	KUNIT_CASE(many_lost_flushes),
	KUNIT_CASE(lost_behind_a_mapping),
	KUNIT_CASE(answered_behind_a_mapping),
	{}
};

static struct kunit_suite pmem_late_suite = {
	.name = "virtio_pmem_late",
	.test_cases = pmem_late_cases,
};

kunit_test_suite(pmem_late_suite);
