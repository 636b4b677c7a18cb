// SPDX-License-Identifier: GPL-2.0
/* Tests of the fake virtio device itself, with a minimal driver that records what it gets. */

#include "fake_virtio.h"

#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ring.h>

/* Far from all assigned ids. */
#define ECHO_ID		0xfa4e
#define ECHO_FEATURE	3
#define ECHO_QUEUES	2

struct echo {
	struct virtqueue *vqs[ECHO_QUEUES];
	u32 config;
	unsigned int callbacks[ECHO_QUEUES], changes;
	char out[16], in[8], rest[8];	/* sent; received, in two parts */
};

static void echo_callback(struct virtqueue *vq)
{
	struct echo *echo = vq->vdev->priv;

	echo->callbacks[vq->index]++;
}

static int echo_find_vqs(struct virtio_device *vdev)
{
	struct echo *echo = vdev->priv;
	struct virtqueue_info info[ECHO_QUEUES] = {
		{ "first", echo_callback },
		{ "second", echo_callback },
	};

	return virtio_find_vqs(vdev, ECHO_QUEUES, echo->vqs, info, NULL);
}

static int echo_probe(struct virtio_device *vdev)
{
	struct echo *echo = kzalloc(sizeof(*echo), GFP_KERNEL);
	int error;

	if (!echo)
		return -ENOMEM;
	vdev->priv = echo;
	echo->config = virtio_cread32(vdev, 4);
	virtio_cwrite32(vdev, 8, echo->config + 1);
	error = echo_find_vqs(vdev);
	if (error)
		kfree(echo);
	return error;
}

static void echo_stop(struct virtio_device *vdev)
{
	struct echo *echo = vdev->priv;

	virtio_reset_device(vdev);
	for (unsigned int i = 0; i < ECHO_QUEUES; i++)
		while (virtqueue_detach_unused_buf(echo->vqs[i]))
			;
	vdev->config->del_vqs(vdev);
}

static void echo_remove(struct virtio_device *vdev)
{
	echo_stop(vdev);
	kfree(vdev->priv);
}

static int echo_freeze(struct virtio_device *vdev)
{
	echo_stop(vdev);
	return 0;
}

static void echo_config_changed(struct virtio_device *vdev)
{
	struct echo *echo = vdev->priv;

	echo->changes++;
}

static const struct virtio_device_id echo_ids[] = {
	{ ECHO_ID, VIRTIO_DEV_ANY_ID },
	{}
};

static unsigned int echo_features[] = { ECHO_FEATURE };

static struct virtio_driver echo_driver = {
	.driver.name = "fake_virtio_echo",
	.id_table = echo_ids,
	.feature_table = echo_features,
	.feature_table_size = ARRAY_SIZE(echo_features),
	.probe = echo_probe,
	.remove = echo_remove,
	.config_changed = echo_config_changed,
	.freeze = echo_freeze,
	.restore = echo_find_vqs,
	.reset_prepare = echo_freeze,
	.reset_done = echo_find_vqs,
};

static int echo_init(struct kunit_suite *suite)
{
	return register_virtio_driver(&echo_driver);
}

static void echo_exit(struct kunit_suite *suite)
{
	unregister_virtio_driver(&echo_driver);
}

/* Adds a request of 16 bytes in @parts segments, with a response of 8 + 8 bytes. */
static int echo_add(struct fake_virtio *fake, unsigned int queue, unsigned int parts, void *token)
{
	struct echo *echo = fake->vdev.priv;
	struct scatterlist out[2], in[2], *sgs[] = { out, in };

	memcpy(echo->out, "request for echo", 16);
	sg_init_table(out, parts);
	for (unsigned int i = 0; i < parts; i++)
		sg_set_buf(&out[i], echo->out + i * 16 / parts, 16 / parts);
	sg_init_table(in, 2);
	sg_set_buf(&in[0], echo->in, 8);
	sg_set_buf(&in[1], echo->rest, 8);
	return virtqueue_add_sgs(echo->vqs[queue], sgs, 1, 1, token, GFP_KERNEL);
}

/* Adds a request and notifies the host, which requests one notification for each. */
static void echo_send(struct kunit *test, struct fake_virtio *fake, unsigned int queue,
		      unsigned int parts, void *token)
{
	struct echo *echo = fake->vdev.priv;
	unsigned int notified = fake->count[FAKE_NOTIFY];

	KUNIT_ASSERT_EQ(test, 0, echo_add(fake, queue, parts, token));
	KUNIT_EXPECT_TRUE(test, virtqueue_kick(echo->vqs[queue]));
	KUNIT_EXPECT_EQ(test, notified + 1, fake->count[FAKE_NOTIFY]);
}

