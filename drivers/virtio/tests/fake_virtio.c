// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio device for KUnit; see fake_virtio.h.
 *
 * The host does nothing by itself: it acts in the test's task, when the test calls it, and with
 * interrupts off where a device would interrupt. So a test is a list of events in a fixed order.
 */

#include "fake_ring.h"

#include <kunit/device.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/virtio_ring.h>

static struct fake_virtio *to_fake(struct virtio_device *vdev)
{
	return container_of(vdev, struct fake_virtio, vdev);
}

/* Counts an operation, calls the hook, and returns the operation's result. */
static int fake_op(struct fake_virtio *fake, enum fake_op op)
{
	fake->count[op]++;
	if (fake->hook)
		fake->hook(fake, op);
	return fake->fail[op];
}

/* The transport. */

/* Returns how many of these bytes are within the configuration space; counts a bad access. */
static size_t fake_within(struct fake_virtio *fake, size_t offset, size_t len)
{
	size_t rest = fake->config_len - min(offset, fake->config_len);

	if (len > rest)
		fake->bad_accesses++;
	return min(len, rest);
}

static void fake_get(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len)
{
	struct fake_virtio *fake = to_fake(vdev);

	memset(buf, 0xff, len);
	memcpy(buf, fake->config + offset, fake_within(fake, offset, len));
}

static void fake_set(struct virtio_device *vdev, unsigned int offset, const void *buf,
		     unsigned int len)
{
	struct fake_virtio *fake = to_fake(vdev);

	memcpy(fake->config + offset, buf, fake_within(fake, offset, len));
}

static size_t fake_config_len(struct virtio_device *vdev)
{
	return to_fake(vdev)->config_len;
}

static u8 fake_get_status(struct virtio_device *vdev)
{
	struct fake_virtio *fake = to_fake(vdev);

	return READ_ONCE(fake->gone) ? 0xff : fake->status;
}

static void fake_set_status(struct virtio_device *vdev, u8 status)
{
	struct fake_virtio *fake = to_fake(vdev);

	/* A probe begins. */
	if (status & VIRTIO_CONFIG_S_DRIVER && !(fake->status & VIRTIO_CONFIG_S_DRIVER)) {
#ifdef CONFIG_FAULT_INJECTION
		current->fail_nth = fake->fail_nth;
#endif
	}
	fake->status = status;
	fake_op(fake, FAKE_STATUS);
}

static void fake_reset(struct virtio_device *vdev)
{
	struct fake_virtio *fake = to_fake(vdev);

	fake_op(fake, FAKE_RESET);
	while (READ_ONCE(fake->gone))
		msleep(20);
	fake->status = 0;
}

static u64 fake_get_features(struct virtio_device *vdev)
{
	return to_fake(vdev)->features;
}

static int fake_finalize_features(struct virtio_device *vdev)
{
	struct fake_virtio *fake = to_fake(vdev);

	vring_transport_features(vdev);
	fake->offered = fake->features;
	fake->accepted = vdev->features;
	return fake_op(fake, FAKE_FINALIZE);
}

static bool fake_get_shm_region(struct virtio_device *vdev, struct virtio_shm_region *region, u8 id)
{
	struct fake_virtio *fake = to_fake(vdev);

	if (id || !fake->has_shm)
		return false;
	*region = fake->shm;
	return true;
}

static bool fake_notify(struct virtqueue *vq)
{
	struct fake_virtio *fake = to_fake(vq->vdev);
	struct fake_queue *queue = &fake->queues[vq->index];
	unsigned long flags;

	spin_lock_irqsave(&fake->lock, flags);
	fake->clock++;
	if (queue->vq)
		queue->ring->poll(queue, fake->clock);
	spin_unlock_irqrestore(&fake->lock, flags);

	wake_up(&fake->wait);
	return !fake_op(fake, FAKE_NOTIFY);
}

/* Takes a queue from the host, and waits for the driver's callback. */
static void fake_disable(struct fake_virtio *fake, unsigned int index)
{
	unsigned long flags;

	spin_lock_irqsave(&fake->interrupt, flags);
	spin_lock(&fake->lock);
	fake->queues[index].vq = NULL;
	spin_unlock(&fake->lock);
	spin_unlock_irqrestore(&fake->interrupt, flags);
}

/* Gives the host a queue, which is empty. */
static void fake_enable(struct fake_virtio *fake, struct virtqueue *vq)
{
	unsigned long flags;

	spin_lock_irqsave(&fake->lock, flags);
	fake->queues[vq->index] = (struct fake_queue){
		.vq = vq,
		.ring = fake_ring_of(&fake->vdev),
	};
	spin_unlock_irqrestore(&fake->lock, flags);
}

