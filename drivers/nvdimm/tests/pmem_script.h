/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The words of which tests of a virtio-pmem driver are made: a device, those who ask it for a
 * flush, and its host. A test is a list of events, and of who has ended how:
 *
 *	struct pmem *pmem = pmem_plugged(test);
 *	struct pmem_caller *early = pmem_sleeper(pmem), *late;
 *	struct fake_request *request = pmem_take(pmem);
 *
 *	late = pmem_writer(pmem);
 *	pmem_answer(pmem, request, 1);
 *	pmem_ends(early, -EIO);
 *	pmem_serve(pmem, late);
 *	pmem_ends(late, 0);
 *	pmem_unplug(pmem);
 *
 * The words know nothing of how many flushes the driver keeps in flight. What they always check,
 * for every caller: it ends once, and if it ends well, the host has by then answered well a flush
 * that was made available after the caller arrived.
 */
#ifndef _TESTS_KUNIT_PMEM_SCRIPT_H
#define _TESTS_KUNIT_PMEM_SCRIPT_H

#include "fake_virtio.h"

#include <linux/bio.h>

struct nd_region;

/* Where the device's memory is said to be. There is none, and nobody looks. */
#define PMEM_START	0x100000000000ULL
#define PMEM_SIZE	0x10000000ULL

struct pmem {
	struct kunit *test;
	struct fake_virtio *fake;
	struct nd_region *region;	/* NULL if there is none (any more) */
	u64 durable;	/* what was stored before this time, by the device's clock */
	struct list_head callers;
	unsigned int ended;	/* how many callers have ended */
	bool by_event;	/* pmem_answer() interrupts only where EVENT_IDX asks for it */
};

/* Who asks for a flush: a thread that sleeps until it is done, a bio with FUA, or one without. */
struct pmem_caller {
	struct pmem *pmem;
	struct list_head list;
	struct task_struct *task;	/* the sleeper's; NULL for a bio */
	struct bio bio;
	u64 arrived;
	bool called, done;
	atomic_t ended;	/* how often */
	int result;
	unsigned int place;	/* among all who have ended, from 1 */
	bool was_durable;	/* when it ended */
	bool by_worker;	/* it was ended by a work item */
};

/* Something that takes its time, and happens besides. */
struct pmem_action {
	int (*run)(struct pmem *pmem);
	struct pmem *pmem;
	struct task_struct *task;
	bool called, done;
	int result;
};

/* A device with a good configuration, not plugged. */
struct pmem *pmem_create(struct kunit *test);

/* Plugs the device; without a driver bound to it, or a region, the test has failed. */
void pmem_plug(struct pmem *pmem);

/* Both. */
struct pmem *pmem_plugged(struct kunit *test);

/* Finds the region and waits until it is enabled; NULL if there is none. */
struct nd_region *pmem_find_region(struct pmem *pmem);

/* A caller arrives. It has joined, or has been refused, when these return. */
struct pmem_caller *pmem_sleeper(struct pmem *pmem);
struct pmem_caller *pmem_writer(struct pmem *pmem);
struct pmem_caller *pmem_flusher(struct pmem *pmem);

/* The caller ends, now or soon, with this error or 0. */
void pmem_ends(struct pmem_caller *caller, int result);

/* The caller has not ended, and does not without another event. */
void pmem_waits(struct pmem_caller *caller);

/* Whether it has ended. */
bool pmem_has_ended(struct pmem_caller *caller);

/* The host takes the next flush. It has to come. */
struct fake_request *pmem_take(struct pmem *pmem);

/* As pmem_take(), but NULL if there is none now. */
struct fake_request *pmem_try_take(struct pmem *pmem);

/* The host answers it with this status. */
void pmem_answer(struct pmem *pmem, struct fake_request *request, u32 status);

/* As pmem_answer(), but without the interrupt. */
void pmem_answer_silently(struct pmem *pmem, struct fake_request *request, u32 status);

/* The function is reset while the host works on the next flush, and does not answer it in time. */
struct fake_request *pmem_lose(struct pmem *pmem);

/* The host answers well all that comes, until the caller has ended. */
void pmem_serve(struct pmem *pmem, struct pmem_caller *caller);

/* @run begins; it has ended or sleeps when this returns. */
struct pmem_action *pmem_begin(struct pmem *pmem, int (*run)(struct pmem *pmem));

/* Waits for its end while the host answers well all that comes; returns its result, forgets it. */
int pmem_end(struct pmem_action *action);

/* As pmem_end(), but the host answers nothing. */
int pmem_end_alone(struct pmem_action *action);

/* Both. The device unplugged, frozen, and so on; the latter return the driver's answer. */
void pmem_unplug(struct pmem *pmem);
int pmem_freeze(struct pmem *pmem);
int pmem_restore(struct pmem *pmem);
int pmem_reset_prepare(struct pmem *pmem);
int pmem_reset_done(struct pmem *pmem);

/* The same for pmem_begin(). */
int pmem_do_unplug(struct pmem *pmem);
int pmem_do_freeze(struct pmem *pmem);
int pmem_do_restore(struct pmem *pmem);
int pmem_do_reset_prepare(struct pmem *pmem);
int pmem_do_reset_done(struct pmem *pmem);
int pmem_do_shutdown(struct pmem *pmem);

/* Waits until the device has been reset this often. */
void pmem_was_reset(struct pmem *pmem, unsigned int times);

/*
 * Everybody has ended once, and nobody well without reason. Forgets them. It is done at the end of
 * each test, too.
 */
void pmem_check(struct pmem *pmem);

/* A new caller is served. */
void pmem_works(struct pmem *pmem);

#endif
