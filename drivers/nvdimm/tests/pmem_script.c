// SPDX-License-Identifier: GPL-2.0
/* Helpers for tests of a virtio-pmem driver; see pmem_script.h. */

#include "pmem_script.h"

#include <kunit/resource.h>
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/libnvdimm.h>
#include <linux/sched/task.h>
#include <linux/virtio_ring.h>
#include <uapi/linux/virtio_ids.h>
#include <uapi/linux/virtio_pmem.h>

/* Waits until a thread is done or sleeps. */
static void pmem_settle(struct task_struct *task, bool *called, bool *done)
{
	while (!READ_ONCE(*done)) {
		schedule_timeout_uninterruptible(1);
		if (READ_ONCE(*called) && READ_ONCE(task->__state) & TASK_UNINTERRUPTIBLE)
			break;
	}
}

static struct task_struct *pmem_thread(struct kunit *test, int (*run)(void *data), void *data)
{
	struct task_struct *task = kthread_create(run, data, "fake-pmem");

	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	wake_up_process(task);
	return task;
}

/* Callers. */

static void pmem_ended(struct pmem_caller *caller, int result)
{
	struct pmem *pmem = caller->pmem;

	caller->result = result;
	caller->was_durable = READ_ONCE(pmem->durable) > caller->arrived;
	caller->by_worker = current->flags & PF_WQ_WORKER;
	caller->place = ++pmem->ended;
	atomic_inc(&caller->ended);
	/* Publishes the result. */
	smp_store_release(&caller->done, true);
	wake_up(&pmem->fake->wait);
}

bool pmem_has_ended(struct pmem_caller *caller)
{
	/* Pairs with pmem_ended(). */
	return smp_load_acquire(&caller->done);
}

static struct pmem_caller *pmem_caller(struct pmem *pmem)
{
	struct pmem_caller *caller = kzalloc(sizeof(*caller), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(pmem->test, caller);
	KUNIT_ASSERT_NOT_NULL(pmem->test, pmem->region);
	caller->pmem = pmem;
	caller->arrived = fake_virtio_now(pmem->fake);
	list_add_tail(&caller->list, &pmem->callers);
	return caller;
}

static int pmem_sleep(void *data)
{
	struct pmem_caller *caller = data;

	WRITE_ONCE(caller->called, true);
	pmem_ended(caller, nvdimm_flush(caller->pmem->region, NULL));
	return 0;
}

struct pmem_caller *pmem_sleeper(struct pmem *pmem)
{
	struct pmem_caller *caller = pmem_caller(pmem);

	caller->task = pmem_thread(pmem->test, pmem_sleep, caller);
	pmem_settle(caller->task, &caller->called, &caller->done);
	return caller;
}

static void pmem_end_io(struct bio *bio)
{
	pmem_ended(container_of(bio, struct pmem_caller, bio), blk_status_to_errno(bio->bi_status));
}

static struct pmem_caller *pmem_bio(struct pmem *pmem, blk_opf_t opf)
{
	struct pmem_caller *caller = pmem_caller(pmem);
	int result;

	bio_init(&caller->bio, NULL, NULL, 0, opf);
	caller->bio.bi_end_io = pmem_end_io;