/* Checks one request and its answer. */
static void echo_works(struct kunit *test, struct fake_virtio *fake, unsigned int queue,
		       unsigned int parts)
{
	struct echo *echo = fake->vdev.priv;
	unsigned int callbacks = echo->callbacks[queue];
	struct fake_request *request;
	char text[32] = "";
	u64 before, after;
	u32 len;

	before = fake_virtio_now(fake);
	echo_send(test, fake, queue, parts, echo);
	after = fake_virtio_now(fake);
	KUNIT_EXPECT_TRUE(test, fake_virtio_has_request(fake, queue));
	request = fake_virtio_take(fake, queue);
	KUNIT_ASSERT_NOT_NULL(test, request);
	KUNIT_EXPECT_FALSE(test, fake_virtio_has_request(fake, queue));
	KUNIT_EXPECT_NULL(test, fake_virtio_try_take(fake, queue));
	KUNIT_EXPECT_GT(test, request->available, before);
	KUNIT_EXPECT_LT(test, request->available, after);
	KUNIT_EXPECT_EQ(test, parts, request->readable);
	KUNIT_EXPECT_EQ(test, 2, request->writable);
	KUNIT_EXPECT_EQ(test, 16, fake_virtio_read(request, text, sizeof(text)));
	KUNIT_EXPECT_STREQ(test, "request for echo", text);
	KUNIT_EXPECT_EQ(test, request->indirect,
			!!(fake->accepted & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC)));

	fake_virtio_answer(request, "the answer!", 11);
	KUNIT_EXPECT_EQ(test, callbacks + 1, echo->callbacks[queue]);
	KUNIT_EXPECT_PTR_EQ(test, (void *)echo, virtqueue_get_buf(echo->vqs[queue], &len));
	KUNIT_EXPECT_EQ(test, 11, len);
	KUNIT_EXPECT_EQ(test, 0, memcmp(echo->in, "the answ", 8));
	KUNIT_EXPECT_EQ(test, 0, memcmp(echo->rest, "er!", 3));
}

/* Features that change how a ring works. */
static const u64 ring_features[] = {
	BIT_ULL(VIRTIO_F_RING_PACKED),
	BIT_ULL(VIRTIO_RING_F_EVENT_IDX),
	BIT_ULL(VIRTIO_F_ACCESS_PLATFORM),
	BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC),
};

static const char *const ring_feature_names[] = { "packed", "event-idx", "platform", "indirect" };

/* All sets of these features. The parameter points to a bit mask of ring_features. */
static const void *ring_gen_params(struct kunit *test, const void *prev, char *desc)
{
	static u8 sets[1 << ARRAY_SIZE(ring_features)];
	const u8 *set = prev ? prev + 1 : sets;
	int len;

	if (set == sets + ARRAY_SIZE(sets))
		return NULL;
	sets[set - sets] = set - sets;
	len = scnprintf(desc, KUNIT_PARAM_DESC_SIZE, *set & 1 ? "" : "split ");
	for (unsigned int i = 0; i < ARRAY_SIZE(ring_features); i++)
		if (*set & BIT(i))
			len += scnprintf(desc + len, KUNIT_PARAM_DESC_SIZE - len, "%s ",
					 ring_feature_names[i]);
	/* Remove the last space. */
	desc[len - 1] = '\0';
	return set;
}

/* Creates a device with these ring features, not plugged. */
static struct fake_virtio *fake_create(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID);
	const u8 *set = test->param_value;

	for (unsigned int i = 0; i < ARRAY_SIZE(ring_features); i++)
		if (*set & BIT(i))
			fake->features |= ring_features[i];
	return fake;
}

static struct fake_virtio *fake_plugged(struct kunit *test)
{
	struct fake_virtio *fake = fake_create(test);

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
	KUNIT_EXPECT_EQ(test, fake->offered, fake->accepted);
	return fake;
}

static bool fake_is_packed(struct fake_virtio *fake)
{
	return fake->accepted & BIT_ULL(VIRTIO_F_RING_PACKED);
}

