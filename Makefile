# SPDX-License-Identifier: GPL-2.0
# A thin front: each target is a tool under scripts/. 'make help' lists targets and variables.

# The tools read variables from the environment, to which make adds those of its command line. In
# these two a dollar sign stays as it is; in all others make's own rule holds: $$ for one.
override RUN := $(value RUN)
override QEMU_ARGS := $(value QEMU_ARGS)
export RUN QEMU_ARGS
export PYTHONDONTWRITEBYTECODE := 1

tool = @sh scripts/python.sh scripts/

.DEFAULT_GOAL := help
# All targets.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):$$/\1/p' Makefile)

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile
	@NO_INSTALL=1 sh scripts/python.sh scripts/settings.py

#: Targets:
#:   boot        write files in a guest, kill it, find them in a second guest
boot:
	$(tool)boot.py

#:   shell       a guest with a shell on its console
shell:
	$(tool)guest.py --shell

#:   guest       run RUN='command line' or SCRIPT=file in a guest; prints only its output, and
#:               fails if it fails
guest:
	$(tool)guest.py

#:   kernel      fetch, graft and build a kernel (KERNEL=)
kernel:
	$(tool)kernel.py

#:   source      fetch and graft the kernel source, and print where it is
source:
	$(tool)kernel_source.py

#:   apply       graft the overlay onto your own tree, KDIR=, and list the changes
apply:
	$(tool)apply.py

#:   series      write the series as mails to build/series/, with a cover letter and recipients
#:               (CHECK=1: apply them to a pristine tree and build each commit; an hour)
series:
	$(tool)series.py

#:   unapply     remove the overlay from KDIR=, to the last byte
unapply:
	$(tool)apply.py --remove

#:   module      the driver as a module for a distribution's own kernel, KERNEL_RELEASE= or the
#:               running one, which needs no rebuild
module:
	$(tool)module.py

#:   deb         the same as a package for DKMS, which builds it when it is installed
deb:
	$(tool)deb.py

#:   test        model, concurrency, scripts-test, kunit, builds, coverage, boot, boot-test,
#:               devices, crash, only-debug (LONG=1: debug-test, xfstests), module-test and spec,
#:               each after its set-up; the last line counts the tests
test:
	$(tool)run_tests.py

#:   model       the flush engine's host tests (two minutes)
model:
	$(tool)run_tests.py model

#:   concurrency  the flush path with several threads on the host, and memory orders (a minute)
concurrency:
	$(tool)run_tests.py concurrency

#:   scripts-test  the tests of the tools (seconds)
scripts-test:
	$(tool)run_tests.py scripts

#:   builds      configure many kinds of kernels with the driver (LONG=1: build them), compile what
#:               the editors' project files describe, and examples that must fail (minutes)
builds:
	$(tool)run_tests.py builds

#:   kunit       KUnit suites and doctests under UML (a minute, after its build)
kunit:
	$(tool)run_tests.py kunit

#:   coverage    the lines and functions that the KUnit tests reach (minutes)
coverage:
	$(tool)run_tests.py coverage

#:   mutants     whether the model, KUnit and loom find faults that are put into the driver and the
#:               abstractions, one by one (hours; LIMIT=, MINUTES=, ONLY=; continues where it ended)
mutants:
	$(tool)mutants.py

#:   boot-test   tests in guests (minutes; LONG=1: also under QEMU 10.0 and 11.1, and on arm64)
boot-test:
	$(tool)run_tests.py boot-test

#:   devices     tests in guests on a device of the project's own, with the behaviour of several
#:               hosts, under a QEMU 11.1 that is fetched; a table is in build/devices.md
#:               (minutes; LONG=1: all combinations, also on arm64)
devices:
	$(tool)run_tests.py devices

#:   crash       check each image that a power failure could leave of a few operations (a minute;
#:               LONG=1: of each operation on each kind of disk, half an hour)
crash:
	$(tool)run_tests.py crash

#:   only-debug  tests that need a kernel with KASAN, lockdep and fault injection (minutes, after
#:               its build)
only-debug:
	$(tool)run_tests.py only-debug

#:   debug-test  these, and tests that gain from such a kernel (LONG=1: all)
debug-test:
	$(tool)run_tests.py debug-test

#:   module-test  the driver as a module in guests on Debian's own kernel (minutes; LONG=1: all)
module-test:
	$(tool)run_tests.py module-test

#:   xfstests    thirty cases of xfstests (GROUP=quick: all of this group) on both drivers; fails
#:               where the one in Rust is worse (XFSTESTS=: the suite; an hour)
xfstests:
	$(tool)xfstests.py

#:   spec        check that the tests of each promise in SPECIFICATION.md have run and passed
spec:
	$(tool)run_tests.py spec

#:   bench       the Rust driver beside the C driver and virtio-blk: a table, the targets,
#:               build/bench/bench.json and bench.svg (half an hour; QUICK=1: half of that)
bench:
	$(tool)bench.py

#:   bench-striped  fsync on a striped disk of two devices, under both drivers (JOBS=, DELAYS=,
#:               ROUNDS=, KERNEL=; minutes)
bench-striped:
	$(tool)bench_striped.py

#:   litmus      the memory orders that durability rests on, in the kernel's memory model (HERD7=)
litmus:
	$(tool)litmus.py

#:   lint        rustfmt, clippy, checkpatch, shellcheck, ruff (QUICK=1: without clippy)
lint:
	$(tool)lint.py

#:   rust-analyzer  write rust-project.json, and compile_commands.json for clangd: an editor finds
#:               its way through these files and into the kernel (minutes)
rust-analyzer:
	$(tool)editor.py

#:   bump        try Debian's newest kernel source, and pin it (scripts/kernel.pin) if the driver
#:               works there
bump:
	$(tool)bump.py

#:   clean       remove build/ with the kernel source in it; downloads and finished kernels stay
#:               in the cache
clean:
	rm -rf build rust-project.json compile_commands.json
