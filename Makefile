# SPDX-License-Identifier: GPL-2.0
# A thin front: each target is a tool under scripts/. 'make help' lists targets and variables.

# The tools read these from the environment. In command lines a dollar sign is not for make, which
# passes it on as it is. In all other values make's own rule holds: $$ for one.
override RUN := $(value RUN)
override QEMU_ARGS := $(value QEMU_ARGS)
export KDIR ARCH RUSTC RUSTDOC RUSTFMT CLIPPY_DRIVER RUST_LIB_SRC BINDGEN LLVM O
export DRIVER KERNEL MEM SMP PMEM_SIZE QEMU_ARGS TIMEOUT RUN SCRIPT ACCEL QEMU NO_INSTALL
export FORCE LINK QUICK CHECK JOBS ROUNDS DELAYS LONG SEED ONLY
export PYTHONDONTWRITEBYTECODE := 1

tool = @sh scripts/python.sh scripts/

.DEFAULT_GOAL := help
.PHONY: help boot shell guest kernel apply unapply source test model scripts-test builds kunit boot-test debug-test lint clean

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

#: Targets:
#:   boot        write files in a guest, kill it, find them again in a second guest
boot:
	$(tool)boot.py

#:   shell       a guest with a shell on its console
shell:
	$(tool)guest.py --shell

#:   guest       run RUN='command line' or SCRIPT=file in a guest; prints the command's output
#:               alone, and fails when the command does
guest:
	$(tool)guest.py

#:   kernel      fetch, graft and build a kernel (KERNEL=)
kernel:
	$(tool)kernel.py

#:   source      fetch and graft the kernel source, and print where it is
source:
	$(tool)kernel_source.py

#:   apply       graft the overlay onto your own tree, KDIR=, and say what was changed
apply:
	$(tool)apply.py

#:   series      write the series as mails to build/series/, with a cover letter and recipients
#:               (CHECK=1: apply them to a pristine tree and build each commit; an hour)
.PHONY: series
series:
	$(tool)series.py

#:   unapply     take the overlay off KDIR= again, to the last byte
unapply:
	$(tool)apply.py --remove

#:   test        model, scripts-test, builds, kunit, coverage, boot, boot-test and only-debug
#:               (LONG=1: debug-test), each after its set-up; the last line counts the tests
test:
	$(tool)check.py

#:   model       the flush engine's host tests (seconds)
model:
	$(tool)check.py model

#:   scripts-test  the tests of the tools (seconds)
scripts-test:
	$(tool)check.py scripts

#:   builds      see that kernels of many configurations take the driver (LONG=1: build them)
builds:
	$(tool)check.py builds

#:   kunit       KUnit suites and doctests under UML (a minute, after its build)
kunit:
	$(tool)check.py kunit

#:   coverage    what the KUnit tests reach: lines and functions (minutes)
.PHONY: coverage
coverage:
	$(tool)check.py coverage

#:   boot-test   tests in guests (minutes)
boot-test:
	$(tool)check.py boot-test

#:   only-debug  those that need a kernel with KASAN, lockdep and fault injection (minutes, after
#:               its build)
.PHONY: only-debug
only-debug:
	$(tool)check.py only-debug

#:   debug-test  these, and those of the others that such a kernel is the better for (LONG=1: all)
debug-test:
	$(tool)check.py debug-test

#:   bench       the Rust driver beside the C driver and virtio-blk: a table, the targets,
#:               build/bench/bench.json and bench.svg (ten minutes; QUICK=1: two)
.PHONY: bench
bench:
	$(tool)bench.py

#:   lint        rustfmt, clippy, checkpatch, shellcheck, ruff
lint:
	$(tool)lint.py

#:   clean       remove build/ with the kernel source in it; the download stays in the cache
clean:
	rm -rf build

#:
#: Variables (make TARGET NAME=value):
#:   KDIR=DIR            kernel source; without it Debian's is fetched and verified
#:   FORCE=1             apply to a git tree with uncommitted changes
#:   LINK=1              apply links new files, so that an edit in the kernel tree is an edit here
#:   O=DIR               where kernels are built (build)
#:   ARCH=x86_64         the guests' architecture
#:   LLVM= RUSTC= RUSTDOC= RUSTFMT= CLIPPY_DRIVER= BINDGEN= RUST_LIB_SRC=
#:                       the toolchain, as for the kernel's make; without them it is searched for
#:   NO_INSTALL=1        name missing packages, install nothing
#:   KERNEL=release|debug    which kernel to build and boot (release)
#:   DRIVER=rust|c       which driver the guest loads; none: neither (rust)
#:   MEM=1G  SMP=2       the guest's memory and processors
#:   PMEM_SIZE=512M      the size of its virtio-pmem device
#:   QEMU_ARGS='...'     more arguments for QEMU
#:   QEMU=PROGRAM        which QEMU (qemu-system-x86_64)
#:   ACCEL=kvm|tcg       the accelerator; without it KVM if a guest really runs, else TCG
#:   QUICK=1             a short benchmark with rough figures; lint without clippy
#:   CHECK=1             bench fails when it clearly misses a target; series builds each commit
#:   JOBS='1 64'  DELAYS='0 2 10'  ROUNDS=3
#:                       what is measured: numbers of fio's jobs; by how many milliseconds each
#:                       of the host's fsyncs takes longer; how often
#:   LONG=1              run the long tests, too, and all on both kernels; those that decide at
#:                       random go on for long
#:   ONLY='PATTERN'      which KUnit suites run, or which of their cases: 'virtio_pmem_late.*'
#:   SEED=NUMBER         repeats the decisions of a random test, which names the number
#:   TIMEOUT=SECONDS     after which the guest is killed (600; debug kernel: 1800; shell: a day)
#:   XDG_CACHE_HOME=DIR  the kernel's download is kept in virtio-pmem-rust/ there (~/.cache)
