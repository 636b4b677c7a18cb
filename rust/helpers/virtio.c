// SPDX-License-Identifier: GPL-2.0

#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

/* With VIRTIO=m these functions call into a module, which vmlinux cannot. */
#if IS_BUILTIN(CONFIG_VIRTIO)

__rust_helper bool rust_helper_virtio_device_trylock(struct virtio_device *vdev)
{
	return device_trylock(&vdev->dev);
}

__rust_helper void rust_helper_virtio_device_unlock(struct virtio_device *vdev)
{
	device_unlock(&vdev->dev);
}

__rust_helper bool rust_helper_virtio_test_bit(const struct virtio_device *vdev,
					       unsigned int fbit)
{
	return __virtio_test_bit(vdev, fbit);
}

__rust_helper void rust_helper_virtio_clear_bit(struct virtio_device *vdev,
						unsigned int fbit)
{
	__virtio_clear_bit(vdev, fbit);
}

__rust_helper int rust_helper_virtio_find_vqs(struct virtio_device *vdev,
					      unsigned int nvqs,
					      struct virtqueue *vqs[],
					      struct virtqueue_info info[],
					      struct irq_affinity *affinity)
{
	return virtio_find_vqs(vdev, nvqs, vqs, info, affinity);
}

__rust_helper void rust_helper_virtio_synchronize_cbs(struct virtio_device *vdev)
{
	virtio_synchronize_cbs(vdev);
}

__rust_helper void rust_helper_virtio_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

__rust_helper bool rust_helper_virtio_get_shm_region(struct virtio_device *vdev,
						     struct virtio_shm_region *region,
						     u8 id)
{
	return virtio_get_shm_region(vdev, region, id);
}

__rust_helper void rust_helper_sg_set_page(struct scatterlist *sg, struct page *page,
					   unsigned int len, unsigned int offset)
{
	sg_set_page(sg, page, len, offset);
}

__rust_helper void rust_helper_virtio_cread_many(struct virtio_device *vdev,
						 unsigned int offset, void *buf,
						 size_t count, size_t bytes)
{
	__virtio_cread_many(vdev, offset, buf, count, bytes);
}

#endif /* IS_BUILTIN(CONFIG_VIRTIO) */
