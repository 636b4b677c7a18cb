// SPDX-License-Identifier: GPL-2.0
/*
 * Runs steps in a guest, and reads back what they have left.
 *
 *	runner run DISK [busy] <STEPS	in the working directory; workloads.py describes the steps
 *	runner look DIRECTORY…		prints a line for each path below
 *
 * A page that a step writes is full of one word. The number of steps that have returned is the
 * first word of the file that COUNTERS names in the environment, which is memory that the host
 * shares. So the host has it at each flush. With "busy" a second thread flushes DISK all the time,
 * so that flushes are in flight when steps begin.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE	4096
#define WORDS	(PAGE / sizeof(uint64_t))
#define MOST	16

static const char *disk;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "runner: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int must(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

/* A step's arguments: a path, a second one or none, and numbers. */
struct step {
	char name[16], path[256], other[256];
	unsigned long first, count;
	uint64_t word;
};

static uint64_t *pages_of(const struct step *step)
{
	static uint64_t pages[MOST * WORDS] __attribute__((aligned(PAGE)));

	if (step->count > MOST) {
		errno = ERANGE;
		die("count");
	}
	for (size_t at = 0; at < step->count * WORDS; at++)
		pages[at] = step->word;
	return pages;
}

static void put(const struct step *step, int flags)
{
	int fd = must(open(step->path, O_WRONLY | flags), step->path);
	const ssize_t size = step->count * PAGE;

	if (pwrite(fd, pages_of(step), size, step->first * PAGE) != size)
		die("pwrite");
	close(fd);
}

/* A synchronous write to a disk is followed by a flush; an asynchronous one is a bio with FUA. */
static void put_fua(const struct step *step)
{
	int fd = must(open(step->path, O_WRONLY | O_DIRECT | O_DSYNC), step->path);
	struct iocb request = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)pages_of(step),
		.aio_nbytes = step->count * PAGE,
		.aio_offset = step->first * PAGE,
	}, *requests[] = { &request };
	aio_context_t context = 0;
	struct io_event event;

	must(syscall(SYS_io_setup, 1, &context), "io_setup");
	must(syscall(SYS_io_submit, context, 1, requests), "io_submit");
	must(syscall(SYS_io_getevents, context, 1, 1, &event, NULL), "io_getevents");
	if (event.res != (int64_t)request.aio_nbytes) {
		errno = event.res < 0 ? -event.res : EIO;
		die("aio");
	}
	must(syscall(SYS_io_destroy, context), "io_destroy");
	close(fd);
}

static void map(const struct step *step)
{
	int fd = must(open(step->path, O_RDWR), step->path);
	const size_t size = step->count * PAGE;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			    step->first * PAGE);

	if (memory == MAP_FAILED)
		die("mmap");
	memcpy(memory, pages_of(step), size);
	must(msync(memory, size, MS_SYNC), "msync");
	munmap(memory, size);
	close(fd);
}

static void with_file(const struct step *step, int (*function)(int fd))
{
	int fd = must(open(step->path, O_RDONLY), step->path);

	must(function(fd), step->name);
	close(fd);
}

static int discard_cache(int fd)
{
	return ioctl(fd, BLKFLSBUF);
}

static void execute(const struct step *step)
{
	const char *name = step->name;

	if (!strcmp(name, "create"))
		close(must(open(step->path, O_CREAT | O_EXCL | O_WRONLY, 0600), step->path));
	else if (!strcmp(name, "mkdir"))
		must(mkdir(step->path, 0700), step->path);
	else if (!strcmp(name, "write"))
		put(step, 0);
	else if (!strcmp(name, "append"))
		put(step, O_APPEND);
	else if (!strcmp(name, "direct"))
		put(step, O_DIRECT);
	else if (!strcmp(name, "dsync"))
		put(step, O_DSYNC);
	else if (!strcmp(name, "fua"))
		put_fua(step);
	else if (!strcmp(name, "msync"))
		map(step);
	else if (!strcmp(name, "truncate"))
		must(truncate(step->path, step->first * PAGE), step->path);
	else if (!strcmp(name, "fallocate")) {
		int fd = must(open(step->path, O_WRONLY), step->path);

		must(fallocate(fd, 0, step->first * PAGE, step->count * PAGE), "fallocate");
		close(fd);
	} else if (!strcmp(name, "rename"))
		must(rename(step->path, step->other), step->path);
	else if (!strcmp(name, "link"))
		must(link(step->path, step->other), step->path);
	else if (!strcmp(name, "unlink"))
		must(unlink(step->path), step->path);
	else if (!strcmp(name, "fsync"))
		with_file(step, fsync);
	else if (!strcmp(name, "fdatasync"))
		with_file(step, fdatasync);
	else if (!strcmp(name, "sync"))
		sync();
	else if (!strcmp(name, "blkflsbuf"))
		with_file(step, discard_cache);
	else {
		errno = EINVAL;
		die(name);
	}
}

static void *keep_flushing(void *argument)
{
	int fd = must(open(disk, O_RDONLY), disk);

	for (;;)
		must(fsync(fd), disk);
	return argument;
}

static void run(int busy)
{
	const char *path = getenv("COUNTERS");
	int fd = must(path ? open(path, O_RDWR) : -1, "COUNTERS");
	uint64_t *done = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pthread_t thread;
	char line[1024];

	if (done == MAP_FAILED)
		die("COUNTERS");
	__atomic_store_n(done, 0, __ATOMIC_SEQ_CST);
	if (busy && pthread_create(&thread, NULL, keep_flushing, NULL))
		die("pthread_create");
	while (fgets(line, sizeof(line), stdin)) {
		struct step step = {};

		if (sscanf(line, "%15s %255s %255s %lu %lu %lu", step.name, step.path, step.other,
			   &step.first, &step.count, &step.word) != 6) {
			errno = EINVAL;
			die(line);
		}
		execute(&step);
		__atomic_add_fetch(done, 1, __ATOMIC_SEQ_CST);
	}
}

static void look_at_pages(const char *path, off_t size)
{
	int fd = must(open(path, O_RDONLY), path);
	uint64_t page[WORDS];

	for (off_t at = 0; at < size; at += PAGE) {
		int whole = 1;

		memset(page, 0, sizeof(page));
		must(pread(fd, page, PAGE, at), path);
		for (size_t word = 1; word < WORDS; word++)
			whole &= page[word] == page[0];
		if (whole)
			printf(" %lu", (unsigned long)page[0]);
		else
			printf(" mixed");
	}
	close(fd);
}

static void look(const char *path)
{
	struct dirent *entry;
	struct stat stat;
	char below[4096];
	DIR *directory;

	must(lstat(path, &stat), path);
	printf("%s %lu %s %lu", path, (unsigned long)stat.st_ino,
	       S_ISDIR(stat.st_mode) ? "dir" : "file",
	       S_ISDIR(stat.st_mode) ? 0 : (unsigned long)stat.st_size);
	if (!S_ISDIR(stat.st_mode)) {
		look_at_pages(path, stat.st_size);
		printf("\n");
		return;
	}
	printf("\n");
	directory = opendir(path);
	if (!directory)
		die(path);
	while ((entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		look(below);
	}
	closedir(directory);
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "run")) {
		disk = argv[2];
		run(argc == 4);
		return 0;
	}
	if (argc < 3 || strcmp(argv[1], "look")) {
		fprintf(stderr, "runner: see the head of its source\n");
		return 2;
	}
	for (int index = 2; index < argc; index++)
		look(argv[index]);
	return 0;
}
