/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace events of the virtio-pmem driver in Rust.
 *
 * A caller arrives and joins a batch, and the batch may be held back for more callers. A flush is
 * sent to the host for the batch, the host answers it, and the callers of the batch are completed.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_pmem

#if !defined(_TRACE_VIRTIO_PMEM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_VIRTIO_PMEM_H

#include <linux/device.h>
#include <linux/tracepoint.h>

TRACE_EVENT(virtio_pmem_arrive,

	TP_PROTO(const struct device *dev, u64 batch, bool sleeps),

	TP_ARGS(dev, batch, sleeps),

	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, batch)
		__field(bool, sleeps)
	),

	TP_fast_assign(
		__assign_str(dev);
		__entry->batch = batch;
		__entry->sleeps = sleeps;
	),

	TP_printk("%s batch=%llu %s", __get_str(dev), __entry->batch,
		  __entry->sleeps ? "sync" : "bio")
);

TRACE_EVENT(virtio_pmem_gather,

	TP_PROTO(const struct device *dev, u64 batch, u32 callers, u32 expected),

	TP_ARGS(dev, batch, callers, expected),

	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, batch)
		__field(u32, callers)
		__field(u32, expected)
	),

	TP_fast_assign(
		__assign_str(dev);
		__entry->batch = batch;
		__entry->callers = callers;
		__entry->expected = expected;
	),

	TP_printk("%s batch=%llu callers=%u expected=%u", __get_str(dev), __entry->batch,
		  __entry->callers, __entry->expected)
);

TRACE_EVENT(virtio_pmem_send,

	TP_PROTO(const struct device *dev, u64 batch, u32 callers),

	TP_ARGS(dev, batch, callers),

	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, batch)
		__field(u32, callers)
	),

	TP_fast_assign(
		__assign_str(dev);
		__entry->batch = batch;
		__entry->callers = callers;
	),

	TP_printk("%s batch=%llu callers=%u", __get_str(dev), __entry->batch,
		  __entry->callers)
);

TRACE_EVENT(virtio_pmem_answer,

	TP_PROTO(const struct device *dev, u64 batch, u32 len, u32 status),

	TP_ARGS(dev, batch, len, status),

	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, batch)
		__field(u32, len)
		__field(u32, status)
	),

	TP_fast_assign(
		__assign_str(dev);
		__entry->batch = batch;
		__entry->len = len;
		__entry->status = status;
	),

	TP_printk("%s batch=%llu len=%u status=%#x", __get_str(dev), __entry->batch,
		  __entry->len, __entry->status)
);

TRACE_EVENT(virtio_pmem_complete,

	TP_PROTO(const struct device *dev, u64 batch, u32 callers, int error),

	TP_ARGS(dev, batch, callers, error),

	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, batch)
		__field(u32, callers)
		__field(int, error)
	),

	TP_fast_assign(
		__assign_str(dev);
		__entry->batch = batch;
		__entry->callers = callers;
		__entry->error = error;
	),

	TP_printk("%s batch=%llu callers=%u error=%d", __get_str(dev), __entry->batch,
		  __entry->callers, __entry->error)
);

#endif /* _TRACE_VIRTIO_PMEM_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