static void round_trips(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);

	/*
	 * More requests than the ring has slots, and chains whose length does not divide the ring's
	 * size: they wrap around.
	 */
	for (unsigned int i = 0; i < 80; i++)
		echo_works(test, fake, i % ECHO_QUEUES, 1 + i / ECHO_QUEUES % 2);
	fake_virtio_unplug(fake);
}

/* Enough requests for 16-bit counters to overflow. */
static void counters_overflow(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);

	for (unsigned int i = 0; i < 70000; i++) {
		echo_works(test, fake, 0, 1);
		fake_virtio_forget(fake);
		if (READ_ONCE(test->status) == KUNIT_FAILURE)
			break;
	}
	fake_virtio_unplug(fake);
}

static void out_of_order(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);
	static const unsigned int order[] = { 2, 0, 3, 1 };
	struct echo *echo = fake->vdev.priv;

	for (unsigned int round = 0; round < 10; round++) {
		struct fake_request *requests[ARRAY_SIZE(order)];
		char tokens[ARRAY_SIZE(order)];
		u64 sent[ARRAY_SIZE(order)];
		u32 len;

		for (unsigned int i = 0; i < ARRAY_SIZE(order); i++) {
			echo_send(test, fake, 0, 1 + i % 2, &tokens[i]);
			sent[i] = fake_virtio_now(fake);
		}
		for (unsigned int i = 0; i < ARRAY_SIZE(order); i++) {
			requests[i] = fake_virtio_try_take(fake, 0);
			KUNIT_ASSERT_NOT_NULL(test, requests[i]);
			/* Each has its own time, although they are taken together. */
			KUNIT_EXPECT_LT(test, requests[i]->available, sent[i]);
			if (i)
				KUNIT_EXPECT_GT(test, requests[i]->available, sent[i - 1]);
		}
		for (unsigned int i = 0; i < ARRAY_SIZE(order); i++)
			fake_virtio_used(fake, 0, requests[order[i]]->id, order[i]);
		for (unsigned int i = 0; i < ARRAY_SIZE(order); i++) {
			KUNIT_EXPECT_PTR_EQ(test, (void *)&tokens[order[i]],
					    virtqueue_get_buf(echo->vqs[0], &len));
			KUNIT_EXPECT_EQ(test, order[i], len);
		}
		KUNIT_EXPECT_NULL(test, virtqueue_get_buf(echo->vqs[0], &len));
	}
	fake_virtio_unplug(fake);
}

static void features_and_config(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID);
	struct echo *echo;

	fake->features |= BIT_ULL(ECHO_FEATURE) | BIT_ULL(ECHO_FEATURE + 1);
	fake->config[4] = 42;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
	echo = fake->vdev.priv;
	KUNIT_EXPECT_EQ(test, 42, echo->config);
	KUNIT_EXPECT_EQ(test, 43, fake->config[8]);
	KUNIT_EXPECT_EQ(test, BIT_ULL(ECHO_FEATURE) | BIT_ULL(VIRTIO_F_VERSION_1), fake->accepted);

	fake_virtio_needs_reset(fake);
	KUNIT_EXPECT_EQ(test, 1, echo->changes);
	KUNIT_EXPECT_TRUE(test, fake->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	fake_virtio_unplug(fake);
}

/* The driver reads 4 bytes at offset 4, and writes them at offset 8. */
static void short_config(struct kunit *test)
{
	static const struct {
		size_t len;
		unsigned int bad_accesses;
		u32 read;
		u8 written;
	} cases[] = {
		{ 0, 2, U32_MAX, 0 },
		{ 4, 2, U32_MAX, 0 },
		{ 5, 2, 0xffffff2a, 0 },
		{ 8, 1, 42, 0 },
		{ 11, 1, 42, 43 },
		{ 12, 0, 42, 43 },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID);
		struct echo *echo;

		fake->config[4] = 42;
		fake->config_len = cases[i].len;
		KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
		KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
		echo = fake->vdev.priv;
		KUNIT_EXPECT_EQ(test, cases[i].len, fake->vdev.config->config_len(&fake->vdev));
		KUNIT_EXPECT_EQ(test, cases[i].bad_accesses, fake->bad_accesses);
		KUNIT_EXPECT_EQ(test, cases[i].read, echo->config);
		KUNIT_EXPECT_EQ(test, cases[i].written, fake->config[8]);
		fake_virtio_unplug(fake);
	}
}

