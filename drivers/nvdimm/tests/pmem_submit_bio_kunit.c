// SPDX-License-Identifier: GPL-2.0
/*
 * When pmem's disks flush, and which side completes a bio.
 *
 * The end of a bio is counted and frees it, so that KASAN reports any later access.
 */
#include <linux/blkdev.h>
#include <linux/part_stat.h>
#include "fake_region.h"

#define NEW	0x5a
#define ASYNC	NVDIMM_FLUSH_ASYNC

/* A bio that was submitted. */
struct sent {
	struct bio *bio;
	unsigned int ended;
	blk_status_t status;
};

static void sent_ended(struct bio *bio)
{
	struct sent *sent = bio->bi_private;

	sent->ended++;
	sent->status = bio->bi_status;
	bio_put(bio);
}

/* Submits a write of @pages pages to the disk's page @first. */
static struct sent *send(struct kunit *test, struct fake_region *fake, blk_opf_t flags,
			 unsigned int first, unsigned int pages)
{
	struct sent *sent = kunit_kzalloc(test, sizeof(*sent), GFP_KERNEL);
	u8 *data = kunit_kmalloc(test, (pages + 1) * PAGE_SIZE, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, sent);
	KUNIT_ASSERT_NOT_NULL(test, data);
	memset(data, NEW, (pages + 1) * PAGE_SIZE);
	data = PTR_ALIGN(data, PAGE_SIZE);

	sent->bio = bio_alloc(fake->bdev, pages, REQ_OP_WRITE | flags, GFP_KERNEL);
	sent->bio->bi_iter.bi_sector = first * PAGE_SECTORS;
	sent->bio->bi_private = sent;
	sent->bio->bi_end_io = sent_ended;
	if (pages)
		bio_add_virt_nofail(sent->bio, data, pages * PAGE_SIZE);
	submit_bio(sent->bio);
	return sent;
}

/* Creates a region and opens its disk. */
static struct fake_region *disk(struct kunit *test, bool callback)
{
	struct fake_region *fake = fake_region(test, BIT(ND_REGION_ASYNC), callback);

	fake_region_open(test, fake);
	return fake;
}

/* Checks a call of the provider's callback: its bio, and the region's first byte then. */
static void expect_call(struct kunit *test, struct fake_region *fake, unsigned int call,
			struct bio *bio, u8 first_byte)
{
	KUNIT_EXPECT_PTR_EQ(test, bio, fake->calls[call].bio);
	KUNIT_EXPECT_EQ(test, first_byte, fake->calls[call].first_byte);
}

static void expect_ended(struct kunit *test, const struct sent *sent, blk_status_t status)
{
	KUNIT_EXPECT_EQ(test, 1, sent->ended);
	KUNIT_EXPECT_EQ(test, status, sent->status);
}

struct answer {
	const char *name;
	int provider;
	blk_status_t status;
};

static const struct answer failures[] = {
	{ "I/O error", -EIO, BLK_STS_IOERR },
	{ "no memory", -ENOMEM, BLK_STS_RESOURCE },
	{ "another error", -EINVAL, BLK_STS_IOERR },
};

KUNIT_ARRAY_PARAM_DESC(failures, failures, name);

static const struct answer answers[] = {
	{ "done", 0, BLK_STS_OK },
	{ "I/O error", -EIO, BLK_STS_IOERR },
	{ "no memory", -ENOMEM, BLK_STS_RESOURCE },
	{ "another error", -EINVAL, BLK_STS_IOERR },
	{ "taken and ended at once", FAKE_TAKE_AND_END, BLK_STS_OK },
};

KUNIT_ARRAY_PARAM_DESC(answers, answers, name);

/* The disk's features: a write cache, FUA, and synchronous reads and writes. */
static void disk_has_fua(struct kunit *test)
{
	struct fake_region *fake = disk(test, true);

	KUNIT_EXPECT_TRUE(test, bdev_write_cache(fake->bdev));
	KUNIT_EXPECT_TRUE(test, bdev_fua(fake->bdev));
	KUNIT_EXPECT_TRUE(test, bdev_synchronous(fake->bdev));
}

