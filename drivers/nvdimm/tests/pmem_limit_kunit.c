// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio-pmem driver with hosts that are slow, hang, or are gone. The driver's parameter timeout
 * has to be 60 s or more; each timer tick of it takes real time, so keep it short.
 */

#include "pmem_script.h"

#include <linux/delay.h>
#include <linux/ktime.h>

/* A flush is slow, but within the timeout, while the driver is removed. */
static void slow_flush_during_removal(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);
	struct pmem_action *unplug = pmem_begin(pmem, pmem_do_unplug);

	msleep(50 * MSEC_PER_SEC);
	pmem_answer(pmem, request, 0);
	pmem_end(unplug);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
}

/* PCI may wait a minute for a function after its reset. */
static void slow_function_reset(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper;

	KUNIT_EXPECT_EQ(test, 0, pmem_reset_prepare(pmem));
	sleeper = pmem_sleeper(pmem);
	msleep(80 * MSEC_PER_SEC);
	pmem_waits(sleeper);
	KUNIT_EXPECT_EQ(test, 0, pmem_reset_done(pmem));
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

/* The device was given up before the reset ended: it must not be reported as working. */
static void function_reset_after_timeout(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	KUNIT_EXPECT_EQ(test, 0, pmem_reset_prepare(pmem));
	pmem_ends(pmem_sleeper(pmem), -EIO);
	KUNIT_EXPECT_LT(test, pmem_reset_done(pmem), 0);
	KUNIT_EXPECT_NULL(test, pmem->fake->queues[0].vq);
	pmem_ends(pmem_writer(pmem), -EIO);
	pmem_unplug(pmem);
}

static void resume_after_timeout(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	pmem_ends(pmem_sleeper(pmem), -EIO);
	KUNIT_EXPECT_LT(test, pmem_restore(pmem), 0);
	KUNIT_EXPECT_NULL(test, pmem->fake->queues[0].vq);
	pmem_unplug(pmem);
}

/* A broken queue causes no callback, and a removal that waits must still detect it soon. */
static void pulled_out_during_removal(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct pmem_action *unplug;
	ktime_t began;

	pmem_take(pmem);
	unplug = pmem_begin(pmem, pmem_do_unplug);
	fake_virtio_break(pmem->fake);
	began = ktime_get();
	pmem_end_alone(unplug);
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), began), 5 * MSEC_PER_SEC);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
}

/* All operations that wait for the host's answer detect a broken queue. */
static void pulled_out_while_waiting(struct kunit *test)
{
	static int (*const waits[])(struct pmem *pmem) = {
		pmem_do_freeze, pmem_do_reset_prepare, pmem_do_shutdown,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(waits); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper = pmem_sleeper(pmem);
		struct pmem_action *action;
		ktime_t began;

		pmem_take(pmem);
		action = pmem_begin(pmem, waits[i]);
		KUNIT_EXPECT_FALSE(test, action->done);
		fake_virtio_break(pmem->fake);
		began = ktime_get();
		pmem_end_alone(action);
		KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), began), 5 * MSEC_PER_SEC);
		pmem_ends(sleeper, -EIO);
		if (waits[i] == pmem_do_reset_prepare)
			KUNIT_EXPECT_LT(test, pmem_do_reset_done(pmem), 0);
		pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	}
}

/* The status of a device that was pulled out has all bits set, including NEEDS_RESET. */
static void device_gone(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	unsigned int resets = pmem->fake->count[FAKE_RESET];

	pmem->fake->gone = true;
	fake_virtio_needs_reset(pmem->fake);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	pmem_ends(pmem_sleeper(pmem), -EIO);
	KUNIT_EXPECT_EQ(test, resets, pmem->fake->count[FAKE_RESET]);
	/* The core would warn about the status, which is not tested here. */
	pmem->fake->gone = false;
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
}

/* A suspend neither waits for such a device nor resets it. */
static void device_gone_while_freezing(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	unsigned int resets = pmem->fake->count[FAKE_RESET];

	pmem_take(pmem);
	pmem->fake->gone = true;
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(pmem_begin(pmem, pmem_do_freeze)));
	KUNIT_EXPECT_EQ(test, resets, pmem->fake->count[FAKE_RESET]);
	pmem_waits(sleeper);

	pmem->fake->gone = false;
	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

/* The host never acknowledges a reset, so the transport waits forever. */
static struct stall {
	struct completion begun, go;
	unsigned int resets;
} stall;

static void stall_at_reset(struct fake_virtio *fake, enum fake_op op)
{
	if (op != FAKE_RESET || stall.resets++)
		return;
	complete(&stall.begun);
	wait_for_completion(&stall.go);
}

static void stall_next_reset(struct pmem *pmem)
{
	init_completion(&stall.begun);
	init_completion(&stall.go);
	stall.resets = 0;
	pmem->fake->hook = stall_at_reset;
}

static void wait_for_stall(struct pmem *pmem)
{
	KUNIT_ASSERT_NE(pmem->test, 0,
			wait_for_completion_timeout(&stall.begun, msecs_to_jiffies(FAKE_LIMIT)));
}

static void end_stall(void *data)
{
	complete_all(&stall.go);
}

static void reset_is_never_acknowledged(struct kunit *test)
{
	static int (*const resets[])(struct pmem *pmem) = {
		NULL, pmem_do_freeze, pmem_do_reset_prepare,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(resets); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_action *action = NULL;
		struct pmem_caller *sleeper = NULL;

		KUNIT_ASSERT_EQ(test, 0, kunit_add_action(test, end_stall, NULL));
		stall_next_reset(pmem);
		if (resets[i]) {
			action = pmem_begin(pmem, resets[i]);
		} else {
			sleeper = pmem_sleeper(pmem);
			fake_virtio_needs_reset(pmem->fake);
		}
		wait_for_stall(pmem);
		if (!sleeper)
			sleeper = pmem_sleeper(pmem);
		pmem_ends(sleeper, -EIO);
		pmem_ends(pmem_writer(pmem), -EIO);
		kunit_release_action(test, end_stall, NULL);
		if (action)
			pmem_end_alone(action);
		pmem->fake->hook = NULL;
		if (resets[i] == pmem_do_reset_prepare)
			KUNIT_EXPECT_LT(test, pmem_do_reset_done(pmem), 0);
		pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	}
}

/* A device that needs a reset sends no answers, and suspend must not wait for them. */
static void needs_reset_while_freezing(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem), *writer;
	struct pmem_action *freeze;

	pmem_take(pmem);
	freeze = pmem_begin(pmem, pmem_do_freeze);
	KUNIT_EXPECT_FALSE(test, freeze->done);
	fake_virtio_needs_reset(pmem->fake);
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(freeze));
	writer = pmem_writer(pmem);
	pmem_waits(sleeper);
	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_limit_cases[] = {
	KUNIT_CASE(slow_flush_during_removal),
	KUNIT_CASE(slow_function_reset),
	KUNIT_CASE(function_reset_after_timeout),
	KUNIT_CASE(resume_after_timeout),
	KUNIT_CASE(pulled_out_during_removal),
	KUNIT_CASE(pulled_out_while_waiting),
	KUNIT_CASE(device_gone),
	KUNIT_CASE(device_gone_while_freezing),
	KUNIT_CASE(reset_is_never_acknowledged),
	KUNIT_CASE(needs_reset_while_freezing),
	{}
};

static struct kunit_suite pmem_limit_suite = {
	.name = "virtio_pmem_limit",
	.test_cases = pmem_limit_cases,
};

kunit_test_suite(pmem_limit_suite);
