// SPDX-License-Identifier: GPL-2.0
/*
 * Resets of a virtio-pmem device: for suspend, by a function reset, or because the device needs
 * one. No caller fails because of a reset, and only a flush's own answer counts.
 */

#include "pmem_script.h"

#include <linux/delay.h>

/* Suspend and resume. */

static void answers_while_freezing(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *late;
	struct fake_request *request = pmem_take(pmem);
	struct pmem_action *freeze = pmem_begin(pmem, pmem_do_freeze);

	KUNIT_EXPECT_FALSE(test, freeze->done);
	late = pmem_writer(pmem);
	pmem_answer(pmem, request, 0);
	pmem_ends(early, 0);
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(freeze));
	pmem_waits(late);

	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	pmem_serve(pmem, late);
	pmem_ends(late, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void callers_wait_for_resume(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	for (unsigned int i = 0; i < 3; i++) {
		struct pmem_caller *sleeper, *writer;

		KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
		KUNIT_EXPECT_NULL(test, pmem->fake->queues[0].vq);
		sleeper = pmem_sleeper(pmem);
		writer = pmem_writer(pmem);
		pmem_waits(sleeper);
		pmem_waits(writer);
		KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
		pmem_serve(pmem, sleeper);
		pmem_serve(pmem, writer);
		pmem_ends(sleeper, 0);
		pmem_ends(writer, 0);
	}
	pmem_unplug(pmem);
}

static void freeze_is_refused_without_answer(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *late;
	struct fake_request *request = pmem_take(pmem);
	struct pmem_action *freeze = pmem_begin(pmem, pmem_do_freeze);

	late = pmem_writer(pmem);
	KUNIT_EXPECT_LT(test, pmem_end_alone(freeze), 0);

	/* The device stays in use. */
	pmem_answer(pmem, request, 0);
	pmem_ends(early, 0);
	pmem_serve(pmem, late);
	pmem_ends(late, 0);
	pmem_unplug(pmem);
}

static void no_resume(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper, *writer;

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	sleeper = pmem_sleeper(pmem);
	writer = pmem_writer(pmem);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	pmem_unplug(pmem);
}

/* The timeout counts from the caller's arrival, not from a timer tick before it. */
static void resume_within_timeout(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper;

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	msleep(50 * MSEC_PER_SEC);
	sleeper = pmem_sleeper(pmem);
	/* Timers may expire late by an eighth. */
	msleep(50 * MSEC_PER_SEC);
	pmem_waits(sleeper);
	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

/* The first resume fails before it calls the driver, and there is no second one. */
static void frozen_again(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper;

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	pmem->fake->fail[FAKE_FINALIZE] = -ENOMEM;
	KUNIT_EXPECT_EQ(test, -ENOMEM, pmem_restore(pmem));
	pmem->fake->fail[FAKE_FINALIZE] = 0;
	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	sleeper = pmem_sleeper(pmem);
	pmem_ends(sleeper, -EIO);
	pmem_unplug(pmem);
}

static void resume_fails(struct kunit *test)
{
	static const enum fake_op steps[] = { FAKE_FINALIZE, FAKE_FIND_VQS };

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper, *writer;

		KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
		sleeper = pmem_sleeper(pmem);
		writer = pmem_writer(pmem);
		pmem->fake->fail[steps[i]] = -ENOMEM;
		KUNIT_EXPECT_EQ(test, -ENOMEM, pmem_restore(pmem));
		/* At once, or after the timeout. */
		pmem_ends(sleeper, -EIO);
		pmem_ends(writer, -EIO);
		pmem->fake->fail[steps[i]] = 0;
		pmem_unplug(pmem);
	}
}

static void unplugged_while_frozen(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper, *writer;

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	sleeper = pmem_sleeper(pmem);
	writer = pmem_writer(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);

	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* Function reset. */

static void function_reset(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *late;
	struct fake_request *request = pmem_take(pmem);
	struct pmem_action *prepare = pmem_begin(pmem, pmem_do_reset_prepare);

	late = pmem_writer(pmem);
	pmem_answer(pmem, request, 0);
	pmem_ends(early, 0);
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(prepare));
	pmem_waits(late);
	KUNIT_EXPECT_EQ(test, 0, pmem_reset_done(pmem));
	pmem_serve(pmem, late);
	pmem_ends(late, 0);
	pmem_unplug(pmem);
}

static void unplugged_during_function_reset(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper, *writer;
	struct pmem_action *unplug;

	KUNIT_EXPECT_EQ(test, 0, pmem_reset_prepare(pmem));
	sleeper = pmem_sleeper(pmem);
	writer = pmem_writer(pmem);
	unplug = pmem_begin(pmem, pmem_do_unplug);
	pmem_waits(sleeper);
	KUNIT_EXPECT_EQ(test, 0, pmem_do_reset_done(pmem));
	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_end(unplug);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
}

static void function_reset_fails(struct kunit *test)
{
	static const enum fake_op steps[] = { FAKE_FINALIZE, FAKE_FIND_VQS };

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper, *writer;

		KUNIT_EXPECT_EQ(test, 0, pmem_reset_prepare(pmem));
		sleeper = pmem_sleeper(pmem);
		writer = pmem_writer(pmem);
		pmem->fake->fail[steps[i]] = -ENOMEM;
		KUNIT_EXPECT_EQ(test, -ENOMEM, pmem_reset_done(pmem));
		pmem_ends(sleeper, -EIO);
		pmem_ends(writer, -EIO);
		pmem->fake->fail[steps[i]] = 0;
		/* The core does not call the driver if it fails before that. */
		pmem_unplug(pmem);
		pmem_plug(pmem);
		pmem_works(pmem);
		pmem_unplug(pmem);
	}
}

