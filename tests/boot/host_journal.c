// SPDX-License-Identifier: GPL-2.0
/*
 * The data that a host is guaranteed to have after a power failure: stores before an fsync that has
 * returned. QEMU's memory is a shared mapping of the file, so the file itself has every store,
 * however early the guest was killed.
 *
 * If the directory FSYNC_JOURNAL exists, each file that is synced has a journal in it:
 *	INODE.base	made by the test: the file's first content
 *	INODE		made here: records, which are only appended
 *
 * A record is a page's number and its content, or COMMIT, the length of the journal that is
 * guaranteed from then on, the number of the commit among those of all files, and the first number
 * in the file FSYNC_COUNTERS, where the guest may count what it was acknowledged. (A number has 64
 * bits in the machine's byte order.)
 *
 * When an fsync begins, the pages that have changed since the last copy are appended. The guest
 * runs meanwhile, so a page may be newer than the fsync, because any cache may write a page back
 * early. It is never older. When the fsync has returned, COMMIT is appended. Concurrent fsyncs make
 * their copies one after the other, and each guarantees the earlier copies, too: their pages were
 * stored before it.
 *
 * The test kills QEMU and not its host, so the journal keeps all that was written to it. A record
 * that the kill has cut off is behind the last COMMIT.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host_journal.h"

#define PAGE	4096
#define COMMIT	UINT64_MAX

struct record {
	uint64_t number;
	char page[PAGE];
};

struct journal {
	struct journal *next;
	ino_t inode;
	int fd;
	size_t size;
	/* The file's current content, and the content at the last copy. */
	const char *live;
	char *copied;
	/* The journal's length. */
	uint64_t end;
};

static struct journal *journals;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* With a gap in the journal, the test would blame the guest. */
static void give_up(const char *what)
{
	fprintf(stderr, "FSYNC_JOURNAL: %s: %s\n", what, strerror(errno));
	abort();
}

static void append(struct journal *journal, const void *data, size_t size)
{
	if (write(journal->fd, data, size) != (ssize_t)size)
		give_up("write");
	journal->end += size;
}

static int open_in(const char *folder, ino_t inode, const char *suffix, int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%lu%s", folder, (unsigned long)inode, suffix);
	return open(path, flags | O_CLOEXEC, 0600);
}

static void *map(int fd, size_t size, int protection, int flags)
{
	void *memory = mmap(NULL, size, protection, flags, fd, 0);

	if (memory == MAP_FAILED)
		give_up("mmap");
	return memory;
}

static struct journal *new_journal(const char *folder, int fd, const struct stat *stat)
{
	struct journal *journal = calloc(1, sizeof(*journal));
	int base = open_in(folder, stat->st_ino, ".base", O_RDONLY);

	if (!journal || base < 0)
		give_up("base");
	journal->inode = stat->st_ino;
	journal->size = stat->st_size;
	journal->fd = open_in(folder, stat->st_ino, "", O_CREAT | O_TRUNC | O_WRONLY);
	if (journal->fd < 0)
		give_up("open");
	journal->live = map(fd, journal->size, PROT_READ, MAP_SHARED);
	journal->copied = map(base, journal->size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_NORESERVE);
	close(base);
	journal->next = journals;
	journals = journal;
	return journal;
}

static struct journal *find_journal(int fd, const struct stat *stat)
{
	const char *folder = getenv("FSYNC_JOURNAL");
	struct journal *journal;

	for (journal = journals; journal; journal = journal->next)
		if (journal->inode == stat->st_ino)
			return journal;
	if (!folder || access(folder, F_OK) < 0)
		return NULL;
	return new_journal(folder, fd, stat);
}

static void append_if_changed(struct journal *journal, uint64_t number)
{
	const char *live = journal->live + number * PAGE;
	char *copied = journal->copied + number * PAGE;
	struct record record = { .number = number };

	if (!memcmp(live, copied, PAGE))
		return;
	/* The guest may write meanwhile: record the same bytes that are kept. */
	memcpy(copied, live, PAGE);
	memcpy(record.page, copied, PAGE);
	append(journal, &record, sizeof(record));
}

/* The guest has never stored to a hole, which the base has, too. */
static void append_changes(struct journal *journal, int fd)
{
	off_t data = 0, hole;

	while ((data = lseek(fd, data, SEEK_DATA)) >= 0) {
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			give_up("lseek");
		for (data -= data % PAGE; data < hole; data += PAGE)
			append_if_changed(journal, data / PAGE);
	}
	if (errno != ENXIO)
		give_up("lseek");
}

/* Called at the very beginning of an fsync, which covers no later store. */
struct copy journal_copy(int fd, const struct stat *stat)
{
	struct copy copy = {};

	pthread_mutex_lock(&lock);
	copy.journal = find_journal(fd, stat);
	if (copy.journal) {
		append_changes(copy.journal, fd);
		copy.end = copy.journal->end;
	}
	pthread_mutex_unlock(&lock);
	return copy;
}

/* The guest shares the file, and counts in it until the guest is killed. */
static uint64_t acknowledged(void)
{
	static const uint64_t *counters;
	const char *path = getenv("FSYNC_COUNTERS");

	if (!counters && path) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return 0;
		counters = map(fd, PAGE, PROT_READ, MAP_SHARED);
		close(fd);
	}
	return counters ? __atomic_load_n(counters, __ATOMIC_SEQ_CST) : 0;
}

/* Called when the fsync has succeeded, before it returns to QEMU. */
void journal_commit(const struct copy *copy)
{
	static uint64_t commits;
	uint64_t record[4] = {COMMIT, copy->end};

	if (!copy->journal)
		return;
	pthread_mutex_lock(&lock);
	record[2] = commits++;
	record[3] = acknowledged();
	append(copy->journal, record, sizeof(record));
	pthread_mutex_unlock(&lock);
}
