/* SPDX-License-Identifier: GPL-2.0 */
/* The C that the driver and its abstractions use, and the kernel's own crate does not. */

#include <linux/bio.h>
#include <linux/interrupt.h>
#include <linux/libnvdimm.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <trace/events/virtio_pmem.h>
#include <uapi/linux/virtio_pmem.h>

const size_t RUST_CONST_HELPER_ARCH_DMA_MINALIGN = ARCH_DMA_MINALIGN;
