// SPDX-License-Identifier: GPL-2.0
/* The abstraction for virtio drivers in Rust, where virtio_pmem_rust does not reach it. */

#include "fake_virtio.h"

#include <linux/delay.h>

/* See virtio_stale_queue.rs. */
#define STALE_QUEUE_ID	0xfa60
/* See virtio_rust_queues.rs. */
#define QUEUES_ID	0xfa61
#define QUEUES_RESET	99
#define QUEUES_PAGES	18

/*
 * A driver keeps its queue after it is unbound. The queue is deleted, the driver's uses of it have
 * no effect, and so has dropping it. Its request is leaked.
 */
static void queue_outlives_its_binding(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, STALE_QUEUE_ID);
	struct device *dev = &fake->vdev.dev;

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
	KUNIT_EXPECT_NOT_NULL(test, fake->queues[0].vq);

	device_release_driver(dev);
	KUNIT_EXPECT_FALSE(test, fake_virtio_is_bound(fake));
	KUNIT_EXPECT_EQ(test, 0, fake->status & VIRTIO_CONFIG_S_DRIVER);
	KUNIT_EXPECT_TRUE(test, list_empty(&fake->vdev.vqs));
	KUNIT_EXPECT_NULL(test, fake->queues[0].vq);

	/* Probe fails if anything is wrong. */
	KUNIT_EXPECT_EQ(test, 1, device_attach(dev));
	KUNIT_EXPECT_TRUE(test, fake_virtio_is_bound(fake));
	fake_virtio_unplug(fake);
}

static const struct ring {
	const char *name;
	u64 features;
} rings[] = {
	{ "split ring", 0 },
	{ "packed ring", BIT_ULL(VIRTIO_F_RING_PACKED) },
};

KUNIT_ARRAY_PARAM_DESC(ring, rings, name);

/* The error of a failed mapping depends on the ring's format; the abstraction's does not. */
static void mapping_fails(struct kunit *test)
{
	const struct ring *ring = test->param_value;
	struct fake_virtio *fake = fake_virtio_create(test, STALE_QUEUE_ID);
	struct device *dev = &fake->vdev.dev;
	struct device_driver *driver;

	fake->features |= BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | ring->features;
	fake->fail[FAKE_MAP] = -ENOMEM;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_is_bound(fake));
	driver = driver_find("virtio_stale_queue", dev->bus);
	KUNIT_ASSERT_NOT_NULL(test, driver);
	KUNIT_EXPECT_EQ(test, -ENOMEM, device_driver_attach(driver, dev));
	KUNIT_EXPECT_EQ(test, ring->features, fake->accepted & BIT_ULL(VIRTIO_F_RING_PACKED));
	fake_virtio_unplug(fake);
}

/* Plugs the device of virtio_rust_queues.rs. */
static struct fake_virtio *queues_plugged(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, QUEUES_ID);

	fake->queue_size = 32;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
	return fake;
}

/* Buffers of several segments, a queue with a callback and one without. */
static void several_queues(struct kunit *test)
{
	static const u8 sent[] = { 'a', 'b', 'c', 0x34, 0x12 };
	static const u8 answer[] = { 42, 0, 0, 0, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o' };
	struct fake_virtio *fake = queues_plugged(test);
	struct fake_request *request;
	u8 data[16];

	/* The callback sends the buffer again. */
	for (unsigned int i = 0; i < 3; i++) {
		request = fake_virtio_take(fake, 0);
		KUNIT_ASSERT_NOT_NULL(test, request);
		KUNIT_EXPECT_EQ(test, 2, request->readable);
		KUNIT_EXPECT_EQ(test, 2, request->writable);
		KUNIT_ASSERT_EQ(test, sizeof(sent), fake_virtio_read(request, data, sizeof(data)));
		KUNIT_EXPECT_MEMEQ(test, data, sent, sizeof(sent));
		fake_virtio_answer(request, answer, sizeof(answer));
	}

	request = fake_virtio_take(fake, 1);
	KUNIT_ASSERT_NOT_NULL(test, request);
	fake_virtio_answer(request, answer, 2);
	fake_virtio_unplug(fake);
}

/* More segments than Segments::MAX. The callback sends them again. */
static void many_segments(struct kunit *test)
{
	struct fake_virtio *fake = queues_plugged(test);

	for (unsigned int i = 0; i < 3; i++) {
		struct fake_request *request = fake_virtio_take(fake, 2);

		KUNIT_ASSERT_NOT_NULL(test, request);
		KUNIT_EXPECT_EQ(test, 0, request->readable);
		KUNIT_ASSERT_EQ(test, QUEUES_PAGES, request->writable);
		for (unsigned int j = 0; j < QUEUES_PAGES; j++) {
			KUNIT_ASSERT_EQ(test, PAGE_SIZE, request->in[j].iov_len);
			memset(request->in[j].iov_base, j, PAGE_SIZE);
		}
		fake_virtio_answer(request, NULL, 0);
	}
	fake_virtio_unplug(fake);
}

/* Waits until the driver's work has copied the number in the configuration space. */
static void is_copied(struct kunit *test, struct fake_virtio *fake, u8 number)
{
	for (unsigned int i = 0; i < FAKE_LIMIT && READ_ONCE(fake->config[4]) != number; i += 20)
		msleep(20);
	KUNIT_EXPECT_EQ(test, number, READ_ONCE(fake->config[4]));
}

/* Has the driver's work done, and waits until it has copied the number. */
static void do_work(struct kunit *test, struct fake_virtio *fake, u8 number)
{
	fake->config[0] = number;
	virtio_config_changed(&fake->vdev);
	is_copied(test, fake, number);
}

/* The driver asks for its work in a suspend; it is done after that, and not before. */
static void work_waits_while_suspended(struct kunit *test)
{
	struct fake_virtio *fake = queues_plugged(test);

	do_work(test, fake, 1);
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_freeze(fake));
	fake->config[0] = 2;
	msleep(100);
	KUNIT_EXPECT_EQ(test, 1, READ_ONCE(fake->config[4]));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_restore(fake));
	is_copied(test, fake, 2);
	fake_virtio_unplug(fake);
}