/* A plain write is done at once, and causes no flush. */
static void plain_write_is_not_flushed(struct kunit *test)
{
	struct fake_region *fake = disk(test, true);
	struct sent *sent = send(test, fake, 0, 0, 2);

	expect_ended(test, sent, BLK_STS_OK);
	KUNIT_EXPECT_EQ(test, 0, fake->count);
	KUNIT_EXPECT_EQ(test, NEW, fake->memory[0]);
	KUNIT_EXPECT_EQ(test, NEW, fake->memory[2 * PAGE_SIZE - 1]);
	KUNIT_EXPECT_EQ(test, 0, fake->memory[2 * PAGE_SIZE]);
}

/* PREFLUSH ends before the data is written: the provider gets no bio, and waits. */
static void preflush_is_before_the_data(struct kunit *test)
{
	struct fake_region *fake = disk(test, true);
	struct sent *sent = send(test, fake, REQ_PREFLUSH, 0, 1);

	expect_ended(test, sent, BLK_STS_OK);
	KUNIT_ASSERT_EQ(test, 1, fake->count);
	expect_call(test, fake, 0, NULL, 0);
	KUNIT_EXPECT_EQ(test, NEW, fake->memory[0]);
}

/* If PREFLUSH fails, so does the bio, and none of it is written or flushed. */
static void failed_preflush_writes_nothing(struct kunit *test)
{
	const struct answer *answer = test->param_value;
	struct fake_region *fake = disk(test, true);
	struct sent *sent;

	fake->answers[0] = answer->provider;
	sent = send(test, fake, REQ_PREFLUSH | REQ_FUA, 0, 1);
	expect_ended(test, sent, answer->status);
	KUNIT_ASSERT_EQ(test, 1, fake->count);
	expect_call(test, fake, 0, NULL, 0);
	KUNIT_EXPECT_EQ(test, 0, fake->memory[0]);
}

/* FUA flushes after the data is written, and the provider gets the bio. */
static void fua_is_after_the_data(struct kunit *test)
{
	const struct answer *answer = test->param_value;
	struct fake_region *fake = disk(test, true);
	struct sent *sent;

	fake->answers[0] = answer->provider;
	sent = send(test, fake, REQ_FUA, 0, 1);
	expect_ended(test, sent, answer->status);
	KUNIT_ASSERT_EQ(test, 1, fake->count);
	expect_call(test, fake, 0, sent->bio, NEW);
}

/* Only the provider completes a bio that it has taken, and sets its status. */
static void provider_completes_taken_bio(struct kunit *test)
{
	static const blk_opf_t flags[] = { REQ_FUA, REQ_PREFLUSH, REQ_PREFLUSH | REQ_FUA };
	struct fake_region *fake = disk(test, true);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		/* With data, PREFLUSH would be synchronous. */
		unsigned int pages = flags[i] == REQ_FUA;
		blk_status_t status = i ? BLK_STS_IOERR : BLK_STS_OK;
		struct sent *sent;

		fake->count = 0;
		fake->answers[0] = ASYNC;
		sent = send(test, fake, flags[i], 0, pages);
		KUNIT_ASSERT_EQ(test, 0, sent->ended);
		KUNIT_ASSERT_EQ(test, 1, fake->count);
		KUNIT_ASSERT_PTR_EQ(test, sent->bio, fake->calls[0].bio);
		KUNIT_EXPECT_EQ(test, BLK_STS_OK, sent->bio->bi_status);

		sent->bio->bi_status = status;
		bio_endio(sent->bio);
		expect_ended(test, sent, status);
	}
}

/* PREFLUSH, data and FUA in one bio: a flush, the data, another flush. */
static void all_in_one_bio(struct kunit *test)
{
	struct fake_region *fake = disk(test, true);
	struct sent *sent;

	fake->answers[1] = ASYNC;
	sent = send(test, fake, REQ_PREFLUSH | REQ_FUA, 0, 1);
	KUNIT_ASSERT_EQ(test, 0, sent->ended);
	KUNIT_ASSERT_EQ(test, 2, fake->count);
	expect_call(test, fake, 0, NULL, 0);
	expect_call(test, fake, 1, sent->bio, NEW);

	bio_endio(sent->bio);
	expect_ended(test, sent, BLK_STS_OK);
}

