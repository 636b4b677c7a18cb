// SPDX-License-Identifier: GPL-2.0
/* A virtio-pmem driver on queues that break, and on very small queues. */

#include "pmem_script.h"

#include <uapi/linux/virtio_ring.h>

/* New callers fail at once, and the driver can still be unbound and bound again. */
static void expect_given_up(struct pmem *pmem)
{
	pmem_ends(pmem_sleeper(pmem), -EIO);
	pmem_ends(pmem_writer(pmem), -EIO);
	pmem_unplug(pmem);
	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void unknown_id(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);

	pmem_take(pmem);
	fake_virtio_used(pmem->fake, 0, 9999, 4);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	expect_given_up(pmem);
}

static void unused_id(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);

	fake_virtio_used(pmem->fake, 0, (request->id + 7) % pmem->fake->queue_size, 4);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	expect_given_up(pmem);
}

static void notify_fails(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	pmem->fake->fail[FAKE_NOTIFY] = -EIO;
	pmem_ends(pmem_sleeper(pmem), -EIO);
	pmem_ends(pmem_writer(pmem), -EIO);
	pmem->fake->fail[FAKE_NOTIFY] = 0;
	expect_given_up(pmem);
}

/* The notification of the next batch fails. */
static void notify_fails_later(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *writer, *late;
	struct fake_request *request = pmem_take(pmem);

	pmem->fake->fail[FAKE_NOTIFY] = -EIO;
	writer = pmem_writer(pmem);
	late = pmem_sleeper(pmem);
	pmem_answer(pmem, request, 0);
	/* Either result is valid if the driver detects the failure before the answer. */
	pmem_ends(early, early->result);
	pmem_ends(writer, -EIO);
	pmem_ends(late, -EIO);
	pmem->fake->fail[FAKE_NOTIFY] = 0;
	expect_given_up(pmem);
}

static void breaks_before_the_kick(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	fake_virtio_break(pmem->fake);
	pmem_ends(pmem_sleeper(pmem), -EIO);
	pmem_ends(pmem_writer(pmem), -EIO);
	expect_given_up(pmem);
}

static void break_at_kick(struct fake_virtio *fake, enum fake_op op)
{
	if (op == FAKE_NOTIFY)
		fake_virtio_break(fake);
}

/* A broken queue causes no callback, but the device is unplugged afterwards. */
static void breaks_during_the_kick(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper, *writer;

	pmem->fake->hook = break_at_kick;
	sleeper = pmem_sleeper(pmem);
	writer = pmem_writer(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	pmem->fake->hook = NULL;

	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void breaks_after_the_kick(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);

	fake_virtio_break(pmem->fake);
	/* An answer after the break does not count. */
	pmem_answer(pmem, request, 0);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);

	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* The host has answered, but the queue breaks before the interrupt. */
static void breaks_before_the_interrupt(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);

	pmem_answer_silently(pmem, request, 0);
	fake_virtio_break(pmem->fake);
	fake_virtio_interrupt(pmem->fake, 0);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(sleeper, sleeper->result);
	pmem_ends(writer, -EIO);
}

static void queue_of_one(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem->fake->queue_size = 1;
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_plug(pmem->fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_is_bound(pmem->fake));
	fake_virtio_unplug(pmem->fake);
}

static void queue_of_two(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *callers[8];

	pmem->fake->queue_size = 2;
	pmem_plug(pmem);
	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		callers[i] = i % 2 ? pmem_writer(pmem) : pmem_sleeper(pmem);
	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++) {
		pmem_serve(pmem, callers[i]);
		pmem_ends(callers[i], 0);
	}
	pmem_unplug(pmem);
}

/* The ring would allocate an indirect table for each request; pmem_take() checks that. */
static void indirect_is_declined(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem->fake->features |= BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) |
				BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
	pmem_plug(pmem);
	KUNIT_EXPECT_FALSE(test, pmem->fake->accepted & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	KUNIT_EXPECT_TRUE(test, pmem->fake->accepted & BIT_ULL(VIRTIO_RING_F_EVENT_IDX));
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* A packed ring is used as long as no late answer is possible. */
static void packed_until_a_flush_is_lost(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);
	struct pmem_caller *sleeper;

	pmem->fake->features |= BIT_ULL(VIRTIO_F_RING_PACKED);
	pmem_plug(pmem);
	pmem_works(pmem);
	KUNIT_EXPECT_EQ(test, 0, pmem_reset_prepare(pmem));
	KUNIT_EXPECT_EQ(test, 0, pmem_reset_done(pmem));
	KUNIT_EXPECT_TRUE(test, pmem->fake->accepted & BIT_ULL(VIRTIO_F_RING_PACKED));

	sleeper = pmem_sleeper(pmem);
	pmem_lose(pmem);
	KUNIT_EXPECT_FALSE(test, pmem->fake->accepted & BIT_ULL(VIRTIO_F_RING_PACKED));
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_queue_cases[] = {
	KUNIT_CASE(unknown_id),
	KUNIT_CASE(unused_id),
	KUNIT_CASE(notify_fails),
	KUNIT_CASE(notify_fails_later),
	KUNIT_CASE(breaks_before_the_kick),
	KUNIT_CASE(breaks_during_the_kick),
	KUNIT_CASE(breaks_after_the_kick),
	KUNIT_CASE(breaks_before_the_interrupt),
	KUNIT_CASE(queue_of_one),
	KUNIT_CASE(queue_of_two),
	KUNIT_CASE(indirect_is_declined),
	KUNIT_CASE(packed_until_a_flush_is_lost),
	{}
};

static struct kunit_suite pmem_queue_suite = {
	.name = "virtio_pmem_queue",
	.test_cases = pmem_queue_cases,
};

kunit_test_suite(pmem_queue_suite);