/* The driver polls a queue without a callback, and resets it. */
static void queue_is_polled_and_reset(struct kunit *test)
{
	const struct ring *ring = test->param_value;
	struct fake_virtio *fake = fake_virtio_create(test, QUEUES_ID);
	static const u8 answer[2];
	struct fake_request *request;
	u8 *polled = &fake->config[8], *error = &fake->config[12];

	fake->features |= ring->features;
	fake->queue_size = 32;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));

	request = fake_virtio_take(fake, 1);
	KUNIT_ASSERT_NOT_NULL(test, request);
	do_work(test, fake, 1);
	KUNIT_EXPECT_EQ(test, 0, *polled);
	fake_virtio_answer(request, answer, sizeof(answer));
	do_work(test, fake, 2);
	KUNIT_EXPECT_EQ(test, 1, *polled);

	/* It is not possible: the queue stays as it is. */
	request = fake_virtio_take(fake, 1);
	KUNIT_ASSERT_NOT_NULL(test, request);
	fake->fail[FAKE_DISABLE_QUEUE] = -ENOENT;
	do_work(test, fake, QUEUES_RESET);
	KUNIT_EXPECT_EQ(test, ENOENT, *error);
	fake_virtio_answer(request, answer, sizeof(answer));
	do_work(test, fake, 3);
	KUNIT_EXPECT_EQ(test, 2, *polled);

	/* The request that the host has is freed, and another one is sent. */
	KUNIT_ASSERT_NOT_NULL(test, fake_virtio_take(fake, 1));
	fake->fail[FAKE_DISABLE_QUEUE] = 0;
	do_work(test, fake, QUEUES_RESET);
	KUNIT_EXPECT_EQ(test, 0, *error);
	request = fake_virtio_take(fake, 1);
	KUNIT_ASSERT_NOT_NULL(test, request);
	fake_virtio_answer(request, answer, sizeof(answer));
	do_work(test, fake, 4);
	KUNIT_EXPECT_EQ(test, 3, *polled);

	/* The device does not take the queue back. */
	fake->fail[FAKE_ENABLE_QUEUE] = -EBUSY;
	do_work(test, fake, QUEUES_RESET);
	KUNIT_EXPECT_EQ(test, EBUSY, *error);
	do_work(test, fake, 5);
	KUNIT_EXPECT_EQ(test, 3, *polled);
	fake_virtio_unplug(fake);
}

static struct kunit_case virtio_rust_cases[] = {
	KUNIT_CASE(several_queues),
	KUNIT_CASE(many_segments),
	KUNIT_CASE(work_waits_while_suspended),
	KUNIT_CASE_PARAM(queue_is_polled_and_reset, ring_gen_params),
	KUNIT_CASE(queue_outlives_its_binding),
	KUNIT_CASE_PARAM(mapping_fails, ring_gen_params),
	{}
};

static struct kunit_suite virtio_rust_suite = {
	.name = "virtio_rust",
	.test_cases = virtio_rust_cases,
};

kunit_test_suite(virtio_rust_suite);
