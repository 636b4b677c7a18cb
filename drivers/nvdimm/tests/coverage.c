// SPDX-License-Identifier: GPL-2.0
/*
 * Writes the counters of instrumented Rust code to a file of the host when the kernel halts, which
 * is after the tests. UML can write to the host directly, without a file system.
 */

#include <linux/errno.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/reboot.h>

#include <os.h>
#include "coverage.h"

static char *file;
module_param(file, charp, 0444);
MODULE_PARM_DESC(file, "File on the host for the counters; without it they are not written");

static int write_counters(struct notifier_block *block, unsigned long event, void *data)
{
	const char *from = __start___llvm_prf_cnts;
	size_t left = __stop___llvm_prf_cnts - from;
	int fd = os_open_file(file, of_trunc(of_create(of_write(OPENFLAGS()))), 0644);

	if (fd < 0) {
		pr_err("coverage: cannot write %s: %d\n", file, fd);
		return NOTIFY_DONE;
	}
	while (left) {
		int done = os_write_file(fd, from, left);

		if (done == -EINTR)
			continue;
		if (done <= 0) {
			pr_err("coverage: cannot write %s: %d\n", file, done);
			break;
		}
		from += done;
		left -= done;
	}
	os_close_file(fd);
	return NOTIFY_DONE;
}

static struct notifier_block coverage_block = {
	.notifier_call = write_counters,
	/* Runs last. */
	.priority = INT_MIN,
};

static int __init coverage_init(void)
{
	return file ? register_reboot_notifier(&coverage_block) : 0;
}
late_initcall(coverage_init);
