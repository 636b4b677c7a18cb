/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtio device for KUnit: a transport without hardware, whose host is the test.
 *
 * The driver under test is the real one, bound by the real virtio core, and uses a real ring: a
 * split one, or a packed one if the test offers VIRTIO_F_RING_PACKED. The test sets what the device
 * offers, takes requests from the ring, answers them validly, invalidly, late, twice or never, and
 * can make any operation of the transport fail. A test of the entropy driver, for instance:
 *
 *	struct fake_virtio *fake = fake_virtio_create(test, VIRTIO_ID_RNG);
 *	struct fake_request *request;
 *
 *	KUNIT_ASSERT_EQ(test, 0, fake_virtio_plug(fake));
 *	KUNIT_ASSERT_TRUE(test, fake_virtio_is_bound(fake));
 *	request = fake_virtio_take(fake, 0);
 *	KUNIT_ASSERT_NOT_NULL(test, request);
 *	fake_virtio_answer(request, "entropy", 7);
 *	fake_virtio_unplug(fake);
 *
 * All functions are for the test's own task and may sleep, unless noted otherwise. A device that is
 * still plugged at the end of a test is unplugged.
 */
#ifndef _FAKE_VIRTIO_H
#define _FAKE_VIRTIO_H

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>

#define FAKE_QUEUES	4
#define FAKE_QUEUE_SIZE	64
#define FAKE_SEGMENTS	20
#define FAKE_MAPPINGS	64

/* In milliseconds; waiting longer means that something hangs. */
#define FAKE_LIMIT	(2000 * MSEC_PER_SEC)

/* The operations of the transport that can fail or be hooked. */
enum fake_op {
	FAKE_FINALIZE,	/* the features are accepted */
	FAKE_FIND_VQS,
	FAKE_NOTIFY,	/* atomic context */
	FAKE_MAP,	/* maps a buffer, with VIRTIO_F_ACCESS_PLATFORM only; atomic context */
	FAKE_STATUS,	/* the driver sets a bit of the status */
	FAKE_RESET,
	FAKE_DISABLE_QUEUE,	/* the first step of the reset of a queue */
	FAKE_ENABLE_QUEUE,	/* the second one */
	FAKE_OPS
};

struct fake_ring;

/* The host's side of a queue: positions in its ring, which only increase. */
struct fake_queue {
	struct virtqueue *vq;
	const struct fake_ring *ring;	/* operations on it */
	u16 taken;	/* after the last request that was taken */
	u16 polled;	/* after the last one available at the last notification */
	u16 used;	/* of the next used element */
	u64 available[FAKE_QUEUE_SIZE];	/* when the requests were made available */
};

/* A request that the host has taken. It survives a reset of the device, as in QEMU. */
struct fake_request {
	struct fake_virtio *fake;
	struct list_head list;
	unsigned int queue;
	u16 id;
	bool indirect;
	bool mapped;	/* by the transport's IOMMU */
	unsigned int slots;	/* number of descriptors in the ring itself */
	u64 available;	/* when it was made available, by the device's clock */
	unsigned int readable, writable;	/* numbers of segments */
	struct kvec out[FAKE_SEGMENTS];	/* what the device reads */
	struct kvec in[FAKE_SEGMENTS];	/* what the device writes */
};

struct fake_virtio {
	struct virtio_device vdev;
	struct kunit *test;

	/* What the device offers; the test sets it before it plugs the device. */
	u64 features;
	u8 config[64];
	size_t config_len;	/* how much of it the transport can access */
	unsigned int queue_size;	/* a power of two, FAKE_QUEUE_SIZE at most */
	bool has_shm;
	struct virtio_shm_region shm;	/* region 0, if has_shm is set */
	struct virtio_config_ops ops;

	/* The error that an operation returns, until the test clears it. */
	int fail[FAKE_OPS];
	/* Like fail_nth in Documentation/fault-injection: which allocation of probe fails. */
	unsigned int fail_nth;
	bool failed_nth;	/* that allocation was reached */
	/* The device was pulled out: its status reads as all ones, and a reset never ends. */
	bool gone;
	/* A write to memory that is not, or no longer, mapped fails the test. */
	bool checks_mappings;
	/* How many mappings the driver may leave behind when the device is unplugged. */
	unsigned int may_keep;
	/* Called before each operation, in its context. */
	void (*hook)(struct fake_virtio *fake, enum fake_op op);

