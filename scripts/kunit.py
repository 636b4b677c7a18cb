# SPDX-License-Identifier: GPL-2.0
"""Run the KUnit suites and doctests under UML, with the kernel's own kunit.py."""

import json
import os
import re
import sys

import build_cache
import kernel_source
import packages
import settings
import steps
import toolchain

# The driver's options, and those that the suites on fake devices add.
CONFIGS = ("drivers/nvdimm/virtio_pmem_rust/.kunitconfig", "drivers/nvdimm/tests/.kunitconfig")

# Seconds for the whole run, which takes a minute on an idle machine.
LIMIT = 3600

# Time passes only while all tasks sleep, so timeouts cost nothing but their timer ticks, and random
# tests can be repeated. KUnit must not count that time.
ARGS = ("time-travel=inf-cpu", "kunit.timeout=1000000", "kmemleak.verbose=1",
        "virtio_pmem_rust.timeout=60", "virtio_pmem_rust.resend_after=300")

# The kernel's own reports of faults. Excluded are those of its tests that have timers on the stack,
# and those at boot, where kmemleak does not scan all of UML's memory.
COMPLAINT = re.compile(r"\bBUG: |WARNING: (?!lib/debugobjects\.c)|"
                       r"ODEBUG: (?!object .* NOT annotated)|kmemleak: +comm \"(?!swapper)|"
                       r"UBSAN: |kernel BUG at|Oops|Kernel panic|rust_kernel: panicked|"
                       r"blocked for more than|rcu.*detected.*stalls|suspicious RCU|"
                       r"general protection fault")


def counts(report):
    """Return how many tests passed and failed by kunit.py's report."""
    found = report["misc"]
    return found["passed"], found["failed"] + found["crashed"] + found["errors"]


def failures(group, path=()):
    """List the test cases in a report that did not pass, with the suites that they are in."""
    found = [f"{case['status']}: {'.'.join([*path, case['name']])}"
             for case in group["test_cases"] if case["status"] not in ("PASS", "SKIP")]
    for inner in group["sub_groups"]:
        found += failures(inner, (*path, inner["name"]))
    return found


def command(action, out):
    """Return the start of kunit.py's command line."""
    return [sys.executable, "tools/testing/kunit/kunit.py", action, "--arch", "um",
            "--build_dir", out]


def configured(action, kdir, out, tools, *, config=(), make=()):
    """Return kunit.py's command line for an action that configures the kernel."""
    words = command(action, out)
    for path in CONFIGS:
        words += ["--kunitconfig", path]
    for line in config:
        words += ["--kconfig_add", line]
    for word in (*toolchain.build_variables(kdir, out, tools), *make):
        words += ["--make_options", word]
    return words


def provide(name, kdir, out, tools, parts, *,  # pylint: disable=too-many-arguments
            config=(), make=(), before=lambda: None):
    """Provide parts of a UML kernel with the tests, with more for its configuration and make.

    before() is called if it is built.
    """
    words = [*configured("build", kdir, out, tools, config=config, make=make),
             "--jobs", os.cpu_count()]

    def build():
        before()
        with steps.step(f"build {name} (UML)"):
            steps.run(words, steps.log_path(f"{name}-build"), cwd=kdir)

    def inputs():
        return build_cache.key(kdir, tools, CONFIGS, config, make, parts)
    build_cache.provide(name, inputs, out, parts, build)


def execute(kdir, out, log, *args, only=()):
    """Run the tests of a UML kernel, with more arguments for it; return kunit.py's report.

    The kernel's own reports of faults count as an error in it.
    """
    report, console = out / "report.json", out / "test.log"
    for path in (report, console):
        path.unlink(missing_ok=True)
    words = [*command("exec", out), "--timeout", LIMIT, f"--json={report}"]
    for word in (*ARGS, *args):
        words += ["--kernel_args", word]
    trouble = None
    try:
        steps.run([*words, *only], log, cwd=kdir)
    except steps.Trouble as error:
        trouble = error
    found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else None
    if trouble and (found is None or not counts(found)[1]):
        raise trouble
    complaints = [line for line in console.read_text(errors="replace").splitlines()
                  if COMPLAINT.search(line)]
    for line in complaints[:20]:
        steps.say(line)
    if complaints:
        steps.say(f"log: {console}")
        found["misc"]["errors"] += 1
    return found


def random_seed():
    """Return the kernel's arguments that make the random tests begin with the given seed."""
    seed = settings.get("SEED")
    return [f"pmem_random_kunit.seed={seed}"] if seed else []


def only():
    """Return kunit.py's pattern of suites, if ONLY= gives one."""
    pattern = settings.get("ONLY")
    return [pattern] if pattern else []


def run():
    """Build and run; return how many passed and how many failed."""
    settings.arch()
    kernel_source.given()  # refuse a bad one first
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build")
        tools = toolchain.ready(kdir) | {"ARCH": "um"}
        out, log = settings.out("kunit"), steps.log_path("kunit")
        provide("kunit", kdir, out, tools, (".config", "linux"))
        with steps.step("kunit (UML)"):
            report = execute(kdir, out, log, *random_seed(), only=only())
    passed, failed = counts(report)
    for line in failures(report)[:20]:
        steps.say(line)
    if failed:
        steps.say(f"log: {log}")
    return passed, failed
