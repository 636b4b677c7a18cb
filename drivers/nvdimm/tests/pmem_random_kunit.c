// SPDX-License-Identifier: GPL-2.0
/*
 * Random lives of a virtio-pmem device. Nobody knows how they are to end, but whoever asked for a
 * flush is answered once, nobody is told of a success that was none, and all is over when the
 * device is unplugged.
 *
 * Each life has a seed, which is printed if it goes wrong. The kernel's arguments
 *
 *	pmem_random_kunit.seed=SEED pmem_random_kunit.lives=1
 *
 * repeat it, and a greater number of lives tries more of them.
 */

#include "pmem_script.h"

#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <uapi/linux/virtio_ring.h>

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Of the first life; the next ones follow. 0: another one each time");

/* Of 10 000 in all, a third to each host. */
static unsigned int lives = 3334;
module_param(lives, uint, 0444);
MODULE_PARM_DESC(lives, "How many lives each test tries");

/* What the device and its host may do. */
enum temper {
	FAIR,	/* only what a good host does */
	SLOPPY,	/* it fails flushes, loses them and answers late, and asks for resets */
	HOSTILE,	/* it does whatever it likes, save for lying about a success */
};

enum power {
	RUNNING,
	FREEZING,	/* or a reset of the function; the action is under way */
	FROZEN,
	DEAD,	/* it could not be resumed */
};

/* The seed of the life that goes on. */
static u64 now;

#define MOST_HELD	4
#define MOST_CALLERS	24

struct life {
	struct pmem *pmem;
	struct rnd_state random;
	enum temper temper;
	enum power power;
	bool function_reset;	/* instead of a suspend */
	struct pmem_action *action;
	/* What the host works on. */
	struct fake_request *held[MOST_HELD];
	unsigned int count, callers;
};

static u32 below(struct life *life, u32 end)
{
	return prandom_u32_state(&life->random) % end;
}

/* One event in so many. */
static bool one_in(struct life *life, u32 n)
{
	return !below(life, n);
}

/* The host takes what there is, if it can work on one more. */
static void host_takes(struct life *life)
{
	struct fake_request *request;

	if (life->count == MOST_HELD)
		return;
	request = pmem_try_take(life->pmem);
	if (request)
		life->held[life->count++] = request;
}

static void host_answers(struct life *life)
{
	struct fake_virtio *fake = life->pmem->fake;
	struct fake_request *request;
	unsigned int index;

	if (!life->count)
		return;
	index = below(life, life->count);
	request = life->held[index];
	life->held[index] = life->held[--life->count];

	if (life->temper == FAIR || !one_in(life, 8)) {
		pmem_answer_silently(life->pmem, request, 0);
	} else if (life->temper == SLOPPY || one_in(life, 2)) {
		pmem_answer_silently(life->pmem, request, 1 + below(life, 3));
	} else {
		u32 len = below(life, 8);

		/* Neither the length nor the value is that of a success. */
		fake_virtio_write(request, "\1\1\1\1", min(len, 4));
		fake_virtio_used(fake, 0, request->id, len);
	}
	/* Interrupts come late, and for several at a time. */
	if (!one_in(life, 4))
		fake_virtio_interrupt(fake, 0);
}

