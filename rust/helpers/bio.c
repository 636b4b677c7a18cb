// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>

#ifdef CONFIG_BLOCK
__rust_helper bool rust_helper_bio_has_data(struct bio *bio)
{
	return bio_has_data(bio);
}
#endif
