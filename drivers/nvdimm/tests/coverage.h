/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _COVERAGE_H
#define _COVERAGE_H

#include <linux/compiler.h>

/* Defined by the linker if there is instrumented code. */
extern const char __start___llvm_prf_cnts[] __weak;
extern const char __stop___llvm_prf_cnts[] __weak;

#endif