static int fake_disable_vq_and_reset(struct virtqueue *vq)
{
	struct fake_virtio *fake = to_fake(vq->vdev);
	int error = fake_op(fake, FAKE_DISABLE_QUEUE);

	if (!error)
		fake_disable(fake, vq->index);
	return error;
}

static int fake_enable_vq_after_reset(struct virtqueue *vq)
{
	struct fake_virtio *fake = to_fake(vq->vdev);
	int error = fake_op(fake, FAKE_ENABLE_QUEUE);

	if (!error)
		fake_enable(fake, vq);
	return error;
}

static void fake_del_vqs(struct virtio_device *vdev)
{
	struct fake_virtio *fake = to_fake(vdev);
	struct virtqueue *vq, *next;

	list_for_each_entry_safe(vq, next, &vdev->vqs, list) {
		fake_disable(fake, vq->index);
		vring_del_virtqueue(vq);
	}
}

static int fake_find_vqs(struct virtio_device *vdev, unsigned int nvqs, struct virtqueue *vqs[],
			 struct virtqueue_info info[], struct irq_affinity *desc)
{
	struct fake_virtio *fake = to_fake(vdev);
	int error = fake_op(fake, FAKE_FIND_VQS);

	if (error)
		return error;
	if (nvqs > FAKE_QUEUES)
		return -ENOENT;

	for (unsigned int i = 0; i < nvqs; i++) {
		vqs[i] = NULL;
		if (!info[i].name)
			continue;

		vqs[i] = vring_create_virtqueue(i, fake->queue_size, PAGE_SIZE, vdev, true, false,
						info[i].ctx, fake_notify, info[i].callback,
						info[i].name);
		if (!vqs[i]) {
			fake_del_vqs(vdev);
			return -ENOMEM;
		}

		fake_enable(fake, vqs[i]);
	}
	return 0;
}

static void fake_synchronize_cbs(struct virtio_device *vdev)
{
	struct fake_virtio *fake = to_fake(vdev);

	spin_lock_irq(&fake->interrupt);
	spin_unlock_irq(&fake->interrupt);
}

static const char *fake_bus_name(struct virtio_device *vdev)
{
	return dev_name(vdev->dev.parent);
}

static const struct virtio_config_ops fake_ops = {
	.get = fake_get,
	.set = fake_set,
	.config_len = fake_config_len,
	.get_status = fake_get_status,
	.set_status = fake_set_status,
	.reset = fake_reset,
	.find_vqs = fake_find_vqs,
	.del_vqs = fake_del_vqs,
	.synchronize_cbs = fake_synchronize_cbs,
	.disable_vq_and_reset = fake_disable_vq_and_reset,
	.enable_vq_after_reset = fake_enable_vq_after_reset,
	.get_features = fake_get_features,
	.finalize_features = fake_finalize_features,
	.bus_name = fake_bus_name,
	.get_shm_region = fake_get_shm_region,
};

/* An IOMMU with identity mappings, which may have no memory for one. */

static struct fake_virtio *map_to_fake(union virtio_map map)
{
	return dev_get_drvdata(map.dma_dev);
}

/* Returns the entry of an address; of 0: a free one. The driver's lock serializes. */
static dma_addr_t *fake_mapping(struct fake_virtio *fake, dma_addr_t addr)
{
	for (unsigned int i = 0; i < FAKE_MAPPINGS; i++) {
		if (READ_ONCE(fake->mappings[i]) == addr)
			return &fake->mappings[i];
	}
	return NULL;
}

static dma_addr_t fake_map_page(union virtio_map map, struct page *page, unsigned long offset,
				size_t size, enum dma_data_direction dir, unsigned long attrs)
{
	struct fake_virtio *fake = map_to_fake(map);

	dma_addr_t addr = page_to_phys(page) + offset;
	dma_addr_t *entry;

	if (fake_op(fake, FAKE_MAP))
		return DMA_MAPPING_ERROR;
	entry = fake_mapping(fake, 0);
	if (!entry)
		return DMA_MAPPING_ERROR;
	WRITE_ONCE(*entry, addr);
	atomic_inc(&fake->mapped);
	return addr;
}