static void host_misbehaves(struct life *life)
{
	struct fake_virtio *fake = life->pmem->fake;

	switch (below(life, 8)) {
	case 0:
		fake_virtio_break(fake);
		break;
	case 1:
		/*
		 * Nobody could tell the second answer to a flush from the first one to the next, so
		 * what may be answered by this is not answered again, and all that was used before
		 * has been seen.
		 */
		fake_virtio_interrupt(fake, 0);
		while (pmem_try_take(life->pmem))
			;
		life->count = 0;
		fake_virtio_used(fake, 0, below(life, 2 * fake->queue_size), below(life, 8));
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

static void host_forgets(struct life *life)
{
	if (life->count)
		life->count--;
}

static void someone_calls(struct life *life)
{
	/* A thread that sleeps in a region holds it, but nobody new gets in when it goes. */
	if (!life->pmem->region || life->callers == MOST_CALLERS)
		return;
	life->callers++;
	switch (below(life, 3)) {
	case 0:
		pmem_sleeper(life->pmem);
		break;
	case 1:
		pmem_writer(life->pmem);
		break;
	default:
		pmem_flusher(life->pmem);
		break;
	}
}

static void power_changes(struct life *life)
{
	struct pmem *pmem = life->pmem;
	int result;

	if (life->power == RUNNING) {
		life->function_reset = one_in(life, 2);
		life->action = pmem_begin(pmem, life->function_reset ? pmem_do_reset_prepare :
								       pmem_do_freeze);
		life->power = FREEZING;
	} else if (life->power == FROZEN) {
		/* Nobody is told of a reset that fails, and the mark of it was there before. */
		if (life->function_reset && pmem->fake->vdev.failed)
			pmem->fake->fail[FAKE_FINALIZE] = 0;
		result = life->function_reset ? pmem_do_reset_done(pmem) : pmem_do_restore(pmem);
		life->power = result ? DEAD : RUNNING;
	}
}

/* Sees whether the action that is under way has ended. */
static void power_has_changed(struct life *life)
{
	if (life->power == FREEZING && READ_ONCE(life->action->done))
		life->power = pmem_end_alone(life->action) ? RUNNING : FROZEN;
}

static void step(struct life *life)
{
	struct fake_virtio *fake = life->pmem->fake;
	u32 event = below(life, 100);

	power_has_changed(life);
	if (event < 30)
		someone_calls(life);
	else if (event < 50)
		host_takes(life);
	else if (event < 75)
		host_answers(life);
	else if (event < 80)
		fake_virtio_interrupt(fake, 0);
	else if (event < 88)
		msleep(1 + below(life, 30));
	else if (event < 92)
		power_changes(life);
	else if (event < 94)
		fake->fail[FAKE_MAP] = one_in(life, 2) ? -ENOMEM : 0;
	else if (event < 97 && life->temper >= SLOPPY)
		fake_virtio_needs_reset(fake);
	else if (event < 98 && life->temper >= SLOPPY)
		host_forgets(life);
	else if (event < 99 && life->temper == HOSTILE)
		host_misbehaves(life);
}

static void live(struct pmem *pmem, enum temper temper, u64 this_seed)
{
	struct life life = { .pmem = pmem, .temper = temper };
	struct fake_virtio *fake = pmem->fake;
	u32 steps;

	prandom_seed_state(&life.random, this_seed);
	fake->features = BIT_ULL(VIRTIO_F_VERSION_1);
	if (one_in(&life, 2))
		fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	if (one_in(&life, 2))
		fake->features |= BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
	if (one_in(&life, 2))
		fake->features |= BIT_ULL(VIRTIO_F_RING_PACKED);
	/* Of a flush that was lost behind a mapping; the device is given up then. */
	fake->may_keep = temper == FAIR ? 0 : 2;
	fake->queue_size = 2 << below(&life, 4);
	pmem_plug(pmem);

	for (steps = below(&life, 150); steps; steps--)
		step(&life);

	/* It ends well, or as it is. */
	fake->fail[FAKE_MAP] = 0;
	if (temper == FAIR || one_in(&life, 2)) {
		memset(fake->fail, 0, sizeof(fake->fail));
		while (life.count)
			host_answers(&life);
		fake_virtio_interrupt(fake, 0);
		if (life.power == FREEZING)
			life.power = pmem_end(life.action) ? RUNNING : FROZEN;
	} else if (life.power == FREEZING) {
		life.power = pmem_end_alone(life.action) ? RUNNING : FROZEN;
	}
	/* A reset of the function that never ends keeps the device for ever. */
	if (life.power == FROZEN && (temper == FAIR || life.function_reset || one_in(&life, 2)))
		power_changes(&life);
	pmem_unplug(pmem);
	memset(fake->fail, 0, sizeof(fake->fail));

	/* Answers that come now find no queue; nobody may have got their memory. */
	while (life.count)
		host_answers(&life);
	/* A bio's work item may have a moment's work left. */
	msleep(20);
	if (temper == FAIR) {
		struct pmem_caller *caller;

		list_for_each_entry(caller, &pmem->callers, list)
			KUNIT_EXPECT_EQ(pmem->test, 0, caller->result);
	}
	pmem_check(pmem);
	fake_virtio_forget(fake);
}

static void random_lives(struct kunit *test, enum temper temper)
{
	struct pmem *pmem = pmem_create(test);
	u64 first = seed ?: get_random_u32();

	kunit_info(test, "%u lives from seed %llu\n", lives, first);
	for (unsigned int i = 0; i < lives; i++) {
		now = first + i;
		live(pmem, temper, now);
		if (READ_ONCE(test->status) == KUNIT_FAILURE)
			return;
		cond_resched();
	}
}

static void fair_host(struct kunit *test)
{
	random_lives(test, FAIR);
}

static void sloppy_host(struct kunit *test)
{
	random_lives(test, SLOPPY);
}

static void hostile_host(struct kunit *test)
{
	random_lives(test, HOSTILE);
}

static struct kunit_case pmem_random_cases[] = {
	KUNIT_CASE_SLOW(fair_host),
	KUNIT_CASE_SLOW(sloppy_host),
	KUNIT_CASE_SLOW(hostile_host),
	{}
};

static void say_how_to_repeat(struct kunit *test)
{
	if (READ_ONCE(test->status) == KUNIT_FAILURE)
		kunit_err(test, "repeat it by pmem_random_kunit.seed=%llu pmem_random_kunit.lives=1\n",
			  now);
}

static struct kunit_suite pmem_random_suite = {
	.name = "virtio_pmem_random",
	.exit = say_how_to_repeat,
	.test_cases = pmem_random_cases,
};

kunit_test_suite(pmem_random_suite);
