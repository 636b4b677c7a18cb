// SPDX-License-Identifier: GPL-2.0
/*
 * Gives kmemleak the time to look for what the tests before this one have left behind. With the
 * argument kmemleak.verbose=1 it reports to the kernel's log, where whoever runs the tests looks.
 */

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/time-internal.h>

/* It scans every ten minutes, and reports what has not changed from one scan to the next. */
#define SCANS	(3 * 600)

static void kmemleak_scans(struct kunit *test)
{
	if (time_travel_mode == TT_MODE_OFF)
		kunit_skip(test, "would take %d minutes without time travel", SCANS / 60);
	ssleep(SCANS);
}

static struct kunit_case leak_cases[] = {
	KUNIT_CASE_SLOW(kmemleak_scans),
	{}
};

static struct kunit_suite leak_suite = {
	.name = "leaks",
	.test_cases = leak_cases,
};

kunit_test_suite(leak_suite);

MODULE_DESCRIPTION("Time for kmemleak to look for what tests have left behind");
MODULE_LICENSE("GPL");
