// SPDX-License-Identifier: GPL-2.0

#include "bio.c"
#include "nvdimm.c"
#include "virtio.c"