static void no_matching_driver(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID + 1);

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_is_bound(fake));
	fake_virtio_unplug(fake);
}

static void queues_are_reset(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);
	struct echo *echo = fake->vdev.priv;
	struct fake_request *lost;

	echo_works(test, fake, 0, 1);
	echo_send(test, fake, 0, 2, echo);
	lost = fake_virtio_take(fake, 0);
	KUNIT_ASSERT_NOT_NULL(test, lost);
	echo_send(test, fake, 0, 2, echo);

	KUNIT_EXPECT_EQ(test, 0, fake_virtio_freeze(fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_has_request(fake, 0));
	/* There is no ring for a used element, but the driver's memory is still written. */
	fake_virtio_answer(lost, "late", 4);
	KUNIT_EXPECT_EQ(test, 0, memcmp(echo->in, "late", 4));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_restore(fake));
	echo_works(test, fake, 0, 2);

	KUNIT_EXPECT_EQ(test, 0, fake_virtio_reset_prepare(fake));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_reset_done(fake));
	echo_works(test, fake, 1, 2);
	fake_virtio_unplug(fake);
}

/* The host takes a request, and then the device is reset. */
static struct fake_request *lose_request(struct kunit *test, struct fake_virtio *fake)
{
	struct echo *echo = fake->vdev.priv;
	struct fake_request *lost;

	echo_send(test, fake, 0, 2, echo);
	lost = fake_virtio_take(fake, 0);
	KUNIT_ASSERT_NOT_NULL(test, lost);
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_freeze(fake));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_restore(fake));
	return lost;
}

/*
 * The driver takes the answer to a request from before a reset for the answer to the new request
 * with the same id. The new request's own answer then breaks the queue.
 */
static void answer_to_the_next(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);
	struct fake_request *lost = lose_request(test, fake), *request;
	struct echo *echo = fake->vdev.priv;
	u32 len;

	echo_send(test, fake, 0, 2, echo);
	request = fake_virtio_take(fake, 0);
	KUNIT_ASSERT_NOT_NULL(test, request);
	KUNIT_EXPECT_EQ(test, lost->id, request->id);
	fake_virtio_answer(lost, "old", 3);
	KUNIT_EXPECT_PTR_EQ(test, (void *)echo, virtqueue_get_buf(echo->vqs[0], &len));
	KUNIT_EXPECT_EQ(test, 3, len);

	fake_virtio_answer(request, "real", 4);
	KUNIT_EXPECT_NULL(test, virtqueue_get_buf(echo->vqs[0], &len));
	KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(echo->vqs[0]));
	fake_virtio_unplug(fake);
}

/*
 * The driver adds a request while such an answer is in the ring: a packed ring loses that answer,
 * and the new request's answer is written to a slot that the driver does not read.
 */
static void answer_before_the_next(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);
	struct fake_request *lost = lose_request(test, fake), *request;
	struct echo *echo = fake->vdev.priv;
	u32 len;

	fake_virtio_used(fake, 0, lost->id, 3);
	echo_send(test, fake, 0, 2, echo);
	request = fake_virtio_take(fake, 0);
	KUNIT_ASSERT_NOT_NULL(test, request);
	KUNIT_EXPECT_EQ(test, lost->id, request->id);
	if (fake_is_packed(fake)) {
		KUNIT_EXPECT_NULL(test, virtqueue_get_buf(echo->vqs[0], &len));
		fake_virtio_answer(request, "real", 4);
		KUNIT_EXPECT_NULL(test, virtqueue_get_buf(echo->vqs[0], &len));
		KUNIT_EXPECT_FALSE(test, virtqueue_is_broken(echo->vqs[0]));
	} else {
		KUNIT_EXPECT_PTR_EQ(test, (void *)echo, virtqueue_get_buf(echo->vqs[0], &len));
		KUNIT_EXPECT_EQ(test, 3, len);
	}
	fake_virtio_unplug(fake);
}

/* Such an answer comes before the host takes the new request: a packed ring loses the request. */
static void answer_over_the_next(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);
	struct fake_request *lost = lose_request(test, fake);
	struct echo *echo = fake->vdev.priv;
	u32 len;

	echo_send(test, fake, 0, 2, echo);
	KUNIT_EXPECT_TRUE(test, fake_virtio_has_request(fake, 0));
	fake_virtio_used(fake, 0, lost->id, 3);
	KUNIT_EXPECT_EQ(test, !fake_is_packed(fake), fake_virtio_has_request(fake, 0));
	KUNIT_EXPECT_EQ(test, !fake_is_packed(fake), !!fake_virtio_try_take(fake, 0));
	KUNIT_EXPECT_PTR_EQ(test, (void *)echo, virtqueue_get_buf(echo->vqs[0], &len));
	KUNIT_EXPECT_EQ(test, 3, len);
	fake_virtio_unplug(fake);
}

