# SPDX-License-Identifier: GPL-2.0
"""Measure which lines and functions of the driver and the abstractions the KUnit tests reach.

The Rust code is compiled with LLVM's counters, runs under UML, and writes them to a file when it
halts. A kernel has no profiler runtime, so this tool does its part: it writes the counters and the
compiler's notes about them as a raw profile, which llvm-profdata reads.
"""

import os
import re
import shutil
import struct
import sys
from collections import defaultdict
from pathlib import Path

import build_cache
import graft
import kernel_source
import kunit
import packages
import settings
import steps
import toolchain

# A function that is inlined into another crate has no counters of its own.
FLAGS = ("-Cinstrument-coverage -Zno-profiler-runtime -Zinline-mir=no "
         "-Zcross-crate-inline-threshold=never")
# The objects with counters. Generic code is compiled into its users. The counts of an inline
# function are with its callers, and llvm-cov may use the first object's only.
OBJECTS = ("drivers/nvdimm/virtio_pmem_rust/virtio_pmem_rust_main.o",
           "drivers/virtio/tests/virtio_rust_queues.o",
           "rust/doctests_kernel_generated.o", "rust/kernel.o")
REASONS = settings.TESTS / "uncovered"
WANTED = 90  # percent of the lines
# The raw profile since LLVM 19: a record begins with six words and its number of counters.
OLDEST_LLVM, RAW_VERSION, RECORD, LAST_VALUE_KIND = 19, 10, struct.Struct("<48xI12x"), 2
# With a fixed seed the random tests reach the same code each time.
RANDOM = ("pmem_random_kunit.seed=1", "pmem_random_kunit.runs=500")


def measured(tree):
    """List the Rust files that the overlay copies, without those that only tests use."""
    return [name for name in sorted(tree.copied)
            if name.endswith(".rs") and name.startswith(("drivers/", "rust/kernel/"))
            and not name.endswith("/testing.rs") and "/tests/" not in name]


def tests_begin(path):
    """Return the number of the line at which a file's own tests begin."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#[kunit_tests("):
            return number
    return sys.maxsize


# The profile

def check_versions(tools):
    """Refuse an LLVM that writes or reads another profile."""
    for name, command in (("RUSTC", [tools["RUSTC"], "-vV"]),
                          ("LLVM", [toolchain.llvm_tool(tools["LLVM"], "llvm-profdata"),
                                    "--version"])):
        version = re.search(r"LLVM version:? (\d+)", steps.output(command) or "")
        if not version or int(version[1]) < OLDEST_LLVM:
            raise steps.Trouble(f"{command[0]} is not of LLVM {OLDEST_LLVM} or newer, which "
                                f"coverage needs: give another with {name}=")


def sections(llvm, program, names):
    """Return the address and content of sections of a program."""
    text = steps.output([toolchain.llvm_tool(llvm, "llvm-readelf"), "--wide", "--sections",
                         program])
    found = {}
    data = Path(program).read_bytes()
    for line in (text or "").splitlines():
        match = re.match(r"\s*\[\s*\d+\]\s+(\S+)\s+\S+\s+([0-9a-f]+)\s+([0-9a-f]+)\s+([0-9a-f]+)",
                         line)
        if match and match[1] in names:
            address, offset, size = (int(word, 16) for word in match.groups()[1:])
            found[match[1]] = address, data[offset:offset + size]
    missing = set(names) - set(found)
    if missing:
        raise steps.Trouble(f"{program} has no {', '.join(sorted(missing))}: it was built without "
                            f"counters; remove {program.parent}, and it is built again")
    return {name: found[name] for name in names}


def profile(llvm, program, counters):
    """Return the raw profile that LLVM's runtime would have written: a header and the sections."""
    found = sections(llvm, program, ("__llvm_prf_data", "__llvm_prf_cnts", "__llvm_prf_names"))
    (start, data), (counters_start, room), (names_start, names) = found.values()
    if len(counters) != len(room):
        raise steps.Trouble(f"the run has written {len(counters)} bytes of counters, not "
                            f"{len(room)}: see {program.parent / 'test.log'}")
    if len(data) % RECORD.size or \
            8 * sum(number for (number,) in RECORD.iter_unpack(data)) != len(room):
        raise steps.Trouble(f"rustc's LLVM writes other records than LLVM {OLDEST_LLVM}'s: use an "
                            "older RUSTC=, or adapt scripts/coverage.py")
    header = struct.pack(
        "<8s15Q", b"\x81rforpl\xff", RAW_VERSION,
        0,  # build IDs
        len(data) // RECORD.size, 0, len(counters) // 8, 0,  # the zeros are padding
        0, 0,  # bitmaps
        len(names), (counters_start - start) % (1 << 64), 0, names_start,
        0, 0,  # tables of virtual functions
        LAST_VALUE_KIND)
    return header + data + counters + names + b"\0" * (-len(names) % 8)


# The report

class Reached:
    """How often the lines and functions of one file were run."""

    def __init__(self):
        self.lines = defaultdict(int)
        self.functions = defaultdict(int)  # by first line


