// SPDX-License-Identifier: GPL-2.0
/*
 * Gives kmemleak time to scan for leaks of the tests before this one. With the argument
 * kmemleak.verbose=1 it reports them to the kernel's log.
 */

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/time-internal.h>

/* It scans every ten minutes, and reports objects unchanged from one scan to the next. */
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

MODULE_DESCRIPTION("Time for kmemleak to find leaks of the KUnit tests");
MODULE_LICENSE("GPL");
