// SPDX-License-Identifier: GPL-2.0

#include <linux/kmemleak.h>

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
