// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into QEMU, which executes a flush by an fsync() of the backing file. Executes a test's
 * plan instead, so that the test decides when a host fails or hangs, and keeps a record.
 *
 * FSYNC_PLAN names a file that holds the plan, and may be replaced at any time:
 *	pass		the real fsync()
 *	fail		none, and return EIO
 *	fail N		the same every Nth time
 *	delay N		wait for N milliseconds first
 *	hang		wait until the plan changes
 *	hang N		the same, but the first N calls since QEMU started pass
 *	lose N		the same, but all calls except number N pass
 *	PLAN@INODE	the plan for one file; calls for others pass
 *
 * FSYNC_RECORD names a file that gets a line at the beginning and at the end of each call, and one
 * in between if the call is held:
 *	begin INODE
 *	held INODE
 *	end INODE RESULT
 *
 * FSYNC_JOURNAL: see host_journal.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host_journal.h"

static int open_by_name_in(const char *variable, int flags)
{
	const char *path = getenv(variable);

	return path ? open(path, flags | O_CLOEXEC) : -1;
}

static void read_plan(char *plan, size_t size, ino_t inode)
{
	int fd = open_by_name_in("FSYNC_PLAN", O_RDONLY);
	ssize_t len = 0;
	char *file;

	if (fd >= 0) {
		len = read(fd, plan, size - 1);
		close(fd);
	}
	plan[len > 0 ? len : 0] = '\0';
	plan[strcspn(plan, "\n")] = '\0';
	file = strchr(plan, '@');
	if (!file)
		return;
	*file = '\0';
	if (strtoul(file + 1, NULL, 10) != inode)
		strcpy(plan, "pass");
}

static void record(const char *line)
{
	int fd = open_by_name_in("FSYNC_RECORD", O_WRONLY | O_APPEND);

	if (fd < 0)
		return;
	/* One write is one line, also if several threads write. */
	if (write(fd, line, strlen(line)) < 0)
		perror("FSYNC_RECORD");
	close(fd);
}

/* Returns whether the plan holds the call with this number. */
static bool is_held(const char *plan, unsigned long turn)
{
	unsigned long passing = 0, lost;

	if (sscanf(plan, "lose %lu", &lost) == 1)
		return turn == lost;
	if (strncmp(plan, "hang", 4))
		return false;
	sscanf(plan, "hang %lu", &passing);
	return turn > passing;
}

static int is_to_fail(const char *plan)
{
	static unsigned int calls;
	unsigned int every;

	if (!strcmp(plan, "fail"))
		return 1;
	if (sscanf(plan, "fail %u", &every) != 1 || !every)
		return 0;
	return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) % every == 0;
}

static int planned(long number, int fd)
{
	static atomic_ulong turns;
	unsigned int milliseconds;
	unsigned long turn;
	char plan[64], line[64];
	int result, error, held = 0;
	struct stat stat;
	struct copy copy;

	if (fstat(fd, &stat) < 0)
		return -1;
	copy = journal_copy(fd, &stat);
	turn = atomic_fetch_add(&turns, 1) + 1;
	snprintf(line, sizeof(line), "begin %lu\n", (unsigned long)stat.st_ino);
	record(line);

	while (read_plan(plan, sizeof(plan), stat.st_ino), is_held(plan, turn)) {
		if (!held++) {
			snprintf(line, sizeof(line), "held %lu\n", (unsigned long)stat.st_ino);
			record(line);
		}
		usleep(5000);
	}

	if (sscanf(plan, "delay %u", &milliseconds) == 1)
		usleep(milliseconds * 1000);

	if (is_to_fail(plan)) {
		errno = EIO;
		result = -1;
	} else {
		result = syscall(number, fd);
	}
	error = errno;
	if (!result)
		journal_commit(&copy);

	snprintf(line, sizeof(line), "end %lu %d\n", (unsigned long)stat.st_ino, result);
	record(line);
	errno = error;
	return result;
}

int fsync(int fd)
{
	return planned(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return planned(SYS_fdatasync, fd);
}