	/* Like the end of pmem_submit_bio(). */
	result = nvdimm_flush(pmem->region, &caller->bio);
	if (result != NVDIMM_FLUSH_ASYNC) {
		if (result)
			caller->bio.bi_status = errno_to_blk_status(result);
		bio_endio(&caller->bio);
	}
	return caller;
}

struct pmem_caller *pmem_writer(struct pmem *pmem)
{
	return pmem_bio(pmem, REQ_OP_WRITE | REQ_FUA);
}

struct pmem_caller *pmem_flusher(struct pmem *pmem)
{
	return pmem_bio(pmem, REQ_OP_WRITE | REQ_PREFLUSH);
}

void pmem_ends(struct pmem_caller *caller, int result)
{
	struct pmem *pmem = caller->pmem;

	if (!wait_event_timeout(pmem->fake->wait, pmem_has_ended(caller),
				msecs_to_jiffies(FAKE_LIMIT)))
		KUNIT_FAIL_AND_ABORT(pmem->test, "a caller does not end");
	KUNIT_EXPECT_EQ(pmem->test, result, caller->result);
}

void pmem_waits(struct pmem_caller *caller)
{
	/* Enough for any caller that was woken. */
	msleep(50);
	KUNIT_EXPECT_FALSE(caller->pmem->test, pmem_has_ended(caller));
}

void pmem_check(struct pmem *pmem)
{
	struct pmem_caller *caller, *next;

	list_for_each_entry_safe(caller, next, &pmem->callers, list) {
		KUNIT_EXPECT_EQ_MSG(pmem->test, 1, atomic_read(&caller->ended), "times ended");
		/* The driver may still use it: leak it. */
		if (!pmem_has_ended(caller))
			continue;
		if (!caller->result)
			KUNIT_EXPECT_TRUE_MSG(pmem->test, caller->was_durable,
					      "success without a flush");
		if (caller->task)
			put_task_struct(caller->task);
		list_del(&caller->list);
		kfree(caller);
	}
}

/* The host. */

/* Checks that a request is a well-formed flush. */
static struct fake_request *pmem_flush(struct pmem *pmem, struct fake_request *request)
{
	struct virtio_pmem_req content = { .type = cpu_to_le32(~0U) };

	KUNIT_EXPECT_FALSE(pmem->test, request->indirect);
	KUNIT_EXPECT_EQ(pmem->test, sizeof(content),
			fake_virtio_read(request, &content, sizeof(content)));
	KUNIT_EXPECT_EQ(pmem->test, VIRTIO_PMEM_REQ_TYPE_FLUSH, le32_to_cpu(content.type));
	KUNIT_EXPECT_EQ(pmem->test, 1, request->writable);
	KUNIT_EXPECT_EQ(pmem->test, sizeof(struct virtio_pmem_resp), request->in[0].iov_len);
	return request;
}

struct fake_request *pmem_take(struct pmem *pmem)
{
	struct fake_request *request = fake_virtio_take(pmem->fake, 0);

	if (!request)
		KUNIT_FAIL_AND_ABORT(pmem->test, "the driver sends no flush");
	return pmem_flush(pmem, request);
}

struct fake_request *pmem_try_take(struct pmem *pmem)
{
	struct fake_request *request = fake_virtio_try_take(pmem->fake, 0);

	return request ? pmem_flush(pmem, request) : NULL;
}

void pmem_answer_silently(struct pmem *pmem, struct fake_request *request, u32 status)
{
	struct virtio_pmem_resp response = { .ret = cpu_to_le32(status) };

	if (!status)
		pmem->durable = max(pmem->durable, request->available);
	fake_virtio_write(request, &response, sizeof(response));
	fake_virtio_used(pmem->fake, 0, request->id, sizeof(response));
}

/* Returns whether EVENT_IDX demands an interrupt for the last used element. */
static bool pmem_event_is_wanted(struct pmem *pmem)
{
	struct fake_queue *queue = &pmem->fake->queues[0];
	const struct vring *ring;

	if (!queue->vq)
		return false;
	ring = virtqueue_get_vring(queue->vq);
	return vring_need_event(virtio16_to_cpu(&pmem->fake->vdev, vring_used_event(ring)),
				queue->used, queue->used - 1);
}

void pmem_answer(struct pmem *pmem, struct fake_request *request, u32 status)
{
	pmem_answer_silently(pmem, request, status);
	if (!pmem->by_event || pmem_event_is_wanted(pmem))
		fake_virtio_interrupt(pmem->fake, 0);
}

struct fake_request *pmem_lose(struct pmem *pmem)
{
	struct fake_request *request = pmem_take(pmem);