	/* What the driver has done. */
	unsigned int count[FAKE_OPS];	/* calls of each operation */
	u64 offered, accepted;	/* features, at the last FAKE_FINALIZE */
	unsigned int bad_accesses;	/* to the configuration space, beyond its length */

	/* The rest is private. */
	spinlock_t interrupt;	/* held around the driver's callbacks, like a shared interrupt */
	spinlock_t lock;	/* innermost; protects queues, requests, clock */
	u8 status;
	u64 clock;
	struct fake_queue queues[FAKE_QUEUES];
	struct list_head requests;
	atomic_t mapped;
	dma_addr_t mappings[FAKE_MAPPINGS];	/* 0 for a free entry */
	bool plugged;
	bool resetting;	/* between the steps of a function reset */
	struct kthread_worker *resetter;
	wait_queue_head_t wait;
	struct completion released;
	struct device *parent;
};

/* Creates a device of this type, with VIRTIO_F_VERSION_1 and queues of 16 descriptors. */
struct fake_virtio *fake_virtio_create(struct kunit *test, u32 device_id);

/* Registers the device, so that a driver is bound. Returns the error of the registration. */
int fake_virtio_plug(struct fake_virtio *fake);

/*
 * Unregisters the device, if it is plugged. Fails the test if the driver does not return, or keeps
 * a reference, a queue or a mapping. The device can be plugged again.
 */
void fake_virtio_unplug(struct fake_virtio *fake);

/* Returns whether a driver is bound. */
bool fake_virtio_is_bound(struct fake_virtio *fake);

/* Breaks all queues, as transports do when a device was pulled out. Any context. */
void fake_virtio_break(struct fake_virtio *fake);

/* Sets NEEDS_RESET in the device's status and reports it to the driver. Any context. */
void fake_virtio_needs_reset(struct fake_virtio *fake);

/* What transports do around suspend and function reset. */
int fake_virtio_freeze(struct fake_virtio *fake);
int fake_virtio_restore(struct fake_virtio *fake);
int fake_virtio_reset_prepare(struct fake_virtio *fake);
int fake_virtio_reset_done(struct fake_virtio *fake);

/* What the driver core does when the system is shut down. */
void fake_virtio_shutdown(struct fake_virtio *fake);

/* Returns the time by the device's clock, which counts events. Any context. */
u64 fake_virtio_now(struct fake_virtio *fake);

/* Returns whether there is a request to take. */
bool fake_virtio_has_request(struct fake_virtio *fake, unsigned int queue);

/*
 * Waits for the next request and takes it. Returns NULL if there is none within FAKE_LIMIT. It is
 * valid until fake_virtio_forget(), so it can be answered more than once.
 */
struct fake_request *fake_virtio_take(struct fake_virtio *fake, unsigned int queue);

/* Like fake_virtio_take(), but returns NULL if there is none now. */
struct fake_request *fake_virtio_try_take(struct fake_virtio *fake, unsigned int queue);

/* Frees all requests that were taken; also done at the end of the test. */
void fake_virtio_forget(struct fake_virtio *fake);

/* Copies what the driver has sent; returns the number of bytes, @len at most. */
size_t fake_virtio_read(struct fake_request *request, void *data, size_t len);

/* Writes to the response; returns the number of bytes that there was room for. */
size_t fake_virtio_write(struct fake_request *request, const void *data, size_t len);

/* Answers with these bytes: write, used and interrupt in one. */
void fake_virtio_answer(struct fake_request *request, const void *data, size_t len);

/* Reports that the buffer @id was used, whether or not it exists. Any context. */
void fake_virtio_used(struct fake_virtio *fake, unsigned int queue, u32 id, u32 len);

/* Sends an interrupt. Any context except in the transport's operations. */
void fake_virtio_interrupt(struct fake_virtio *fake, unsigned int queue);

#endif
