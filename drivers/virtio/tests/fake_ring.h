/* SPDX-License-Identifier: GPL-2.0 */
/* The host's end of the rings of the fake virtio device; private to it. */
#ifndef _TESTS_KUNIT_FAKE_RING_H
#define _TESTS_KUNIT_FAKE_RING_H

#include "fake_virtio.h"

/* What a host does with a ring, whatever its format. The device's lock is held. */
struct fake_ring {
	/* Sees what the driver has made available by now, and asks to be notified of the next. */
	void (*see)(struct fake_queue *queue, u64 now);
	/* Whether a request that was seen can be taken. */
	bool (*has)(const struct fake_queue *queue);
	/* Takes it, if there is one; returns false if its chain is none. */
	bool (*take)(struct fake_queue *queue, struct fake_request *request);
	/* Puts a used element for the buffer @id, which has @slots descriptors of the ring. */
	void (*use)(struct fake_queue *queue, u32 id, u32 len, unsigned int slots);
};

/* The format that was negotiated. */
const struct fake_ring *fake_ring_of(struct virtio_device *vdev);

#endif
