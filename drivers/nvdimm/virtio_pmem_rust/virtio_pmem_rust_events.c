// SPDX-License-Identifier: GPL-2.0
/*
 * What can be defined in C only: the driver's trace events, the module's version, and parameters
 * that are strings.
 */

#include <linux/module.h>
#include <linux/moduleparam.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/virtio_pmem.h>

MODULE_VERSION("0.11");

/* Does not change once the module has been loaded, or the kernel has parsed its command line. */
char *virtio_pmem_rust_read_only;
module_param_named(read_only, virtio_pmem_rust_read_only, charp, 0444);
MODULE_PARM_DESC(read_only,
		 "Devices whose memory is never written to: \"all\", or names of virtio devices or their transports, separated by commas");
