// SPDX-License-Identifier: GPL-2.0
/*
 * Writes numbered records, makes them durable, and checks them after a power failure.
 *
 *	records write METHOD WHERE WRITERS FIRST	until it is killed
 *	records check WHERE WRITERS FIRST
 *	records count WRITER
 *
 * WHERE is a disk or a directory. On a disk, each writer has a ring of records; in a directory, it
 * appends to one file of its own after the other. METHOD is what makes a record durable:
 *	dsync		O_DSYNC and O_DIRECT
 *	fsync		O_DIRECT, then fsync()
 *	buffered	a write to the page cache, then fsync()
 *	msync		a store to mapped memory, then msync()
 *
 * Writers FIRST, FIRST + 1, … count their durable records in the file that COUNTERS names in the
 * environment. It is memory that the host shares and that outlives the guest, so the host has the
 * count of acknowledged records up to the moment of the failure. "count" is for other programs: it
 * reads numbers, one a line, and keeps the last as the count of WRITER.
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
#include <sys/stat.h>
#include <unistd.h>

#define SIZE		4096
#define WORDS		(SIZE / sizeof(uint64_t))
#define PER_RING	64
#define PER_FILE	16
#define WRITERS		256

/* Shared with the host. A run of "write" promises the records from start to done. */
struct counter {
	uint64_t start;
	uint64_t done;
};

static struct counter *counters;
static const char *where;
static int directory, direct, dsync, mapped;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "records: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t load(const uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void store(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

/* The content of a record is a function of its writer and its number. */
static void fill(uint64_t *record, uint64_t writer, uint64_t number)
{
	uint64_t state = (writer + 1) * 0x9e3779b97f4a7c15u + number;

	record[0] = writer;
	record[1] = number;
	for (size_t word = 2; word < WORDS; word++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		record[word] = state;
	}
}

static int same(const uint64_t *record, uint64_t writer, uint64_t number)
{
	uint64_t right[WORDS];

	fill(right, writer, number);
	return !memcmp(record, right, SIZE);
}

static off_t place(uint64_t writer, uint64_t number)
{
	if (directory)
		return number % PER_FILE * SIZE;
	return (writer * PER_RING + number % PER_RING) * SIZE;
}

static void sync_directory(void)
{
	int fd = open(where, O_RDONLY | O_DIRECTORY);

	if (fd < 0 || fsync(fd) < 0)
		die(where);
	close(fd);
}

static int open_file(uint64_t writer, uint64_t number, int flags)
{
	char path[4096];
	int fd;

	if (directory)
		snprintf(path, sizeof(path), "%s/%lu-%lu", where, (unsigned long)writer,
			 (unsigned long)(number / PER_FILE));
	else
		snprintf(path, sizeof(path), "%s", where);
	fd = open(path, flags | (directory && flags != O_RDONLY ? O_CREAT : 0), 0600);
	if (fd < 0)
		die(path);
	return fd;
}

static void *map(int fd, uint64_t writer, uint64_t number)
{
	void *memory;

	if (directory && ftruncate(fd, PER_FILE * SIZE) < 0)
		die("ftruncate");
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, place(writer, number));
	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

static void write_record(int fd, const void *record, uint64_t writer, uint64_t number)
{
	if (mapped) {
		void *memory = map(fd, writer, number);

		memcpy(memory, record, SIZE);
		if (msync(memory, SIZE, MS_SYNC) < 0)
			die("msync");
		munmap(memory, SIZE);
		return;
	}
	if (pwrite(fd, record, SIZE, place(writer, number)) != SIZE)
		die("pwrite");
	if (!dsync && fsync(fd) < 0)
		die("fsync");
}

