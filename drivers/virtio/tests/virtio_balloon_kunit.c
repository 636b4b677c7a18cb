// SPDX-License-Identifier: GPL-2.0
/* The sample of a balloon driver in Rust, on hosts that QEMU cannot be. */

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>

#include "fake_virtio.h"

enum { INFLATE, DEFLATE, STATS };

/* More than one buffer describes. */
#define MANY_PAGES	600

static void want(struct fake_virtio *fake, u32 pages)
{
	struct virtio_balloon_config *config = (void *)fake->config;

	WRITE_ONCE(config->num_pages, cpu_to_le32(pages));
}

/* Plugs a device whose host wants pages. */
static struct fake_virtio *plugged(struct kunit *test, u32 pages)
{
	struct fake_virtio *fake = fake_virtio_create(test, VIRTIO_ID_BALLOON);

	fake->features |= BIT_ULL(VIRTIO_BALLOON_F_STATS_VQ);
	want(fake, pages);
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
	return fake;
}

/* Takes a request; returns of how many pages it has the numbers. */
static u32 take(struct fake_virtio *fake, unsigned int queue, struct fake_request **request)
{
	__le32 numbers[256];

	*request = fake_virtio_take(fake, queue);
	KUNIT_ASSERT_NOT_NULL(fake->test, *request);
	return fake_virtio_read(*request, numbers, sizeof(numbers)) / sizeof(*numbers);
}

/* Takes and answers requests for so many pages. */
static void serve(struct fake_virtio *fake, unsigned int queue, u32 pages)
{
	while (pages) {
		struct fake_request *request;
		u32 count = take(fake, queue, &request);

		KUNIT_ASSERT_GT(fake->test, count, 0);
		KUNIT_ASSERT_LE(fake->test, count, pages);
		pages -= count;
		fake_virtio_answer(request, NULL, 0);
	}
}

/* The host takes a request and does not answer it. The driver can be unbound and suspended. */
static void silent_host(struct kunit *test)
{
	struct fake_virtio *fake = plugged(test, MANY_PAGES);
	struct fake_request *request;

	take(fake, INFLATE, &request);
	fake_virtio_unplug(fake);

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	take(fake, INFLATE, &request);
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_freeze(fake));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_restore(fake));
	/* It begins again. */
	serve(fake, INFLATE, MANY_PAGES);

	want(fake, 0);
	virtio_config_changed(&fake->vdev);
	take(fake, DEFLATE, &request);
	fake_virtio_unplug(fake);
}

/* The host breaks the queues, or answers what was not asked. */
static void bad_host(struct kunit *test)
{
	struct fake_virtio *fake = plugged(test, MANY_PAGES);
	struct fake_request *request;

	take(fake, INFLATE, &request);
	fake_virtio_used(fake, INFLATE, request->id + 1, 0);
	fake_virtio_used(fake, STATS, FAKE_QUEUE_SIZE, 0);
	fake_virtio_unplug(fake);

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	take(fake, INFLATE, &request);
	fake_virtio_break(fake);
	fake_virtio_unplug(fake);
}

/* The driver does not read what the transport does not have. */
static void no_config(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, VIRTIO_ID_BALLOON);

	fake->config_len = 0;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	fake_virtio_unplug(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->bad_accesses);
}

static struct kunit_case virtio_balloon_cases[] = {
	KUNIT_CASE(silent_host),
	KUNIT_CASE(bad_host),
	KUNIT_CASE(no_config),
	{}
};

static struct kunit_suite virtio_balloon_suite = {
	.name = "virtio_balloon_rust",
	.test_cases = virtio_balloon_cases,
};

kunit_test_suite(virtio_balloon_suite);