/* A device that needs a reset. */

static void needs_reset_idle(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	unsigned int resets = pmem->fake->count[FAKE_RESET];

	fake_virtio_needs_reset(pmem->fake);
	pmem_was_reset(pmem, resets + 1);
	pmem_works(pmem);

	/* Any number of times, if it answers a flush in between. */
	fake_virtio_needs_reset(pmem->fake);
	pmem_was_reset(pmem, resets + 2);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void needs_reset_in_flight(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *lost = pmem_take(pmem);

	fake_virtio_needs_reset(pmem->fake);
	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
	pmem_answer(pmem, lost, 0);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void needs_reset_before_taking(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	unsigned int resets = pmem->fake->count[FAKE_RESET];

	fake_virtio_needs_reset(pmem->fake);
	pmem_was_reset(pmem, resets + 1);
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

/* The device was reset, and has not answered a flush since. */
static void needs_reset_again(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	unsigned int resets = pmem->fake->count[FAKE_RESET];

	fake_virtio_needs_reset(pmem->fake);
	pmem_was_reset(pmem, resets + 1);
	msleep(50);
	fake_virtio_needs_reset(pmem->fake);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	pmem_ends(pmem_sleeper(pmem), -EIO);
	pmem_unplug(pmem);
}

static void recovery_fails(struct kunit *test)
{
	static const enum fake_op steps[] = { FAKE_FINALIZE, FAKE_FIND_VQS };

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper = pmem_sleeper(pmem);
		struct pmem_caller *writer = pmem_writer(pmem);

		pmem->fake->fail[steps[i]] = -ENODEV;
		fake_virtio_needs_reset(pmem->fake);
		pmem_ends(sleeper, -EIO);
		pmem_ends(writer, -EIO);
		pmem->fake->fail[steps[i]] = 0;
		pmem_unplug(pmem);
	}
}

static void refuse_features(struct fake_virtio *fake, enum fake_op op)
{
	if (op == FAKE_STATUS)
		fake->status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
}

static void recovery_is_refused(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);

	pmem->fake->hook = refuse_features;
	fake_virtio_needs_reset(pmem->fake);
	pmem_ends(sleeper, -EIO);
	pmem->fake->hook = NULL;
	KUNIT_EXPECT_TRUE(test, pmem->fake->status & VIRTIO_CONFIG_S_FAILED);
	pmem_unplug(pmem);
}

static void needs_reset_while_frozen(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper;

	KUNIT_EXPECT_EQ(test, 0, pmem_freeze(pmem));
	fake_virtio_needs_reset(pmem->fake);
	sleeper = pmem_sleeper(pmem);
	pmem_waits(sleeper);
	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

/*
 * The recovery's work item finds the device locked and tries again. The suspend gets the lock
 * first, so the work item must then leave the suspended device alone.
 */
static void frozen_before_recovery(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_action *freeze;
	unsigned int found;

	pmem_take(pmem);
	device_lock(&pmem->fake->vdev.dev);
	fake_virtio_needs_reset(pmem->fake);
	freeze = pmem_begin(pmem, pmem_do_freeze);
	KUNIT_EXPECT_FALSE(test, freeze->done);
	device_unlock(&pmem->fake->vdev.dev);
	KUNIT_EXPECT_EQ(test, 0, pmem_end_alone(freeze));

	/* The device needs a reset again, which the work item must now ignore. */
	pmem->fake->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	found = pmem->fake->count[FAKE_FIND_VQS];
	msleep(200);
	KUNIT_EXPECT_EQ(test, found, pmem->fake->count[FAKE_FIND_VQS]);
	KUNIT_EXPECT_NULL(test, pmem->fake->queues[0].vq);
	KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

/* The removal gets the lock before the recovery's work item, and recovers the device itself. */
static void needs_reset_before_unplug(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct pmem_action *unplug;

	pmem_take(pmem);
	device_lock(&pmem->fake->vdev.dev);
	fake_virtio_needs_reset(pmem->fake);
	unplug = pmem_begin(pmem, pmem_do_unplug);
	KUNIT_EXPECT_FALSE(test, unplug->done);
	device_unlock(&pmem->fake->vdev.dev);
	pmem_end(unplug);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
}

static void needs_reset_during_unplug(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct pmem_action *unplug;

	pmem_take(pmem);
	unplug = pmem_begin(pmem, pmem_do_unplug);
	fake_virtio_needs_reset(pmem->fake);
	/* Removal holds the device's lock and waits for the flush until the timeout. */
	pmem_end_alone(unplug);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
}

/* Events in the middle of a recovery. */

static struct pause {
	enum fake_op at;
	struct completion begun, go;
} pause;

static void pause_at(struct fake_virtio *fake, enum fake_op op)
{
	if (op != pause.at || !(current->flags & PF_WQ_WORKER))
		return;
	complete(&pause.begun);
	wait_for_completion_timeout(&pause.go, msecs_to_jiffies(FAKE_LIMIT));
}

/* Begins a recovery and stops it at @at. */
static void pause_recovery(struct pmem *pmem, enum fake_op at)
{
	pause.at = at;
	init_completion(&pause.begun);
	init_completion(&pause.go);
	pmem->fake->hook = pause_at;
	fake_virtio_needs_reset(pmem->fake);
	KUNIT_ASSERT_NE(pmem->test, 0,
			wait_for_completion_timeout(&pause.begun, msecs_to_jiffies(FAKE_LIMIT)));
	pmem->fake->hook = NULL;
}

static const enum fake_op recovery_steps[] = { FAKE_RESET, FAKE_FINALIZE, FAKE_FIND_VQS };

static void frozen_during_recovery(struct kunit *test)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(recovery_steps); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper = pmem_sleeper(pmem);
		struct pmem_action *freeze;

		pause_recovery(pmem, recovery_steps[i]);
		freeze = pmem_begin(pmem, pmem_do_freeze);
		complete(&pause.go);
		KUNIT_EXPECT_EQ(test, 0, pmem_end(freeze));
		/* The machine is off from here on. */
		msleep(100);
		KUNIT_EXPECT_NULL(test, pmem->fake->queues[0].vq);
		KUNIT_EXPECT_EQ(test, 0, pmem_restore(pmem));
		pmem_serve(pmem, sleeper);
		pmem_ends(sleeper, 0);
		pmem_works(pmem);
		pmem_unplug(pmem);
	}
}

static void reset_during_recovery(struct kunit *test)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(recovery_steps); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper = pmem_sleeper(pmem);
		struct pmem_action *prepare;

		pause_recovery(pmem, recovery_steps[i]);
		prepare = pmem_begin(pmem, pmem_do_reset_prepare);
		complete(&pause.go);
		KUNIT_EXPECT_EQ(test, 0, pmem_end(prepare));
		KUNIT_EXPECT_NULL(test, pmem->fake->queues[0].vq);
		KUNIT_EXPECT_EQ(test, 0, pmem_reset_done(pmem));
		pmem_serve(pmem, sleeper);
		pmem_ends(sleeper, 0);
		pmem_unplug(pmem);
	}
}

