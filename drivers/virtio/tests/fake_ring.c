// SPDX-License-Identifier: GPL-2.0
/*
 * The host's side of split and packed rings; see fake_ring.h.
 *
 * A split ring counts requests, and has a used element for each: it stays until the driver has read
 * it. A packed ring counts descriptors. Both sides write to the same slots, and each keeps its own
 * position. So a host that writes surplus used elements stays ahead of the driver: the driver's
 * next descriptors overwrite them, or they overwrite descriptors that the host has not read. The
 * fake device keeps no copy of what is lost that way, and neither do real hosts.
 */

#include "fake_ring.h"

#include <linux/virtio_ring.h>

/* Adds a segment to a request's buffer; returns false if there are too many. */
static bool fake_add_segment(struct fake_request *request, u64 addr, u32 len, bool writable)
{
	unsigned int *count = writable ? &request->writable : &request->readable;
	struct kvec *segments = writable ? request->in : request->out;

	if (*count == FAKE_SEGMENTS)
		return false;
	segments[(*count)++] = (struct kvec){ .iov_base = phys_to_virt(addr), .iov_len = len };
	return true;
}

/* Split rings. */

static void fake_split_poll(struct fake_queue *queue, u64 now)
{
	const struct vring *ring = virtqueue_get_vring(queue->vq);
	u16 available = virtio16_to_cpu(queue->vq->vdev, READ_ONCE(ring->avail->idx));

	while (queue->polled != available)
		queue->available[queue->polled++ % FAKE_QUEUE_SIZE] = now;
	/* With VIRTIO_RING_F_EVENT_IDX: request a notification for the next one. */
	vring_avail_event(ring) = cpu_to_virtio16(queue->vq->vdev, available);
}

static bool fake_split_has(const struct fake_queue *queue)
{
	return queue->taken != queue->polled;
}

/* Follows a chain of descriptors; returns false if it is invalid. */
static bool fake_split_parse(struct fake_request *request, const struct vring *ring)
{
	struct virtio_device *vdev = &request->fake->vdev;
	const struct vring_desc *table = ring->desc;
	unsigned int size = ring->num, next = request->id;

	for (unsigned int i = 0; i < 2 * FAKE_SEGMENTS && next < size; i++) {
		const struct vring_desc *desc = &table[next];
		u16 flags = virtio16_to_cpu(vdev, desc->flags);
		u64 addr = virtio64_to_cpu(vdev, desc->addr);
		u32 len = virtio32_to_cpu(vdev, desc->len);

		if (!request->indirect)
			request->slots++;
		if (flags & VRING_DESC_F_INDIRECT) {
			request->indirect = true;
			table = phys_to_virt(addr);
			size = len / sizeof(*table);
			next = 0;
			continue;
		}
		if (!fake_add_segment(request, addr, len, flags & VRING_DESC_F_WRITE))
			return false;
		if (!(flags & VRING_DESC_F_NEXT))
			return true;
		next = virtio16_to_cpu(vdev, desc->next);
	}
	return false;
}

static bool fake_split_take(struct fake_queue *queue, struct fake_request *request)
{
	const struct vring *ring = virtqueue_get_vring(queue->vq);
	u16 position;

	if (!fake_split_has(queue))
		return false;
	position = queue->taken++;
	request->id = virtio16_to_cpu(queue->vq->vdev,
				      READ_ONCE(ring->avail->ring[position % ring->num]));
	request->available = queue->available[position % FAKE_QUEUE_SIZE];
	return fake_split_parse(request, ring);
}

static void fake_split_use(struct fake_queue *queue, u32 id, u32 len, unsigned int slots)
{
	struct virtio_device *vdev = queue->vq->vdev;
	const struct vring *ring = virtqueue_get_vring(queue->vq);
	struct vring_used_elem *element = &ring->used->ring[queue->used++ % ring->num];

	element->id = cpu_to_virtio32(vdev, id);
	element->len = cpu_to_virtio32(vdev, len);
	virtio_store_mb(true, &ring->used->idx, cpu_to_virtio16(vdev, queue->used));
}

static const struct fake_ring fake_split_ring = {
	.poll = fake_split_poll,
	.has = fake_split_has,
	.take = fake_split_take,
	.use = fake_split_use,
};

/*
 * Packed rings. A position counts the descriptors since the ring was created. Its slot and its wrap
 * counter stay right when it overflows, because the ring's size is a power of two.
 */

#define FAKE_AVAIL	BIT(VRING_PACKED_DESC_F_AVAIL)
#define FAKE_USED	BIT(VRING_PACKED_DESC_F_USED)

static u16 fake_packed_slot(const struct fake_queue *queue, u16 position)
{
	return position % virtqueue_get_vring_size(queue->vq);
}

/* The wrap counter: 1 in the first round, inverted with each further one. */
static bool fake_packed_wrap(const struct fake_queue *queue, u16 position)
{
	return !(position / virtqueue_get_vring_size(queue->vq) % 2);
}

static struct vring_packed_desc *fake_packed_desc(const struct fake_queue *queue, u16 position)
{
	struct vring_packed_desc *ring = phys_to_virt(virtqueue_get_desc_addr(queue->vq));