static void fake_unmap_page(union virtio_map map, dma_addr_t addr, size_t size,
			    enum dma_data_direction dir, unsigned long attrs)
{
	struct fake_virtio *fake = map_to_fake(map);
	dma_addr_t *entry = fake_mapping(fake, addr);

	if (entry)
		WRITE_ONCE(*entry, 0);
	atomic_dec(&fake->mapped);
}

static void fake_sync(union virtio_map map, dma_addr_t addr, size_t size,
		      enum dma_data_direction dir)
{
}

static void *fake_map_alloc(union virtio_map map, size_t size, dma_addr_t *addr, gfp_t gfp)
{
	void *memory = alloc_pages_exact(size, gfp | __GFP_ZERO);

	if (memory) {
		atomic_inc(&map_to_fake(map)->mapped);
		*addr = virt_to_phys(memory);
	}
	return memory;
}

static void fake_map_free(union virtio_map map, size_t size, void *memory, dma_addr_t addr,
			  unsigned long attrs)
{
	atomic_dec(&map_to_fake(map)->mapped);
	free_pages_exact(memory, size);
}

static bool fake_need_sync(union virtio_map map, dma_addr_t addr)
{
	return false;
}

static int fake_mapping_error(union virtio_map map, dma_addr_t addr)
{
	return addr == DMA_MAPPING_ERROR ? -ENOMEM : 0;
}

static size_t fake_max_mapping_size(union virtio_map map)
{
	return SIZE_MAX;
}

static const struct virtio_map_ops fake_map_ops = {
	.map_page = fake_map_page,
	.unmap_page = fake_unmap_page,
	.sync_single_for_cpu = fake_sync,
	.sync_single_for_device = fake_sync,
	.alloc = fake_map_alloc,
	.free = fake_map_free,
	.need_sync = fake_need_sync,
	.mapping_error = fake_mapping_error,
	.max_mapping_size = fake_max_mapping_size,
};

/* Function resets. */

/* A step of a function reset. One task does all, because it holds the device's lock in between. */
struct fake_reset {
	struct kthread_work work;
	struct fake_virtio *fake;
	int result;
};

static void fake_reset_prepare_work(struct kthread_work *work)
{
	struct fake_reset *reset = container_of(work, struct fake_reset, work);
	struct fake_virtio *fake = reset->fake;

	device_lock(&fake->vdev.dev);
	reset->result = virtio_device_reset_prepare(&fake->vdev);
	fake->resetting = !reset->result;
	if (reset->result)
		device_unlock(&fake->vdev.dev);
}

static void fake_reset_done_work(struct kthread_work *work)
{
	struct fake_reset *reset = container_of(work, struct fake_reset, work);
	struct fake_virtio *fake = reset->fake;

	fake->resetting = false;
	reset->result = virtio_device_reset_done(&fake->vdev);
	device_unlock(&fake->vdev.dev);
}

static void fake_reset_abort_work(struct kthread_work *work)
{
	struct fake_virtio *fake = container_of(work, struct fake_reset, work)->fake;

	fake->resetting = false;
	device_unlock(&fake->vdev.dev);
}

static int fake_by_resetter(struct fake_virtio *fake, kthread_work_func_t step)
{
	struct fake_reset reset = { .fake = fake };

	kthread_init_work(&reset.work, step);
	kthread_queue_work(fake->resetter, &reset.work);
	kthread_flush_work(&reset.work);
	return reset.result;
}

int fake_virtio_reset_prepare(struct fake_virtio *fake)
{
	return fake_by_resetter(fake, fake_reset_prepare_work);
}

int fake_virtio_reset_done(struct fake_virtio *fake)
{
	return fake_by_resetter(fake, fake_reset_done_work);
}

/* Creation, plugging and unplugging. */

static void fake_release(struct device *dev)
{
	complete(&to_fake(dev_to_virtio(dev))->released);
}

static void fake_destroy(void *data)
{
	struct fake_virtio *fake = data;

	fake->hook = NULL;
	fake->gone = false;
	memset(fake->fail, 0, sizeof(fake->fail));
	fake->fail_nth = 0;
	if (fake->resetting)
		fake_by_resetter(fake, fake_reset_abort_work);
	if (fake->plugged) {
		/* The test was aborted, and the host no longer answers. */
		fake_virtio_break(fake);
		fake_virtio_unplug(fake);
	}

	kthread_destroy_worker(fake->resetter);
	fake_virtio_forget(fake);
	/* If unplugging has failed, there may still be references: leak the device. */
	if (completion_done(&fake->released))
		kfree(fake);
}