static void unplugged_during_recovery(struct kunit *test)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(recovery_steps); i++) {
		struct pmem *pmem = pmem_plugged(test);
		struct pmem_caller *sleeper = pmem_sleeper(pmem);
		struct pmem_action *unplug;

		pause_recovery(pmem, recovery_steps[i]);
		unplug = pmem_begin(pmem, pmem_do_unplug);
		complete(&pause.go);
		pmem_end(unplug);
		pmem_ends(sleeper, 0);
	}
}

/* Shutdown. */

static void shutdown_waits_for_the_answer(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem), *late;
	struct fake_request *request = pmem_take(pmem);
	struct pmem_action *shutdown = pmem_begin(pmem, pmem_do_shutdown);

	KUNIT_EXPECT_FALSE(test, shutdown->done);
	pmem_answer(pmem, request, 0);
	pmem_end_alone(shutdown);
	pmem_ends(early, 0);
	KUNIT_EXPECT_EQ(test, 0, pmem->fake->status);

	/* An error would be worse than waiting. */
	late = pmem_writer(pmem);
	pmem_waits(late);
	pmem_unplug(pmem);
}

static void shutdown_does_not_hang(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	pmem_sleeper(pmem);
	pmem_take(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_shutdown));
	KUNIT_EXPECT_EQ(test, 0, pmem->fake->status);
	pmem_unplug(pmem);
}

