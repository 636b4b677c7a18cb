/* SPDX-License-Identifier: GPL-2.0 */
/* The host's side of the fake virtio device's rings; private to the device. */
#ifndef _FAKE_RING_H
#define _FAKE_RING_H

#include "fake_virtio.h"

/* The host's operations on a ring of either format. The device's lock is held. */
struct fake_ring {
	/* Reads which requests are available, and requests a notification for the next. */
	void (*poll)(struct fake_queue *queue, u64 now);
	/* Returns whether there is a request to take. */
	bool (*has)(const struct fake_queue *queue);
	/* Takes a request; returns false if there is none or its chain is invalid. */
	bool (*take)(struct fake_queue *queue, struct fake_request *request);
	/* Writes a used element for the buffer @id, which has @slots descriptors in the ring. */
	void (*use)(struct fake_queue *queue, u32 id, u32 len, unsigned int slots);
};

/* Returns the operations for the negotiated format. */
const struct fake_ring *fake_ring_of(struct virtio_device *vdev);

#endif