def parse(text, wanted):
    """Read lcov's format; return the counts by file."""
    found, lines, current = {}, {}, None
    for line in text.splitlines():
        kind, _, rest = line.partition(":")
        if kind == "SF":
            name = next((name for name in wanted if rest.endswith(name)), None)
            current = found.setdefault(name, Reached()) if name else None
            lines = {}
        elif current is None:
            continue
        elif kind == "FN":
            number, name = rest.split(",", 1)
            lines[name] = int(number)
        elif kind == "FNDA":
            count, name = rest.split(",", 1)
            current.functions[lines[name]] += int(count)
        elif kind == "DA":
            number, count = map(int, rest.split(",")[:2])
            current.lines[number] += count
    return found


def readable(path, line):
    """Return the name of the function that begins at a line of a file."""
    prefix = ""
    for text in reversed(path.read_text().splitlines()[:line]):
        match = re.search(r"\bfn (\w+)", text)
        if match:
            return prefix + match[1]
        prefix = "closure in "
    return f"line {line}"


def reasons():
    """Return the reasons for functions that are not covered, as {(file, function): reason}."""
    found = {}
    for line in REASONS.read_text().splitlines():
        if line and not line.startswith("#"):
            place, _, reason = line.partition(": ")
            found[tuple(place.split(" ", 1))] = reason
    return found


def report(kdir, names, found):
    """Print the table; return the number of complaints."""
    known, used, bad = reasons(), set(), 0
    total = [0, 0, 0, 0]
    print(f"{'lines':>16} {'functions':>16}")
    for name in names:
        reached = found.get(name, Reached())
        end = tests_begin(kdir / name)
        lines = [count for number, count in reached.lines.items() if number < end]
        functions = {number: count for number, count in reached.functions.items() if number < end}
        row = [sum(map(bool, lines)), len(lines),
               sum(map(bool, functions.values())), len(functions)]
        total = [a + b for a, b in zip(total, row, strict=True)]
        print_row(row, name)
        for number in sorted(number for number, count in functions.items() if not count):
            place = (name, readable(kdir / name, number))
            used.add(place)
            reason = known.get(place)
            bad += not reason
            print(f"{'':34} not run: {place[1]}: {reason or 'no reason is given'}")
    print_row(total, "in all")
    for place in sorted(set(known) - used):
        print(f"{REASONS.name}: {' '.join(place)} is covered, or does not exist: delete the line")
        bad += 1
    if total[0] * 100 < WANTED * total[1]:
        print(f"less than {WANTED} % of the lines")
        bad += 1
    return bad


def print_row(row, name):
    """Print one line of the table."""
    words = [f"{part}/{whole} {part * 100 // whole if whole else 100:3} %"
             for part, whole in (row[:2], row[2:])]
    print(f"{words[0]:>16} {words[1]:>16}  {name}")


def begin(out):
    """Begin a build without objects with those of the KUnit build: all but Rust's are the same."""
    source, new = settings.out("kunit"), out.with_name(f".copy-{out.name}")
    if (out / "vmlinux.o").exists() or not (source / "vmlinux.o").exists():
        return
    with steps.step("copy the KUnit build"):
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source, new, symlinks=True)
        (new / build_cache.STAMP).unlink(missing_ok=True)
        shutil.rmtree(out)
        os.replace(new, out)


def run():
    """Build, run and report; return how many passed and how many failed."""
    settings.arch()
    kernel_source.given()  # refuse a bad one first
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build")
        tools = toolchain.ready(kdir) | {"ARCH": "um"}
        check_versions(tools)
        out, log = settings.out("coverage"), steps.log_path("coverage")
        kunit.provide("coverage", kdir, out, tools, (".config", "linux", *OBJECTS),
                      config=["CONFIG_RUST_COVERAGE=y"],
                      make=[f"RUSTFLAGS_{Path(name).name}={FLAGS}" for name in OBJECTS],
                      before=lambda: begin(out))
        counters = out / "counters"
        counters.unlink(missing_ok=True)
        with steps.step("coverage (UML)"):
            failed = kunit.counts(kunit.execute(kdir, out, log, f"coverage.file={counters}",
                                                *RANDOM))[1]
        if failed:
            raise steps.Trouble(f"{failed} tests failed\nlog: {log}")
        llvm = tools["LLVM"]
        raw, binary = out / "coverage.profraw", out / "coverage.profdata"
        raw.write_bytes(profile(llvm, out / "linux", counters.read_bytes()))
        steps.run([toolchain.llvm_tool(llvm, "llvm-profdata"), "merge", "-o", binary, raw], log,
                  append=True)
        objects = [word for name in OBJECTS for word in ("--object", out / name)][1:]
        export = [toolchain.llvm_tool(llvm, "llvm-cov"), "export", "--format=lcov",
                  f"--instr-profile={binary}", *objects]
        lcov = steps.output(export)
        if not lcov:
            raise steps.Trouble(f"no report is printed by: {' '.join(map(str, export))}")
        (out / "coverage.lcov").write_text(lcov)
        names = measured(graft.Tree(kdir))
        bad = report(kdir, names, parse(lcov, names))
    return (0, 1) if bad else (1, 0)
