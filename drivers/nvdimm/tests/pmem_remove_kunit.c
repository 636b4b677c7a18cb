// SPDX-License-Identifier: GPL-2.0
/* Orderly and surprise removal of a virtio-pmem driver, with and without callers. */

#include "pmem_script.h"

#include <linux/delay.h>

static void idle_device(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	unsigned int sent = pmem->fake->count[FAKE_NOTIFY];

	pmem_unplug(pmem);
	/* libnvdimm's own flush comes before the block layer's last write-back. */
	KUNIT_EXPECT_EQ(test, 1, pmem->fake->count[FAKE_NOTIFY] - sent);
}

static void all_callers_succeed(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *early = pmem_sleeper(pmem);
	struct fake_request *request = pmem_take(pmem);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct pmem_action *unplug = pmem_begin(pmem, pmem_do_unplug);

	pmem_waits(early);
	pmem_answer(pmem, request, 0);
	pmem_end(unplug);
	pmem_ends(early, 0);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
}

/* Bios hold neither region nor bus, so the driver itself has to wait for them. */
static void only_bios(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *first = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);
	struct pmem_caller *second = pmem_writer(pmem);
	struct pmem_caller *third = pmem_flusher(pmem);
	struct pmem_action *unplug = pmem_begin(pmem, pmem_do_unplug);

	pmem_waits(second);
	KUNIT_EXPECT_NULL(test, pmem->region);
	pmem_answer(pmem, request, 0);
	pmem_end(unplug);
	pmem_ends(first, 0);
	pmem_ends(second, 0);
	pmem_ends(third, 0);
}

static void last_flush_fails(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_action *unplug = pmem_begin(pmem, pmem_do_unplug);

	pmem_answer(pmem, pmem_take(pmem), 1);
	pmem_end_alone(unplug);
}

static void host_never_answers(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem), *waiting;
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);

	waiting = pmem_sleeper(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
	pmem_ends(waiting, -EIO);

	/* A late answer is written to memory that must not be in use; KASAN checks that. */
	pmem_answer(pmem, request, 0);
	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

static void host_never_answers_the_last_flush(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);

	pmem_works(pmem);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
}

/* A host that makes progress is not given up, even if it is slow. */
static void host_is_slow(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *callers[6];
	struct pmem_action *unplug;

	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		callers[i] = i % 2 ? pmem_writer(pmem) : pmem_sleeper(pmem);
	unplug = pmem_begin(pmem, pmem_do_unplug);
	while (!READ_ONCE(unplug->done) && fake_virtio_has_request(pmem->fake, 0)) {
		struct fake_request *request = pmem_take(pmem);

		msleep(40 * MSEC_PER_SEC);
		pmem_answer(pmem, request, 0);
		msleep(50);
	}
	pmem_end_alone(unplug);
	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		pmem_ends(callers[i], 0);
}

/* The device is pulled out under load. */
static void surprise_removal(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *callers[32];

	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		callers[i] = i % 3 == 0 ? pmem_sleeper(pmem) :
			     i % 3 == 1 ? pmem_writer(pmem) : pmem_flusher(pmem);
	fake_virtio_break(pmem->fake);
	pmem_end_alone(pmem_begin(pmem, pmem_do_unplug));
	for (unsigned int i = 0; i < ARRAY_SIZE(callers); i++)
		pmem_ends(callers[i], -EIO);

	pmem_plug(pmem);
	pmem_works(pmem);
	pmem_unplug(pmem);
}

/* The device is pulled out during an orderly removal. */
static void surprise_during_removal(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct fake_request *request = pmem_take(pmem);
	struct pmem_action *unplug = pmem_begin(pmem, pmem_do_unplug);

	fake_virtio_break(pmem->fake);
	pmem_answer(pmem, request, 0);
	pmem_end_alone(unplug);
	pmem_ends(sleeper, -EIO);
	pmem_ends(writer, -EIO);
}

static void surprise_removal_with_needs_reset(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);

	fake_virtio_break(pmem->fake);
	fake_virtio_needs_reset(pmem->fake);
	pmem_end(pmem_begin(pmem, pmem_do_unplug));
	/* The result depends on which one the driver detects first. */
	pmem_ends(sleeper, sleeper->result);
}

static void removal_after_failures(struct kunit *test)
{
	struct pmem *pmem = pmem_plugged(test);
	struct pmem_caller *sleeper = pmem_sleeper(pmem);

	for (unsigned int i = 0; i < 20; i++) {
		pmem_answer(pmem, pmem_take(pmem), 1);
		pmem_ends(sleeper, -EIO);
		sleeper = pmem_sleeper(pmem);
	}
	pmem_serve(pmem, sleeper);
	pmem_ends(sleeper, 0);
	pmem_unplug(pmem);
}

static struct kunit_case pmem_remove_cases[] = {
	KUNIT_CASE(idle_device),
	KUNIT_CASE(all_callers_succeed),
	KUNIT_CASE(only_bios),
	KUNIT_CASE(last_flush_fails),
	KUNIT_CASE(host_never_answers),
	KUNIT_CASE(host_never_answers_the_last_flush),
	KUNIT_CASE(host_is_slow),
	KUNIT_CASE(surprise_removal),
	KUNIT_CASE(surprise_during_removal),
	KUNIT_CASE(surprise_removal_with_needs_reset),
	KUNIT_CASE(removal_after_failures),
	{}
};

static struct kunit_suite pmem_remove_suite = {
	.name = "virtio_pmem_remove",
	.test_cases = pmem_remove_cases,
};

kunit_test_suite(pmem_remove_suite);