struct fake_virtio *fake_virtio_create(struct kunit *test, u32 device_id)
{
	struct fake_virtio *fake = kzalloc(sizeof(*fake), GFP_KERNEL);
	static atomic_t count;
	char name[24];

	KUNIT_ASSERT_NOT_NULL(test, fake);
	fake->test = test;
	fake->features = BIT_ULL(VIRTIO_F_VERSION_1);
	fake->config_len = sizeof(fake->config);
	fake->queue_size = 16;
	fake->ops = fake_ops;
	fake->vdev.id.device = device_id;
	spin_lock_init(&fake->interrupt);
	spin_lock_init(&fake->lock);
	INIT_LIST_HEAD(&fake->requests);
	init_waitqueue_head(&fake->wait);
	init_completion(&fake->released);
	complete(&fake->released);

	snprintf(name, sizeof(name), "fake-virtio.%d", atomic_inc_return(&count));
	fake->parent = kunit_device_register(test, name);
	if (IS_ERR(fake->parent)) {
		kfree(fake);
		KUNIT_FAIL_AND_ABORT(test, "cannot register the parent device");
	}
	dev_set_drvdata(fake->parent, fake);
	fake->resetter = kthread_run_worker(0, "fake_reset");
	if (IS_ERR(fake->resetter)) {
		kfree(fake);
		KUNIT_FAIL_AND_ABORT(test, "cannot start a thread");
	}
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, fake_destroy, fake));
	return fake;
}

int fake_virtio_plug(struct fake_virtio *fake)
{
	u32 device_id = fake->vdev.id.device;
	int error;

	memset(&fake->vdev, 0, sizeof(fake->vdev));
	fake->vdev.id.device = device_id;
	fake->vdev.id.vendor = VIRTIO_DEV_ANY_ID;
	fake->vdev.config = &fake->ops;
	fake->vdev.map = &fake_map_ops;
	fake->vdev.dev.parent = fake->parent;
	fake->vdev.dev.release = fake_release;
	fake->status = 0;
	atomic_set(&fake->mapped, 0);
	memset(fake->mappings, 0, sizeof(fake->mappings));
	fake->failed_nth = false;
	reinit_completion(&fake->released);

	error = register_virtio_device(&fake->vdev);
#ifdef CONFIG_FAULT_INJECTION
	fake->failed_nth = fake->fail_nth && !current->fail_nth;
	current->fail_nth = 0;
#endif
	if (error)
		put_device(&fake->vdev.dev);
	fake->plugged = !error;
	return error;
}

void fake_virtio_unplug(struct fake_virtio *fake)
{
	if (!fake->plugged)
		return;
	fake->plugged = false;
	unregister_virtio_device(&fake->vdev);

	if (wait_for_completion_timeout(&fake->released, msecs_to_jiffies(FAKE_LIMIT)))
		complete(&fake->released);	/* for fake_destroy() */
	else
		KUNIT_FAIL(fake->test, "a reference to the device is left");
	for (unsigned int i = 0; i < FAKE_QUEUES; i++)
		KUNIT_EXPECT_NULL(fake->test, fake->queues[i].vq);
	KUNIT_EXPECT_LE(fake->test, atomic_read(&fake->mapped), fake->may_keep);
}

bool fake_virtio_is_bound(struct fake_virtio *fake)
{
	return fake->plugged && device_is_bound(&fake->vdev.dev);
}

void fake_virtio_break(struct fake_virtio *fake)
{
	virtio_break_device(&fake->vdev);
}

void fake_virtio_needs_reset(struct fake_virtio *fake)
{
	unsigned long flags;

	spin_lock_irqsave(&fake->interrupt, flags);
	fake->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	virtio_config_changed(&fake->vdev);
	spin_unlock_irqrestore(&fake->interrupt, flags);
}

int fake_virtio_freeze(struct fake_virtio *fake)
{
	return virtio_device_freeze(&fake->vdev);
}

int fake_virtio_restore(struct fake_virtio *fake)
{
	return virtio_device_restore(&fake->vdev);
}

void fake_virtio_shutdown(struct fake_virtio *fake)
{
	device_lock(&fake->vdev.dev);
	fake->vdev.dev.bus->shutdown(&fake->vdev.dev);
	device_unlock(&fake->vdev.dev);
}

/* The host. */

u64 fake_virtio_now(struct fake_virtio *fake)
{
	unsigned long flags;
	u64 now;

	spin_lock_irqsave(&fake->lock, flags);
	now = ++fake->clock;
	spin_unlock_irqrestore(&fake->lock, flags);
	return now;
}

