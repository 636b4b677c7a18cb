// SPDX-License-Identifier: GPL-2.0
/* The results of nvdimm_flush() and nvdimm_has_flush() for a provider's flush callback. */
#include "fake_region.h"

struct answer {
	const char *name;
	int provider;
	int core;
};

static const struct answer answers[] = {
	{ "done", 0, 0 },
	{ "taken", NVDIMM_FLUSH_ASYNC, NVDIMM_FLUSH_ASYNC },
	{ "another positive value", 2, 2 },
	{ "no memory", -ENOMEM, -ENOMEM },
	{ "I/O error", -EIO, -EIO },
	{ "another error", -EINVAL, -EIO },
};

KUNIT_ARRAY_PARAM_DESC(answers, answers, name);

/* The callback gets the bio itself, and its result is passed on or becomes -EIO. */
static void result_is_passed_on(struct kunit *test)
{
	struct fake_region *fake = fake_region(test, BIT(ND_REGION_ASYNC), true);
	const struct answer *answer = test->param_value;
	struct bio bio;

	bio_init(&bio, NULL, NULL, 0, REQ_OP_WRITE | REQ_FUA);
	fake->answers[0] = answer->provider;
	KUNIT_EXPECT_EQ(test, answer->core, nvdimm_flush(fake->region, &bio));
	KUNIT_EXPECT_EQ(test, 1, fake->count);
	KUNIT_EXPECT_PTR_EQ(test, &bio, fake->calls[0].bio);
	KUNIT_EXPECT_EQ(test, BLK_STS_OK, bio.bi_status);

	/* Without a bio there is nothing to take. */
	if (answer->provider > 0)
		return;
	fake->answers[1] = answer->provider;
	KUNIT_EXPECT_EQ(test, answer->core, nvdimm_flush(fake->region, NULL));
	KUNIT_EXPECT_EQ(test, 2, fake->count);
	KUNIT_EXPECT_NULL(test, fake->calls[1].bio);
}

/* nvdimm_has_flush() returns 1 only for regions with ND_REGION_ASYNC and a callback. */
static void has_flush(struct kunit *test)
{
	unsigned int with_flag, with_callback;

	for (with_flag = 0; with_flag < 2; with_flag++) {
		for (with_callback = 0; with_callback < 2; with_callback++) {
			struct fake_region *fake = fake_region(test,
				with_flag ? BIT(ND_REGION_ASYNC) : 0, with_callback);
			int expected = with_flag && with_callback ? 1 : -ENXIO;

			KUNIT_EXPECT_EQ_MSG(test, expected, nvdimm_has_flush(fake->region),
					    "flag %u, callback %u", with_flag, with_callback);
			fake_region_remove(test, fake);
		}
	}
}

/* The removal of a namespace flushes synchronously. */
static void removal_flushes(struct kunit *test)
{
	struct fake_region *fake = fake_region(test, BIT(ND_REGION_ASYNC), true);

	fake_region_open(test, fake);
	KUNIT_EXPECT_EQ(test, 0, fake->count);
	fake_region_remove(test, fake);
	KUNIT_EXPECT_EQ(test, 1, fake->count);
	KUNIT_EXPECT_NULL(test, fake->calls[0].bio);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(result_is_passed_on, answers_gen_params),
	KUNIT_CASE(has_flush),
	KUNIT_CASE(removal_flushes),
	{}
};

static struct kunit_suite suite = {
	.name = "nvdimm_flush",
	.test_cases = cases,
};

kunit_test_suite(suite);
