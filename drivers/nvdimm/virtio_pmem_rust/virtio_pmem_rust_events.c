// SPDX-License-Identifier: GPL-2.0
/*
 * The bodies of the driver's trace events, which only C can make.
 */

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/virtio_pmem.h>
