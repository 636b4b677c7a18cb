# SPDX-License-Identifier: GPL-2.0
"""Run the KUnit suites and doctests under UML, with the kernel's own kunit.py."""

import os
import re
import sys

import kernel_source
import packages
import settings
import steps
import toolchain

# What the driver needs, and what the suites on fake devices add to it.
CONFIGS = ("drivers/nvdimm/virtio_pmem_rust/.kunitconfig", "drivers/nvdimm/tests/.kunitconfig")

# Seconds for the whole run, which takes a minute on an idle machine.
LIMIT = 3600

# What the kernel prints when it finds something wrong by itself. Not what it does at its own tests,
# where some have timers on the stack, nor when it boots: kmemleak does not see all of UML's memory.
COMPLAINT = re.compile(r"\bBUG: |WARNING: (?!lib/debugobjects\.c)|"
                       r"ODEBUG: (?!object .* NOT annotated)|kmemleak: +comm \"(?!swapper)")


def counts(text):
    """Return how many tests passed and failed by kunit.py's last line, or None."""
    found = re.findall(r"Ran \d+ tests: (.*)", text)
    if not found:
        return None
    numbers = {name: int(value) for name, value in re.findall(r"(\w+): (\d+)", found[-1])}
    bad = sum(numbers.get(name, 0) for name in ("failed", "crashed", "errors"))
    return numbers.get("passed", 0), bad


def command(tools, out, *, args=(), config=None, make=()):
    """Return kunit.py's command line, with more for the kernel, its configuration and make."""
    words = [
        sys.executable, "tools/testing/kunit/kunit.py", "run", "--arch", "um",
        "--build_dir", out, "--jobs", os.cpu_count(), "--timeout", LIMIT,
    ]
    # Time passes only while all tasks sleep, so timeouts cost nothing but their timer ticks, and
    # random tests can be repeated. KUnit must not count that time.
    for word in ("time-travel=inf-cpu", "kunit.timeout=1000000", "kmemleak.verbose=1",
                 "virtio_pmem_rust.timeout=60", *args):
        words += ["--kernel_args", word]
    for path in CONFIGS:
        words += ["--kunitconfig", path]
    if config:
        words += ["--kconfig_add", config]
    for word in (*toolchain.variables(tools), *make):
        words += ["--make_options", word]
    return words


def lives():
    """Return the kernel's arguments that have random lives begin with the seed that is given."""
    seed = settings.get("SEED")
    return [f"pmem_random_kunit.seed={seed}"] if seed else []


def only():
    """Return kunit.py's pattern for the suites that are wanted, if not all are."""
    pattern = settings.get("ONLY")
    return [pattern] if pattern else []


def run():
    """Build and run; return how many passed and how many failed."""
    settings.arch()
    kernel_source.given()  # a bad one is not worth waiting for
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build")
        tools = toolchain.ready(kdir) | {"ARCH": "um"}
        out = settings.out("kunit")
        out.mkdir(parents=True, exist_ok=True)
        log = steps.log_path("kunit")
        words = [*command(tools, out, args=lives()), *only()]
        with steps.step("kunit (UML)"):
            trouble = None
            try:
                steps.run(words, log, cwd=kdir)
            except steps.Trouble as error:
                trouble = error
    text = log.read_text(errors="replace")
    found = counts(text)
    if found is None:
        raise trouble or steps.Trouble(f"kunit.py did not say how many tests ran\n"
                                       f"{steps.tail(log)}")
    passed, failed = found
    complaints = [line for line in (out / "test.log").read_text(errors="replace").splitlines()
                  if COMPLAINT.search(line)]
    if complaints:
        failed += 1
        for line in complaints[:20]:
            steps.say(line)
        steps.say(f"log: {out / 'test.log'}")
    if trouble:
        failed = max(failed, 1)
        for line in re.findall(r"^.*(?:\[FAILED\]|\[CRASHED\]|not ok).*$", text, re.M)[:20]:
            steps.say(line)
        steps.say(f"log: {log}")
    return passed, failed