/* The first mapping that fails; all after it fail, too. */
static unsigned int failing_map;

static void fail_map(struct fake_virtio *fake, enum fake_op op)
{
	if (op == FAKE_MAP && fake->count[FAKE_MAP] >= failing_map)
		fake->fail[FAKE_MAP] = -ENOMEM;
}

/* A request is not added if one of its segments cannot be mapped; the error depends on the ring. */
static void no_mapping(struct kunit *test)
{
	struct fake_virtio *fake = fake_plugged(test);
	bool maps = fake->accepted & BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	unsigned int mapped = atomic_read(&fake->mapped);
	struct echo *echo = fake->vdev.priv;

	for (unsigned int i = 0; i < 40; i++) {
		int error = 0;

		failing_map = fake->count[FAKE_MAP] + 1 + i % 4;
		fake->hook = fail_map;
		if (maps)
			error = fake_is_packed(fake) ? -EIO : -ENOMEM;
		else
			echo_works(test, fake, 0, 2);
		if (error) {
			KUNIT_EXPECT_EQ(test, error, echo_add(fake, 0, 2, echo));
			KUNIT_EXPECT_TRUE(test, virtqueue_notify(echo->vqs[0]));
		}
		fake->hook = NULL;
		fake->fail[FAKE_MAP] = 0;

		KUNIT_EXPECT_FALSE(test, fake_virtio_has_request(fake, 0));
		KUNIT_EXPECT_FALSE(test, virtqueue_is_broken(echo->vqs[0]));
		KUNIT_EXPECT_EQ(test, mapped, atomic_read(&fake->mapped));
		echo_works(test, fake, 0, 1);
	}
	fake_virtio_unplug(fake);
}

static void injected_failures(struct kunit *test)
{
	struct fake_virtio *fake = fake_create(test);
	struct echo *echo;
	u32 len;

	fake->fail[FAKE_FIND_VQS] = -ENOENT;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_is_bound(fake));
	fake_virtio_unplug(fake);
	fake->fail[FAKE_FIND_VQS] = 0;

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	echo = fake->vdev.priv;
	fake_virtio_used(fake, 0, 1000, 4);
	fake_virtio_interrupt(fake, 0);
	KUNIT_EXPECT_NULL(test, virtqueue_get_buf(echo->vqs[0], &len));
	KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(echo->vqs[0]));
	KUNIT_EXPECT_FALSE(test, virtqueue_is_broken(echo->vqs[1]));

	echo_send(test, fake, 1, 2, echo);
	fake->fail[FAKE_NOTIFY] = -EIO;
	KUNIT_EXPECT_FALSE(test, virtqueue_notify(echo->vqs[1]));
	KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(echo->vqs[1]));
	fake_virtio_unplug(fake);
}

static struct kunit_case fake_virtio_cases[] = {
	KUNIT_CASE_PARAM(round_trips, ring_gen_params),
	KUNIT_CASE_PARAM(counters_overflow, ring_gen_params),
	KUNIT_CASE_PARAM(out_of_order, ring_gen_params),
	KUNIT_CASE(features_and_config),
	KUNIT_CASE(short_config),
	KUNIT_CASE(no_matching_driver),
	KUNIT_CASE_PARAM(queues_are_reset, ring_gen_params),
	KUNIT_CASE_PARAM(answer_to_the_next, ring_gen_params),
	KUNIT_CASE_PARAM(answer_before_the_next, ring_gen_params),
	KUNIT_CASE_PARAM(answer_over_the_next, ring_gen_params),
	KUNIT_CASE_PARAM(no_mapping, ring_gen_params),
	KUNIT_CASE_PARAM(injected_failures, ring_gen_params),
	{}
};

static struct kunit_suite fake_virtio_suite = {
	.name = "fake_virtio",
	.suite_init = echo_init,
	.suite_exit = echo_exit,
	.test_cases = fake_virtio_cases,
};

kunit_test_suite(fake_virtio_suite);
