/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for tests of a virtio-pmem driver: a device, the callers that request flushes, and the
 * host. A test is a list of events, with the results that callers get:
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
 * The helpers do not depend on how many flushes the driver keeps in flight. They check for each
 * caller that it ends once, and that it succeeds only after the host has reported success for a
 * flush that was made available after the caller arrived.
 */
#ifndef _PMEM_SCRIPT_H
#define _PMEM_SCRIPT_H

#include "fake_virtio.h"

#include <linux/bio.h>

struct nd_region;

/* The range that the device reports. There is no memory, and no access to it. */
#define PMEM_START	0x100000000000ULL
#define PMEM_SIZE	0x10000000ULL

/* The driver's parameter read_only. It may be set while no device is probed. */
extern char *virtio_pmem_rust_read_only;

struct pmem {
	struct kunit *test;
	struct fake_virtio *fake;
	struct nd_region *region;	/* NULL before registration and after removal */
	u64 durable;	/* stores before this time are durable; by the device's clock */
	struct list_head callers;
	unsigned int ended;	/* how many callers have ended */
	bool by_event;	/* pmem_answer() interrupts only if EVENT_IDX demands it */
};

/* A caller: a thread that sleeps until the flush is done, a bio with FUA, or one with PREFLUSH. */
struct pmem_caller {
	struct pmem *pmem;
	struct list_head list;
	struct task_struct *task;	/* the sleeper's; NULL for a bio */
	struct bio bio;
	u64 arrived;
	bool called, done;
	atomic_t ended;	/* number of times */
	int result;
	unsigned int place;	/* in the order in which callers ended, from 1 */
	bool was_durable;	/* its stores were durable when it ended */
	bool by_worker;	/* ended by a work item */
};

/* An operation in a thread of its own. */
struct pmem_action {
	int (*run)(struct pmem *pmem);
	struct pmem *pmem;
	struct task_struct *task;
	bool called, done;
	int result;
};

/* A device with a valid configuration, not plugged. */
struct pmem *pmem_create(struct kunit *test);

/* Plugs the device. Fails the test if no driver is bound or no region registered. */
void pmem_plug(struct pmem *pmem);

/* Creates and plugs a device. */
struct pmem *pmem_plugged(struct kunit *test);

/* Finds the region and waits until it is enabled; NULL if there is none. */
struct nd_region *pmem_find_region(struct pmem *pmem);

/* A caller arrives. When these return, it has joined a batch or has ended. */
struct pmem_caller *pmem_sleeper(struct pmem *pmem);
struct pmem_caller *pmem_writer(struct pmem *pmem);
struct pmem_caller *pmem_flusher(struct pmem *pmem);

/* Waits for the caller's end, and checks its result. */
void pmem_ends(struct pmem_caller *caller, int result);

/* Checks that the caller has not ended and does not without another event. */
void pmem_waits(struct pmem_caller *caller);

/* Returns whether the caller has ended. */
bool pmem_has_ended(struct pmem_caller *caller);

/* The host waits for the next flush and takes it. Aborts the test if there is none. */
struct fake_request *pmem_take(struct pmem *pmem);

/* Like pmem_take(), but returns NULL if there is none now. */
struct fake_request *pmem_try_take(struct pmem *pmem);

/* The host answers a request with this status. */
void pmem_answer(struct pmem *pmem, struct fake_request *request, u32 status);

/* Like pmem_answer(), but without the interrupt. */
void pmem_answer_silently(struct pmem *pmem, struct fake_request *request, u32 status);

/* The host takes the next flush, and does not answer it before a function reset. */
struct fake_request *pmem_lose(struct pmem *pmem);

/* The host reports success for all flushes until the caller has ended. */
void pmem_serve(struct pmem *pmem, struct pmem_caller *caller);

/* Starts @run in a thread; when this returns, it has ended or sleeps. */
struct pmem_action *pmem_begin(struct pmem *pmem, int (*run)(struct pmem *pmem));

/* Waits for the end while the host reports success for all flushes; returns the result. */
int pmem_end(struct pmem_action *action);

/* Like pmem_end(), but the host answers no flush. */
int pmem_end_alone(struct pmem_action *action);

/* Begin and end an operation; all but pmem_unplug() return the driver's result. */
void pmem_unplug(struct pmem *pmem);
int pmem_freeze(struct pmem *pmem);
int pmem_restore(struct pmem *pmem);
int pmem_reset_prepare(struct pmem *pmem);
int pmem_reset_done(struct pmem *pmem);

/* The same operations, for pmem_begin(). */
int pmem_do_unplug(struct pmem *pmem);
int pmem_do_freeze(struct pmem *pmem);
int pmem_do_restore(struct pmem *pmem);
int pmem_do_reset_prepare(struct pmem *pmem);
int pmem_do_reset_done(struct pmem *pmem);
int pmem_do_shutdown(struct pmem *pmem);

/* Waits until the device has been reset this many times. */
void pmem_was_reset(struct pmem *pmem, unsigned int times);

/*
 * Checks that each caller has ended once, and succeeded only after a flush; frees the callers. Also
 * done at the end of each test.
 */
void pmem_check(struct pmem *pmem);

/* Checks that a new caller of each kind succeeds. */
void pmem_works(struct pmem *pmem);

#endif