	return &ring[fake_packed_slot(queue, position)];
}

static u16 fake_packed_flags(const struct fake_queue *queue, u16 position)
{
	return le16_to_cpu(READ_ONCE(fake_packed_desc(queue, position)->flags));
}

/* Returns whether the descriptor is available in this round. */
static bool fake_packed_is_available(const struct fake_queue *queue, u16 position)
{
	u16 flags = fake_packed_flags(queue, position) & (FAKE_AVAIL | FAKE_USED);

	return flags == (fake_packed_wrap(queue, position) ? FAKE_AVAIL : FAKE_USED);
}

/* Returns the length of a chain; the first descriptor's flags make all of it available. */
static u16 fake_packed_length(const struct fake_queue *queue, u16 position)
{
	u16 length = 1;

	while (fake_packed_flags(queue, position + length - 1) & VRING_DESC_F_NEXT &&
	       length < virtqueue_get_vring_size(queue->vq))
		length++;
	return length;
}

static void fake_packed_poll(struct fake_queue *queue, u64 now)
{
	struct vring_packed_desc_event *event = phys_to_virt(virtqueue_get_used_addr(queue->vq));
	bool by_index = virtio_has_feature(queue->vq->vdev, VIRTIO_RING_F_EVENT_IDX);
	u16 next;

	while (fake_packed_is_available(queue, queue->polled)) {
		/* The rest of the chain was written before the first descriptor's flags. */
		virtio_rmb(true);
		queue->available[queue->polled % FAKE_QUEUE_SIZE] = now;
		queue->polled += fake_packed_length(queue, queue->polled);
	}

	/* Request a notification for the next one. */
	next = fake_packed_slot(queue, queue->polled);
	next |= fake_packed_wrap(queue, queue->polled) << VRING_PACKED_EVENT_F_WRAP_CTR;
	WRITE_ONCE(event->off_wrap, cpu_to_le16(next));
	/* The flags make the index valid. */
	virtio_wmb(true);
	WRITE_ONCE(event->flags, cpu_to_le16(by_index ? VRING_PACKED_EVENT_FLAG_DESC :
							VRING_PACKED_EVENT_FLAG_ENABLE));
}

/* A used element may have overwritten an available request. */
static bool fake_packed_has(const struct fake_queue *queue)
{
	return queue->taken != queue->polled && fake_packed_is_available(queue, queue->taken);
}

/* Reads an indirect table, whose descriptors all belong to the request, in order. */
static bool fake_packed_parse_table(struct fake_request *request,
				    const struct vring_packed_desc *table, u32 size)
{
	for (unsigned int i = 0; i < size; i++) {
		if (!fake_add_segment(request, le64_to_cpu(table[i].addr),
				      le32_to_cpu(table[i].len),
				      le16_to_cpu(table[i].flags) & VRING_DESC_F_WRITE))
			return false;
	}
	return size;
}

static bool fake_packed_take(struct fake_queue *queue, struct fake_request *request)
{
	u16 position = queue->taken;
	bool valid = true;

	if (!fake_packed_has(queue))
		return false;
	request->slots = fake_packed_length(queue, position);
	request->available = queue->available[position % FAKE_QUEUE_SIZE];
	queue->taken += request->slots;

	for (; valid && position != queue->taken; position++) {
		const struct vring_packed_desc *desc = fake_packed_desc(queue, position);
		u64 addr = le64_to_cpu(desc->addr);
		u32 len = le32_to_cpu(desc->len);
		u16 flags = le16_to_cpu(desc->flags);

		/* The last descriptor has the buffer's id; others may differ. */
		request->id = le16_to_cpu(desc->id);
		if (flags & VRING_DESC_F_INDIRECT) {
			request->indirect = true;
			valid = fake_packed_parse_table(request, phys_to_virt(addr),
							len / sizeof(*desc));
		} else {
			valid = fake_add_segment(request, addr, len, flags & VRING_DESC_F_WRITE);
		}
	}
	return valid;
}

static void fake_packed_use(struct fake_queue *queue, u32 id, u32 len, unsigned int slots)
{
	struct vring_packed_desc *desc = fake_packed_desc(queue, queue->used);
	u16 flags = fake_packed_wrap(queue, queue->used) ? FAKE_AVAIL | FAKE_USED : 0;

	/* The length is valid only with this flag. */
	if (len)
		flags |= VRING_DESC_F_WRITE;
	desc->id = cpu_to_le16(id);
	desc->len = cpu_to_le32(len);
	/* The flags hand the slot to the driver. */
	virtio_wmb(true);
	WRITE_ONCE(desc->flags, cpu_to_le16(flags));
	queue->used += slots;
}

static const struct fake_ring fake_packed_ring = {
	.poll = fake_packed_poll,
	.has = fake_packed_has,
	.take = fake_packed_take,
	.use = fake_packed_use,
};

const struct fake_ring *fake_ring_of(struct virtio_device *vdev)
{
	return virtio_has_feature(vdev, VIRTIO_F_RING_PACKED) ? &fake_packed_ring :
								&fake_split_ring;
}
