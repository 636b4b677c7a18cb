// SPDX-License-Identifier: GPL-2.0
/*
 * Random sequences of events on a virtio-pmem device. Their outcome is open, but each caller ends
 * once, none succeeds without a flush, and all have ended when the device is unplugged.
 *
 * Each run has a seed, which is printed if the run fails. The kernel's arguments
 *
 *	pmem_random_kunit.seed=SEED pmem_random_kunit.runs=1
 *
 * repeat it; a greater number does more runs.
 */

#include "pmem_script.h"

#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <uapi/linux/virtio_ring.h>

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Seed of the first run, incremented for each further one. 0: random");

/* Of 10 000 in all, a third for each kind of host. */
static unsigned int runs = 3334;
module_param(runs, uint, 0444);
MODULE_PARM_DESC(runs, "Number of runs for each test");

/* What the device and its host may do. */
enum behaviour {
	CORRECT,	/* follows the specification, and fails no flush */
	FAULTY,	/* fails, loses and delays flushes, and requests resets */
	HOSTILE,	/* anything but a false report of success */
};

enum power {
	RUNNING,
	FREEZING,	/* or preparing a function reset; the action is in progress */
	FROZEN,
	DEAD,	/* resume has failed */
};

/* The seed of the current run. */
static u64 run_seed;

#define MOST_HELD	4
#define MOST_CALLERS	24

struct run {
	struct pmem *pmem;
	struct rnd_state random;
	enum behaviour behaviour;
	enum power power;
	bool function_reset;	/* instead of a suspend */
	struct pmem_action *action;
	/* Requests that the host has taken and not answered. */
	struct fake_request *held[MOST_HELD];
	unsigned int count, callers;
};

static u32 below(struct run *run, u32 end)
{
	return prandom_u32_state(&run->random) % end;
}

/* Returns true once in @n times, on average. */
static bool one_in(struct run *run, u32 n)
{
	return !below(run, n);
}

/* The host takes the next request, if there is one and it holds fewer than MOST_HELD. */
static void host_takes(struct run *run)
{
	struct fake_request *request;

	if (run->count == MOST_HELD)
		return;
	request = pmem_try_take(run->pmem);
	if (request)
		run->held[run->count++] = request;
}

static void host_answers(struct run *run)
{
	struct fake_virtio *fake = run->pmem->fake;
	struct fake_request *request;
	unsigned int index;

	if (!run->count)
		return;
	index = below(run, run->count);
	request = run->held[index];
	run->held[index] = run->held[--run->count];

	if (run->behaviour == CORRECT || !one_in(run, 8)) {
		pmem_answer_silently(run->pmem, request, 0);
	} else if (run->behaviour == FAULTY || one_in(run, 2)) {
		pmem_answer_silently(run->pmem, request, 1 + below(run, 3));
	} else {
		u32 len = below(run, 8);

		/* Neither the length nor the value reports success. */
		fake_virtio_write(request, "\1\1\1\1", min(len, 4));
		fake_virtio_used(fake, 0, request->id, len);
	}
	/* Some interrupts are late and cover several answers. */
	if (!one_in(run, 4))
		fake_virtio_interrupt(fake, 0);
}

static void host_misbehaves(struct run *run)
{
	struct fake_virtio *fake = run->pmem->fake;

	switch (below(run, 8)) {
	case 0:
		fake_virtio_break(fake);
		break;
	case 1:
		/*
		 * No driver can distinguish a second answer to a flush from the first answer to the
		 * next. So all earlier answers are processed first, and no request that this may
		 * answer is answered again.
		 */
		fake_virtio_interrupt(fake, 0);
		while (pmem_try_take(run->pmem))
			;
		run->count = 0;
		fake_virtio_used(fake, 0, below(run, 2 * fake->queue_size), below(run, 8));
		fake_virtio_interrupt(fake, 0);
		break;
	case 2:
		fake->fail[FAKE_NOTIFY] = -EIO;
		break;
	case 3:
		fake->fail[FAKE_FIND_VQS] = -EIO;
		break;
	case 4:
		fake->fail[FAKE_FINALIZE] = -EIO;
		break;
	default:
		memset(fake->fail, 0, sizeof(fake->fail));
		break;
	}
}

static void host_forgets(struct run *run)
{
	if (run->count)
		run->count--;
}

static void caller_arrives(struct run *run)
{
	/* Sleeping callers hold the region, but while it is removed none are added. */
	if (!run->pmem->region || run->callers == MOST_CALLERS)
		return;
	run->callers++;
	switch (below(run, 3)) {
	case 0:
		pmem_sleeper(run->pmem);
		break;
	case 1:
		pmem_writer(run->pmem);
		break;
	default:
		pmem_flusher(run->pmem);
		break;
	}
}

static void power_changes(struct run *run)
{
	struct pmem *pmem = run->pmem;
	int result;

	if (run->power == RUNNING) {
		run->function_reset = one_in(run, 2);
		run->action = pmem_begin(pmem, run->function_reset ? pmem_do_reset_prepare :
								     pmem_do_freeze);
		run->power = FREEZING;
	} else if (run->power == FROZEN) {
		/* The core marks a failed reset by VIRTIO_CONFIG_S_FAILED, which is set already. */
		if (run->function_reset && pmem->fake->vdev.failed)
			pmem->fake->fail[FAKE_FINALIZE] = 0;
		result = run->function_reset ? pmem_do_reset_done(pmem) : pmem_do_restore(pmem);
		run->power = result ? DEAD : RUNNING;
	}
}