/* A recovery that was due does not start the device again. */
static void no_recovery_after_shutdown(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_action *shutdown;
	struct fake_request *lost, *again;

	pmem_sleeper(pmem);
	lost = pmem_lose(pmem);
	again = pmem_take(pmem);
	pmem_answer(pmem, lost, 0);
	shutdown = pmem_begin(pmem, pmem_do_shutdown);
	pmem_answer(pmem, again, 0);
	pmem_end_alone(shutdown);
	msleep(100);
	KUNIT_EXPECT_EQ(test, 0, pmem->fake->status);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_reset_cases[] = {
	KUNIT_CASE(answers_while_freezing),
	KUNIT_CASE(callers_wait_for_resume),
	KUNIT_CASE(freeze_is_refused_without_answer),
	KUNIT_CASE(no_resume),
	KUNIT_CASE(resume_within_timeout),
	KUNIT_CASE(frozen_again),
	KUNIT_CASE(resume_fails),
	KUNIT_CASE(unplugged_while_frozen),
	KUNIT_CASE(function_reset),
	KUNIT_CASE(unplugged_during_function_reset),
	KUNIT_CASE(function_reset_fails),
	KUNIT_CASE(needs_reset_idle),
	KUNIT_CASE(needs_reset_in_flight),
	KUNIT_CASE(needs_reset_before_taking),
	KUNIT_CASE(needs_reset_again),
	KUNIT_CASE(recovery_fails),
	KUNIT_CASE(recovery_is_refused),
	KUNIT_CASE(needs_reset_while_frozen),
	KUNIT_CASE(frozen_before_recovery),
	KUNIT_CASE(needs_reset_before_unplug),
	KUNIT_CASE(needs_reset_during_unplug),
	KUNIT_CASE(frozen_during_recovery),
	KUNIT_CASE(reset_during_recovery),
	KUNIT_CASE(unplugged_during_recovery),
	KUNIT_CASE(shutdown_waits_for_the_answer),
	KUNIT_CASE(shutdown_does_not_hang),
	KUNIT_CASE(no_recovery_after_shutdown),
	{}
};

static struct kunit_suite pmem_reset_suite = {
	.name = "virtio_pmem_reset",
	.test_cases = pmem_reset_cases,
};

kunit_test_suite(pmem_reset_suite);