bool fake_virtio_has_request(struct fake_virtio *fake, unsigned int index)
{
	struct fake_queue *queue = &fake->queues[index];
	unsigned long flags;
	bool has;

	spin_lock_irqsave(&fake->lock, flags);
	has = queue->vq && queue->ring->has(queue);
	spin_unlock_irqrestore(&fake->lock, flags);
	return has;
}

struct fake_request *fake_virtio_try_take(struct fake_virtio *fake, unsigned int index)
{
	struct fake_queue *queue = &fake->queues[index];
	struct fake_request *request = kzalloc(sizeof(*request), GFP_KERNEL);
	bool valid = false;

	if (!request)
		return NULL;
	request->fake = fake;
	request->queue = index;
	request->mapped = virtio_has_feature(&fake->vdev, VIRTIO_F_ACCESS_PLATFORM);

	spin_lock_irq(&fake->lock);
	if (queue->vq)
		valid = queue->ring->take(queue, request);
	if (valid)
		list_add(&request->list, &fake->requests);
	spin_unlock_irq(&fake->lock);

	if (!valid) {
		kfree(request);
		return NULL;
	}
	return request;
}

struct fake_request *fake_virtio_take(struct fake_virtio *fake, unsigned int index)
{
	wait_event_timeout(fake->wait, fake_virtio_has_request(fake, index),
			   msecs_to_jiffies(FAKE_LIMIT));
	return fake_virtio_try_take(fake, index);
}

void fake_virtio_forget(struct fake_virtio *fake)
{
	struct fake_request *request, *next;
	LIST_HEAD(requests);

	spin_lock_irq(&fake->lock);
	list_splice_init(&fake->requests, &requests);
	spin_unlock_irq(&fake->lock);

	list_for_each_entry_safe(request, next, &requests, list) {
		list_del(&request->list);
		kfree(request);
	}
}

size_t fake_virtio_read(struct fake_request *request, void *data, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < request->readable && done < len; i++) {
		size_t part = min(len - done, request->out[i].iov_len);

		memcpy(data + done, request->out[i].iov_base, part);
		done += part;
	}
	return done;
}

/* Checks that the device writes to mapped memory, if the device uses mappings. */
static void fake_check_mapping(struct fake_request *request, void *memory)
{
	struct fake_virtio *fake = request->fake;

	if (request->mapped && fake->checks_mappings)
		KUNIT_EXPECT_NOT_NULL_MSG(fake->test, fake_mapping(fake, virt_to_phys(memory)),
					  "the device writes to memory that is not mapped");
}

size_t fake_virtio_write(struct fake_request *request, const void *data, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < request->writable && done < len; i++) {
		size_t part = min(len - done, request->in[i].iov_len);

		fake_check_mapping(request, request->in[i].iov_base);
		memcpy(request->in[i].iov_base, data + done, part);
		done += part;
	}
	return done;
}

/*
 * Returns how many slots of the ring the chain of this buffer has: those of the last request with
 * this id, which may be from an earlier queue, because a host keeps its requests after a reset.
 */
static unsigned int fake_slots(struct fake_virtio *fake, unsigned int index, u32 id)
{
	struct fake_request *request;

	list_for_each_entry(request, &fake->requests, list) {
		if (request->queue == index && request->id == id)
			return request->slots;
	}
	/* Arbitrary for a request that was never taken. */
	return 2;
}

void fake_virtio_used(struct fake_virtio *fake, unsigned int index, u32 id, u32 len)
{
	struct fake_queue *queue = &fake->queues[index];
	unsigned long flags;

	spin_lock_irqsave(&fake->lock, flags);
	/* Without a ring there is no used element to write. */
	if (queue->vq)
		queue->ring->use(queue, id, len, fake_slots(fake, index, id));
	spin_unlock_irqrestore(&fake->lock, flags);
}

void fake_virtio_interrupt(struct fake_virtio *fake, unsigned int index)
{
	unsigned long flags;

	spin_lock_irqsave(&fake->interrupt, flags);
	if (fake->queues[index].vq)
		vring_interrupt(0, fake->queues[index].vq);
	spin_unlock_irqrestore(&fake->interrupt, flags);
}

void fake_virtio_answer(struct fake_request *request, const void *data, size_t len)
{
	fake_virtio_write(request, data, len);
	fake_virtio_used(request->fake, request->queue, request->id, len);
	fake_virtio_interrupt(request->fake, request->queue);
}