	KUNIT_EXPECT_EQ(pmem->test, 0,
			pmem_end_alone(pmem_begin(pmem, pmem_do_reset_prepare)));
	KUNIT_EXPECT_EQ(pmem->test, 0, pmem_do_reset_done(pmem));
	return request;
}

/* The host reports success for all flushes until a condition is true. */
static void pmem_serve_until(struct pmem *pmem, bool (*condition)(void *data), void *data)
{
	struct fake_virtio *fake = pmem->fake;

	while (!condition(data)) {
		struct fake_request *request;

		if (!wait_event_timeout(fake->wait,
					condition(data) || fake_virtio_has_request(fake, 0),
					msecs_to_jiffies(FAKE_LIMIT)))
			KUNIT_FAIL_AND_ABORT(pmem->test, "no further flush");
		request = pmem_try_take(pmem);
		if (request)
			pmem_answer(pmem, request, 0);
	}
}

static bool pmem_caller_ended(void *data)
{
	return pmem_has_ended(data);
}

void pmem_serve(struct pmem *pmem, struct pmem_caller *caller)
{
	pmem_serve_until(pmem, pmem_caller_ended, caller);
}

void pmem_works(struct pmem *pmem)
{
	struct pmem_caller *sleeper = pmem_sleeper(pmem);
	struct pmem_caller *writer = pmem_writer(pmem);
	struct pmem_caller *flusher = pmem_flusher(pmem);

	pmem_serve(pmem, sleeper);
	pmem_serve(pmem, writer);
	pmem_serve(pmem, flusher);
	pmem_ends(sleeper, 0);
	pmem_ends(writer, 0);
	pmem_ends(flusher, 0);
}

/* Operations in threads of their own. */

static int pmem_act(void *data)
{
	struct pmem_action *action = data;

	WRITE_ONCE(action->called, true);
	action->result = action->run(action->pmem);
	/* Publishes the result. */
	smp_store_release(&action->done, true);
	wake_up(&action->pmem->fake->wait);
	return 0;
}

static bool pmem_action_done(void *data)
{
	struct pmem_action *action = data;

	/* Pairs with pmem_act(). */
	return smp_load_acquire(&action->done);
}

static void pmem_forget_action(void *data)
{
	struct pmem_action *action = data;

	/* An action that has not ended: the test has failed. */
	while (!pmem_action_done(action)) {
		fake_virtio_break(action->pmem->fake);
		msleep(100);
	}
	put_task_struct(action->task);
	kfree(action);
}

struct pmem_action *pmem_begin(struct pmem *pmem, int (*run)(struct pmem *pmem))
{
	struct pmem_action *action = kzalloc(sizeof(*action), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(pmem->test, action);
	action->run = run;
	action->pmem = pmem;
	action->task = pmem_thread(pmem->test, pmem_act, action);
	KUNIT_ASSERT_EQ(pmem->test, 0,
			kunit_add_action_or_reset(pmem->test, pmem_forget_action, action));
	pmem_settle(action->task, &action->called, &action->done);
	return action;
}

static int pmem_forget(struct pmem_action *action)
{
	int result = action->result;

	kunit_release_action(action->pmem->test, pmem_forget_action, action);
	return result;
}

int pmem_end(struct pmem_action *action)
{
	pmem_serve_until(action->pmem, pmem_action_done, action);
	return pmem_forget(action);
}

int pmem_end_alone(struct pmem_action *action)
{
	struct pmem *pmem = action->pmem;

	if (!wait_event_timeout(pmem->fake->wait, pmem_action_done(action),
				msecs_to_jiffies(FAKE_LIMIT)))
		KUNIT_FAIL_AND_ABORT(pmem->test, "the operation does not end");
	return pmem_forget(action);
}

int pmem_do_unplug(struct pmem *pmem)
{
	fake_virtio_unplug(pmem->fake);
	return 0;
}

int pmem_do_freeze(struct pmem *pmem)
{
	return fake_virtio_freeze(pmem->fake);
}

int pmem_do_restore(struct pmem *pmem)
{
	return fake_virtio_restore(pmem->fake);
}

int pmem_do_reset_prepare(struct pmem *pmem)
{
	return fake_virtio_reset_prepare(pmem->fake);
}

int pmem_do_reset_done(struct pmem *pmem)
{
	return fake_virtio_reset_done(pmem->fake);
}

int pmem_do_shutdown(struct pmem *pmem)
{
	fake_virtio_shutdown(pmem->fake);
	return 0;
}

void pmem_unplug(struct pmem *pmem)
{
	pmem_end(pmem_begin(pmem, pmem_do_unplug));
	KUNIT_EXPECT_NULL(pmem->test, pmem->region);
}

int pmem_freeze(struct pmem *pmem)
{
	return pmem_end(pmem_begin(pmem, pmem_do_freeze));
}

int pmem_restore(struct pmem *pmem)
{
	return pmem_end(pmem_begin(pmem, pmem_do_restore));
}

int pmem_reset_prepare(struct pmem *pmem)
{
	return pmem_end(pmem_begin(pmem, pmem_do_reset_prepare));
}

int pmem_reset_done(struct pmem *pmem)
{
	return pmem_end(pmem_begin(pmem, pmem_do_reset_done));
}

void pmem_was_reset(struct pmem *pmem, unsigned int times)
{
	unsigned int left = FAKE_LIMIT / 20;

	while (READ_ONCE(pmem->fake->count[FAKE_RESET]) < times && left--)
		msleep(20);
	KUNIT_ASSERT_EQ(pmem->test, times, pmem->fake->count[FAKE_RESET]);
}

/* The device. */

static int pmem_is_region(struct device *dev, const void *data)
{
	return str_has_prefix(dev_name(dev), "region") != 0;
}

static int pmem_look_for_region(struct device *dev, void *data)
{
	struct device **found = data;

	*found = device_find_child(dev, NULL, pmem_is_region);
	return !!*found;
}

/*
 * The region is being removed. A namespace's block device would now refuse new submissions and wait
 * for those inside the driver, which hold its queue. Bios that the driver has taken do not hold it.
 */
static void pmem_region_removed(void *data)
{
	struct pmem *pmem = data;
	struct pmem_caller *caller;

	pmem->region = NULL;
	list_for_each_entry(caller, &pmem->callers, list) {
		if (caller->task)
			wait_event(pmem->fake->wait, pmem_has_ended(caller));
	}
}

struct nd_region *pmem_find_region(struct pmem *pmem)
{
	struct device *dev = NULL;

