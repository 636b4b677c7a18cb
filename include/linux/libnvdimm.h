/* SPDX-License-Identifier: GPL-2.0 */

/**
 * DOC: Flushing by the provider of a region
 *
 * Stores to persistent memory are durable when they have left the CPU's caches,
 * unless the region is flagged %ND_REGION_ASYNC. The stores to such a region
 * are durable only after its provider has flushed them, by the @flush callback
 * that it gives in &struct nd_region_desc. Disks of a region that has both offer
 * FUA, but not MAP_SYNC.
 *
 * nvdimm_flush() calls it. A flush covers every store that was done before the
 * call, by whomever; a provider that has flushes in flight must not count on
 * one that began before the call. The callback begins with pmem_wmb(), since
 * stores of the calling CPU may otherwise be visible only after the flush.
 *
 * Who calls, always in process context, where sleeping is allowed:
 *
 * - Without a bio: the submission of a bio with %REQ_PREFLUSH and data, before
 *   the data is written; writes to the region's deep_flush attribute; the end
 *   of a namespace, be it removal or shutdown; writes to an info block, and in
 *   sector mode (BTT) every write to data, log and map, under a lane's and a
 *   map's lock. The callback returns when the flush is over.
 * - With a bio: the submission of a bio with %REQ_FUA, after its data has been
 *   written, and of one without data that has %REQ_PREFLUSH, %REQ_FUA or both.
 *   If the data could not be written, there is no flush.
 *
 * Write-back may depend on the bio, so an allocation must not wait for I/O
 * (%GFP_NOIO).
 *
 * What the callback may return:
 *
 * - 0: the flush is over. A bio remains the caller's, who completes it.
 * - A negative error code: the flush has failed. A bio remains the caller's,
 *   who completes it with the error. nvdimm_flush() keeps -ENOMEM and makes
 *   -EIO of all others. If a flush for %REQ_PREFLUSH fails, nothing of the
 *   bio's data is written.
 * - %NVDIMM_FLUSH_ASYNC, only if there is a bio: from the call on it is the
 *   provider's, even if it has been completed before the callback returned.
 *   Nobody else touches it any more.
 *
 * A bio that the provider has taken is completed exactly once, by bio_endio(),
 * after the flush is over, with &bio.bi_status set if that has failed. It must
 * be completed in a context that makes progress under memory pressure, such as
 * a work item on a queue with %WQ_MEM_RECLAIM. The block layer does not count
 * such bios: they may outlive the block device, the region and the bus, and it
 * is the provider who must complete all of them before it goes.
 */
