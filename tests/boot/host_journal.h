/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HOST_JOURNAL_H
#define HOST_JOURNAL_H

#include <sys/stat.h>

/* A copy of a file's content when its fsync began; journal is NULL if none is kept. */
struct copy {
	struct journal *journal;
	unsigned long long end;
};

struct copy journal_copy(int fd, const struct stat *stat);
void journal_commit(const struct copy *copy);

#endif