	/* The region is registered asynchronously. */
	for (unsigned int i = 0; i < 100; i++) {
		device_for_each_child(&pmem->fake->vdev.dev, &dev, pmem_look_for_region);
		if (dev && device_is_bound(dev))
			break;
		put_device(dev);
		dev = NULL;
		msleep(20);
	}
	if (!dev)
		return NULL;

	pmem->region = to_nd_region(dev);
	KUNIT_EXPECT_EQ(pmem->test, 0, devm_add_action(dev, pmem_region_removed, pmem));
	put_device(dev);
	return pmem->region;
}

static void pmem_destroy(void *data)
{
	pmem_check(data);
}

struct pmem *pmem_create(struct kunit *test)
{
	struct pmem *pmem = kunit_kzalloc(test, sizeof(*pmem), GFP_KERNEL);
	struct virtio_pmem_config config = {
		.start = cpu_to_le64(PMEM_START),
		.size = cpu_to_le64(PMEM_SIZE),
	};

	KUNIT_ASSERT_NOT_NULL(test, pmem);
	pmem->test = test;
	INIT_LIST_HEAD(&pmem->callers);
	/* Runs last; before it, fake_virtio_create()'s action unplugs the device. */
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, pmem_destroy, pmem));
	pmem->fake = fake_virtio_create(test, VIRTIO_ID_PMEM);
	pmem->fake->checks_mappings = true;
	memcpy(pmem->fake->config, &config, sizeof(config));
	return pmem;
}

void pmem_plug(struct pmem *pmem)
{
	KUNIT_ASSERT_EQ(pmem->test, 0, fake_virtio_plug(pmem->fake));
	KUNIT_ASSERT_TRUE(pmem->test, fake_virtio_is_bound(pmem->fake));
	KUNIT_ASSERT_NOT_NULL(pmem->test, pmem_find_region(pmem));
}

struct pmem *pmem_plugged(struct kunit *test)
{
	struct pmem *pmem = pmem_create(test);

	pmem_plug(pmem);
	return pmem;
}