static void *write_records(void *argument)
{
	const uint64_t writer = (uintptr_t)argument;
	struct counter *counter = &counters[writer];
	const int flags = O_RDWR | (direct ? O_DIRECT : 0) | (dsync ? O_DSYNC : 0);
	void *record;
	int fd = -1;

	if (posix_memalign(&record, SIZE, SIZE))
		die("memory");
	for (uint64_t number = load(&counter->start);; number++) {
		int another = fd < 0 || (directory && number % PER_FILE == 0);

		if (another) {
			if (fd >= 0)
				close(fd);
			fd = open_file(writer, number, flags);
		}
		fill(record, writer, number);
		write_record(fd, record, writer, number);
		if (another && directory)
			sync_directory();
		store(&counter->done, number + 1);
	}
	return NULL;
}

static int check_record(uint64_t writer, uint64_t number)
{
	uint64_t record[WORDS] = {};
	int fd = open_file(writer, number, O_RDONLY);
	int good = pread(fd, record, SIZE, place(writer, number)) == SIZE;

	close(fd);
	/* In a ring, a record in progress may have overwritten a part of this one. */
	if (!directory && number + PER_RING == load(&counters[writer].done))
		return 1;
	if (good && same(record, writer, number))
		return 1;
	printf("records: writer %lu: number %lu was acknowledged, but found %lu of writer %lu%s\n",
	       (unsigned long)writer, (unsigned long)number, (unsigned long)record[1],
	       (unsigned long)record[0], good ? "" : ": the end of the file");
	return 0;
}

static int check_records(uint64_t first, uint64_t writers)
{
	uint64_t checked = 0, lost = 0;

	for (uint64_t writer = first; writer < first + writers; writer++) {
		const uint64_t done = load(&counters[writer].done);
		uint64_t number = load(&counters[writer].start);

		if (!directory && done > PER_RING && number < done - PER_RING)
			number = done - PER_RING;
		for (; number < done; number++, checked++)
			lost += !check_record(writer, number);
	}
	printf("records: %lu checked, %lu lost\n", (unsigned long)checked, (unsigned long)lost);
	return lost ? 1 : 0;
}

static void count(uint64_t writer)
{
	unsigned long number;

	while (scanf("%lu", &number) == 1)
		store(&counters[writer].done, number);
}

static void choose(const char *method)
{
	dsync = !strcmp(method, "dsync");
	mapped = !strcmp(method, "msync");
	direct = dsync || !strcmp(method, "fsync");
	if (!direct && !mapped && strcmp(method, "buffered")) {
		errno = EINVAL;
		die(method);
	}
}

static void map_counters(void)
{
	const char *path = getenv("COUNTERS");
	int fd = path ? open(path, O_RDWR) : -1;

	if (fd < 0)
		die("COUNTERS");
	counters = mmap(NULL, WRITERS * sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			0);
	if (counters == MAP_FAILED)
		die("COUNTERS");
}

static void look(const char *path)
{
	struct stat stat;

	where = path;
	if (lstat(path, &stat) < 0)
		die(path);
	directory = S_ISDIR(stat.st_mode);
}

int main(int argc, char **argv)
{
	uint64_t first, writers;
	pthread_t thread;

	map_counters();
	if (argc == 3 && !strcmp(argv[1], "count")) {
		count(strtoul(argv[2], NULL, 0));
		return 0;
	}
	if (argc < 5) {
		fprintf(stderr, "records: see the head of its source\n");
		return 2;
	}
	look(argv[argc - 3]);
	writers = strtoul(argv[argc - 2], NULL, 0);
	first = strtoul(argv[argc - 1], NULL, 0);
	if (!writers || first + writers > WRITERS) {
		errno = ERANGE;
		die("writers");
	}
	if (!strcmp(argv[1], "check"))
		return check_records(first, writers);

	choose(argv[2]);
	for (uint64_t writer = first; writer < first + writers; writer++)
		store(&counters[writer].start, load(&counters[writer].done));
	for (uint64_t writer = first; writer < first + writers; writer++)
		if (pthread_create(&thread, NULL, write_records, (void *)(uintptr_t)writer))
			die("pthread_create");
	pthread_exit(NULL);
}