/* Without data, one flush serves both flags, and the provider gets the bio. */
static void flush_without_data(struct kunit *test)
{
	static const blk_opf_t flags[] = { REQ_PREFLUSH, REQ_FUA, REQ_PREFLUSH | REQ_FUA };
	const struct answer *answer = test->param_value;
	struct fake_region *fake = disk(test, true);
	unsigned int i;

	fake->answers[0] = answer->provider;
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct sent *sent;

		fake->count = 0;
		sent = send(test, fake, flags[i], 0, 0);
		expect_ended(test, sent, answer->status);
		KUNIT_ASSERT_EQ(test, 1, fake->count);
		expect_call(test, fake, 0, sent->bio, 0);
	}
}

/* Such a bio is not accounted as a write. */
static void flush_without_data_is_no_write(struct kunit *test)
{
	struct fake_region *fake = disk(test, true);
	struct request_queue *queue = bdev_get_queue(fake->bdev);
	struct queue_limits limits = queue_limits_start_update(queue);
	unsigned long before;

	/* By default, pmem's disks keep no I/O statistics. */
	limits.features |= BLK_FEAT_IO_STAT;
	KUNIT_ASSERT_EQ(test, 0, queue_limits_commit_update_frozen(queue, &limits));

	before = part_stat_read(fake->bdev, ios[STAT_WRITE]);
	send(test, fake, REQ_PREFLUSH | REQ_FUA, 0, 0);
	KUNIT_EXPECT_EQ(test, before, part_stat_read(fake->bdev, ios[STAT_WRITE]));
	send(test, fake, REQ_PREFLUSH | REQ_FUA, 0, 1);
	KUNIT_EXPECT_EQ(test, before + 1, part_stat_read(fake->bdev, ios[STAT_WRITE]));
}

/* A write that meets bad memory is written in part, fails, and is not flushed for FUA. */
static void failed_write_is_not_flushed(struct kunit *test)
{
	struct fake_region *fake = disk(test, true);
	struct sent *sent = send(test, fake, REQ_FUA, FAKE_BAD_PAGE - 1, 2);

	expect_ended(test, sent, BLK_STS_IOERR);
	KUNIT_EXPECT_EQ(test, 0, fake->count);
	KUNIT_EXPECT_EQ(test, NEW, fake->memory[(FAKE_BAD_PAGE - 1) * PAGE_SIZE]);
	KUNIT_EXPECT_EQ(test, 0, fake->memory[FAKE_BAD_PAGE * PAGE_SIZE]);

	/* PREFLUSH is sent before the write fails. */
	sent = send(test, fake, REQ_PREFLUSH | REQ_FUA, FAKE_BAD_PAGE - 1, 2);
	expect_ended(test, sent, BLK_STS_IOERR);
	KUNIT_ASSERT_EQ(test, 1, fake->count);
	expect_call(test, fake, 0, NULL, 0);
}

/* A region without a callback is flushed by libnvdimm, at once. */
static void region_without_callback(struct kunit *test)
{
	struct fake_region *fake = disk(test, false);

	KUNIT_EXPECT_FALSE(test, bdev_fua(fake->bdev));
	expect_ended(test, send(test, fake, REQ_PREFLUSH, 0, 0), BLK_STS_OK);
	expect_ended(test, send(test, fake, REQ_PREFLUSH | REQ_FUA, 0, 0), BLK_STS_OK);
	expect_ended(test, send(test, fake, REQ_PREFLUSH | REQ_FUA, 0, 1), BLK_STS_OK);
	KUNIT_EXPECT_EQ(test, NEW, fake->memory[0]);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(disk_has_fua),
	KUNIT_CASE(plain_write_is_not_flushed),
	KUNIT_CASE(preflush_is_before_the_data),
	KUNIT_CASE_PARAM(failed_preflush_writes_nothing, failures_gen_params),
	KUNIT_CASE_PARAM(fua_is_after_the_data, answers_gen_params),
	KUNIT_CASE(provider_completes_taken_bio),
	KUNIT_CASE(all_in_one_bio),
	KUNIT_CASE_PARAM(flush_without_data, answers_gen_params),
	KUNIT_CASE(flush_without_data_is_no_write),
	KUNIT_CASE(failed_write_is_not_flushed),
	KUNIT_CASE(region_without_callback),
	{}
};

static struct kunit_suite suite = {
	.name = "pmem_submit_bio",
	.test_cases = cases,
};

kunit_test_suite(suite);
