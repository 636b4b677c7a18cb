// SPDX-License-Identifier: GPL-2.0
/*
 * The helpers that a kernel with the overlay has in its own rust/helpers/: whole files, and what
 * the patches add to the kernel's.
 */

#include <linux/bio.h>
#include <linux/hrtimer.h>
#include <linux/kmemleak.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#define __rust_helper

#include "../rust/helpers/bio.c"
#include "../rust/helpers/nvdimm.c"
#include "../rust/helpers/virtio.c"

/* With the overlay, the core does this. */
__rust_helper void rust_helper_virtio_device_lock(struct virtio_device *vdev)
{
	device_lock(&vdev->dev);
}

__rust_helper unsigned int rust_helper_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

__rust_helper void rust_helper_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

__rust_helper void rust_helper_kmemleak_ignore(const void *ptr)
{
	kmemleak_ignore(ptr);
}

__rust_helper void rust_helper_kmemleak_not_leak(const void *ptr)
{
	kmemleak_not_leak(ptr);
}

__rust_helper struct workqueue_struct *
rust_helper_alloc_ordered_workqueue(const char *name, unsigned int flags)
{
	return alloc_ordered_workqueue("%s", flags, name);
}

__rust_helper unsigned int rust_helper_hrtimer_get_resolution(void)
{
	return hrtimer_resolution;
}
