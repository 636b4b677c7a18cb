// SPDX-License-Identifier: GPL-2.0

#include <asm/barrier.h>
#include <linux/numa.h>

__rust_helper void rust_helper_pmem_wmb(void)
{
	pmem_wmb();
}

__rust_helper int rust_helper_memory_add_physaddr_to_nid(u64 start)
{
	return memory_add_physaddr_to_nid(start);
}

__rust_helper int rust_helper_phys_to_target_node(u64 start)
{
	return phys_to_target_node(start);
}
