// SPDX-License-Identifier: GPL-2.0
/*
 * What can be defined in C only: the driver's trace events, and the module's version.
 */

#include <linux/module.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/virtio_pmem.h>

MODULE_VERSION("0.11");