/* Checks whether the action in progress has ended. */
static void check_power(struct run *run)
{
	if (run->power == FREEZING && READ_ONCE(run->action->done))
		run->power = pmem_end_alone(run->action) ? RUNNING : FROZEN;
}

static void step(struct run *run)
{
	struct fake_virtio *fake = run->pmem->fake;
	u32 event = below(run, 100);

	check_power(run);
	if (event < 30)
		caller_arrives(run);
	else if (event < 50)
		host_takes(run);
	else if (event < 75)
		host_answers(run);
	else if (event < 80)
		fake_virtio_interrupt(fake, 0);
	else if (event < 88)
		msleep(1 + below(run, 30));
	else if (event < 92)
		power_changes(run);
	else if (event < 94)
		fake->fail[FAKE_MAP] = one_in(run, 2) ? -ENOMEM : 0;
	else if (event < 97 && run->behaviour >= FAULTY)
		fake_virtio_needs_reset(fake);
	else if (event < 98 && run->behaviour >= FAULTY)
		host_forgets(run);
	else if (event < 99 && run->behaviour == HOSTILE)
		host_misbehaves(run);
}

static void random_run(struct pmem *pmem, enum behaviour behaviour, u64 this_seed)
{
	struct run run = { .pmem = pmem, .behaviour = behaviour };
	struct fake_virtio *fake = pmem->fake;
	u32 steps;

	prandom_seed_state(&run.random, this_seed);
	fake->features = BIT_ULL(VIRTIO_F_VERSION_1);
	if (one_in(&run, 2))
		fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	if (one_in(&run, 2))
		fake->features |= BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
	if (one_in(&run, 2))
		fake->features |= BIT_ULL(VIRTIO_F_RING_PACKED);
	/* The mappings of a flush lost in a reset; the driver then gives the device up. */
	fake->may_keep = behaviour == CORRECT ? 0 : 2;
	fake->queue_size = 2 << below(&run, 4);
	pmem_plug(pmem);

	for (steps = below(&run, 150); steps; steps--)
		step(&run);

	/* Finish properly, or stop in the current state. */
	fake->fail[FAKE_MAP] = 0;
	if (behaviour == CORRECT || one_in(&run, 2)) {
		memset(fake->fail, 0, sizeof(fake->fail));
		while (run.count)
			host_answers(&run);
		fake_virtio_interrupt(fake, 0);
		if (run.power == FREEZING)
			run.power = pmem_end(run.action) ? RUNNING : FROZEN;
	} else if (run.power == FREEZING) {
		run.power = pmem_end_alone(run.action) ? RUNNING : FROZEN;
	}
	/* A function reset that does not end would hold the device forever. */
	if (run.power == FROZEN && (behaviour == CORRECT || run.function_reset || one_in(&run, 2)))
		power_changes(&run);
	pmem_unplug(pmem);
	memset(fake->fail, 0, sizeof(fake->fail));

	/* Late answers find no queue, and must not write to memory that is in use again. */
	while (run.count)
		host_answers(&run);
	/* A bio's work item may still be running. */
	msleep(20);
	if (behaviour == CORRECT) {
		struct pmem_caller *caller;

		list_for_each_entry(caller, &pmem->callers, list)
			KUNIT_EXPECT_EQ(pmem->test, 0, caller->result);
	}
	pmem_check(pmem);
	fake_virtio_forget(fake);
}

static void random_runs(struct kunit *test, enum behaviour behaviour)
{
	struct pmem *pmem = pmem_create(test);
	u64 first = seed ?: get_random_u32();

	kunit_info(test, "%u runs from seed %llu\n", runs, first);
	for (unsigned int i = 0; i < runs; i++) {
		run_seed = first + i;
		random_run(pmem, behaviour, run_seed);
		if (READ_ONCE(test->status) == KUNIT_FAILURE)
			return;
		cond_resched();
	}
}

static void correct_host(struct kunit *test)
{
	random_runs(test, CORRECT);
}

static void faulty_host(struct kunit *test)
{
	random_runs(test, FAULTY);
}

static void hostile_host(struct kunit *test)
{
	random_runs(test, HOSTILE);
}

static struct kunit_case pmem_random_cases[] = {
	KUNIT_CASE_SLOW(correct_host),
	KUNIT_CASE_SLOW(faulty_host),
	KUNIT_CASE_SLOW(hostile_host),
	{}
};

static void print_seed(struct kunit *test)
{
	if (READ_ONCE(test->status) == KUNIT_FAILURE)
		kunit_err(test, "to repeat: pmem_random_kunit.seed=%llu pmem_random_kunit.runs=1\n",
			  run_seed);
}

static struct kunit_suite pmem_random_suite = {
	.name = "virtio_pmem_random",
	.exit = print_seed,
	.test_cases = pmem_random_cases,
};

kunit_test_suite(pmem_random_suite);
