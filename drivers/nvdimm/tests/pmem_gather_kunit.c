// SPDX-License-Identifier: GPL-2.0
/* When a virtio-pmem driver holds a flush back for callers that it has just answered. */

#include "pmem_script.h"

#include <linux/delay.h>

/* The host takes so many milliseconds for a flush, and a driver waits for a part of that. */
#define SERVICE	100

static bool is_sent(struct pmem *pmem)
{
	return fake_virtio_has_request(pmem->fake, 0);
}

/* The host works on the next flush and answers it. */
static void work(struct pmem *pmem)
{
	struct fake_request *request = pmem_take(pmem);

	msleep(SERVICE);
	pmem_answer(pmem, request, 0);
}

/*
 * Some callers flush again and again, each as soon as it was answered. Once the driver has measured
 * that, it holds the flush of some back for the others, which were just answered. Time passes only
 * while all tasks sleep, so the others would not be late. Returns the last caller.
 */
static struct pmem_caller *held_back(struct pmem *pmem, unsigned int callers)
{
	struct pmem_caller *last = pmem_writer(pmem);
	unsigned int in_flight = 1, waiting = callers - 1;

	for (unsigned int i = 0; i < waiting; i++)
		last = pmem_writer(pmem);
	for (unsigned int round = 0; round < 10; round++) {
		unsigned int answered = in_flight;

		work(pmem);
		if (!is_sent(pmem))
			return last;
		in_flight = waiting;
		waiting = answered;
		for (unsigned int i = 0; i < waiting; i++)
			last = pmem_writer(pmem);
	}
	KUNIT_FAIL_AND_ABORT(pmem->test, "no flush is held back");
	return NULL;
}

static void one_flush_for_both(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *first = held_back(pmem, 2), *second;

	for (unsigned int i = 0; i < 8; i++) {
		second = pmem_writer(pmem);
		/* All are here, so the driver does not wait for its timer. */
		KUNIT_EXPECT_TRUE(test, is_sent(pmem));
		work(pmem);
		KUNIT_EXPECT_FALSE(test, is_sent(pmem));
		pmem_ends(first, 0);
		pmem_ends(second, 0);
		first = pmem_flusher(pmem);
		KUNIT_EXPECT_FALSE(test, is_sent(pmem));
	}
	pmem_serve(pmem, first);
	pmem_unplug(pmem);
}

/* The other caller does not come again, so the timer ends the wait. */
static void wait_in_vain(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = held_back(pmem, 2);

	for (unsigned int i = 0; i < 1000 && !is_sent(pmem); i++)
		usleep_range(10, 20);
	KUNIT_ASSERT_TRUE(test, is_sent(pmem));

	/* After that, the driver does not wait for a while, although the callers are as quick. */
	for (unsigned int i = 0; i < 2; i++) {
		struct pmem_caller *next = pmem_writer(pmem);

		work(pmem);
		KUNIT_EXPECT_TRUE(test, is_sent(pmem));
		pmem_ends(caller, 0);
		caller = next;
	}
	pmem_serve(pmem, caller);
	pmem_unplug(pmem);
}

/* The time between a caller's arrival and its flush is 0. */
static void lone_caller(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	for (unsigned int i = 0; i < 8; i++) {
		struct pmem_caller *caller = i % 2 ? pmem_writer(pmem) : pmem_flusher(pmem);

		KUNIT_EXPECT_TRUE(test, is_sent(pmem));
		work(pmem);
		pmem_ends(caller, 0);
	}
	pmem_unplug(pmem);
}

static void error(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *failed = held_back(pmem, 2), *caller;
	struct fake_request *request;

	pmem_writer(pmem);
	request = pmem_take(pmem);
	caller = pmem_writer(pmem);
	msleep(SERVICE);
	pmem_answer(pmem, request, 1);
	pmem_ends(failed, -EIO);
	/* The driver does not wait for callers that have failed. */
	KUNIT_EXPECT_TRUE(test, is_sent(pmem));
	pmem_serve(pmem, caller);
	pmem_unplug(pmem);
}

static const struct pause {
	const char *name;
	int (*begin)(struct pmem *pmem);
	int (*end)(struct pmem *pmem);
} pauses[] = {
	{ "suspend", pmem_do_freeze, pmem_do_restore },
	{ "reset", pmem_do_reset_prepare, pmem_do_reset_done },
};

static void pause_to_desc(const struct pause *pause, char *desc)
{
	strscpy(desc, pause->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(pause, pauses, pause_to_desc);

/* The timer expires while the device is stopped; the flush leaves when it works again. */
static void stopped_meanwhile(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = held_back(pmem, 2);

	KUNIT_EXPECT_EQ(test, 0, pause->begin(pmem));
	pmem_waits(caller);
	KUNIT_EXPECT_FALSE(test, is_sent(pmem));
	KUNIT_EXPECT_EQ(test, 0, pause->end(pmem));
	KUNIT_EXPECT_TRUE(test, is_sent(pmem));
	pmem_serve(pmem, caller);
	pmem_ends(caller, 0);
	pmem_unplug(pmem);
}

/* The device is removed while its timer runs; the removal's own flush is one more caller. */
static void removed_meanwhile(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = held_back(pmem, 4);

	pmem_unplug(pmem);
	pmem_ends(caller, 0);
}

/* The device is pulled out while its timer runs. */
static void pulled_out_meanwhile(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *caller = held_back(pmem, 2);

	fake_virtio_break(pmem->fake);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(caller, -EIO);
}

static struct kunit_case pmem_gather_cases[] = {
	KUNIT_CASE(one_flush_for_both),
	KUNIT_CASE(wait_in_vain),
	KUNIT_CASE(lone_caller),
	KUNIT_CASE(error),
	KUNIT_CASE_PARAM(stopped_meanwhile, pause_gen_params),
	KUNIT_CASE(removed_meanwhile),
	KUNIT_CASE(pulled_out_meanwhile),
	{}
};

static struct kunit_suite pmem_gather_suite = {
	.name = "virtio_pmem_gather",
	.test_cases = pmem_gather_cases,
};

kunit_test_suite(pmem_gather_suite);
