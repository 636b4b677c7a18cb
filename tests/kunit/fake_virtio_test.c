// SPDX-License-Identifier: GPL-2.0
/* The fake virtio device itself, with a driver that does nothing but show what it gets. */

#include "fake_virtio.h"

#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ring.h>

/* Far from all that is assigned. */
#define ECHO_ID		0xfa4e
#define ECHO_FEATURE	3
#define ECHO_QUEUES	2

struct echo {
	struct virtqueue *vqs[ECHO_QUEUES];
	u32 config;
	unsigned int callbacks[ECHO_QUEUES], changes;
	char out[8], more[8], in[8], rest[8];	/* what is sent and received */
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

/* Sends 8 + 8 bytes, for 8 + 8 bytes. */
static void echo_send(struct kunit *test, struct fake_virtio *fake, unsigned int queue)
{
	struct echo *echo = fake->vdev.priv;
	struct scatterlist out[2], in[2], *sgs[] = { out, in };

	memcpy(echo->out, "request ", 8);
	memcpy(echo->more, "for echo", 8);
	sg_init_table(out, 2);
	sg_set_buf(&out[0], echo->out, 8);
	sg_set_buf(&out[1], echo->more, 8);
	sg_init_table(in, 2);
	sg_set_buf(&in[0], echo->in, 8);
	sg_set_buf(&in[1], echo->rest, 8);
	KUNIT_ASSERT_EQ(test, 0, virtqueue_add_sgs(echo->vqs[queue], sgs, 1, 1, echo, GFP_KERNEL));
	KUNIT_EXPECT_TRUE(test, virtqueue_kick(echo->vqs[queue]));
}

/* One request goes there and back. */
static void echo_works(struct kunit *test, struct fake_virtio *fake, unsigned int queue)
{
	struct echo *echo = fake->vdev.priv;
	unsigned int callbacks = echo->callbacks[queue];
	struct fake_request *request;
	char text[32] = "";
	u32 len;

	echo_send(test, fake, queue);
	request = fake_virtio_take(fake, queue);
	KUNIT_ASSERT_NOT_NULL(test, request);
	KUNIT_EXPECT_FALSE(test, fake_virtio_has_request(fake, queue));
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

static const u64 feature_sets[] = {
	0,
	BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC),
	BIT_ULL(VIRTIO_RING_F_EVENT_IDX),
	BIT_ULL(VIRTIO_F_ACCESS_PLATFORM),
};

static void features_to_desc(const u64 *features, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "features %#llx", *features);
}

KUNIT_ARRAY_PARAM(features, feature_sets, features_to_desc);

static void there_and_back(struct kunit *test)
{
	const u64 *features = test->param_value;
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID);

	fake->features |= *features;
	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
	/* More often than the ring is long. */
	for (unsigned int i = 0; i < 40; i++)
		echo_works(test, fake, i % ECHO_QUEUES);
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

static void nobody_for_it(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID + 1);

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_is_bound(fake));
	fake_virtio_unplug(fake);
}

static void queues_begin_anew(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID);
	struct fake_request *lost;
	struct echo *echo;

	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
	echo = fake->vdev.priv;
	echo_send(test, fake, 0);
	lost = fake_virtio_take(fake, 0);
	KUNIT_ASSERT_NOT_NULL(test, lost);
	echo_send(test, fake, 0);

	KUNIT_EXPECT_EQ(test, 0, fake_virtio_freeze(fake));
	KUNIT_EXPECT_FALSE(test, fake_virtio_has_request(fake, 0));
	/* There is no ring to say it, but the memory is the driver's still. */
	fake_virtio_answer(lost, "late", 4);
	KUNIT_EXPECT_EQ(test, 0, memcmp(echo->in, "late", 4));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_restore(fake));
	echo_works(test, fake, 0);

	KUNIT_EXPECT_EQ(test, 0, fake_virtio_reset_prepare(fake));
	KUNIT_EXPECT_EQ(test, 0, fake_virtio_reset_done(fake));
	echo_works(test, fake, 1);
	fake_virtio_unplug(fake);
}

static void what_goes_wrong(struct kunit *test)
{
	struct fake_virtio *fake = fake_virtio_create(test, ECHO_ID);
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

	echo_send(test, fake, 1);
	fake->fail[FAKE_NOTIFY] = -EIO;
	KUNIT_EXPECT_FALSE(test, virtqueue_notify(echo->vqs[1]));
	KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(echo->vqs[1]));
	fake_virtio_unplug(fake);
}

static struct kunit_case fake_virtio_cases[] = {
	KUNIT_CASE_PARAM(there_and_back, features_gen_params),
	KUNIT_CASE(features_and_config),
	KUNIT_CASE(nobody_for_it),
	KUNIT_CASE(queues_begin_anew),
	KUNIT_CASE(what_goes_wrong),
	{}
};

static struct kunit_suite fake_virtio_suite = {
	.name = "fake_virtio",
	.suite_init = echo_init,
	.suite_exit = echo_exit,
	.test_cases = fake_virtio_cases,
};

kunit_test_suite(fake_virtio_suite);
