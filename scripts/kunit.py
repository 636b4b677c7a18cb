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
CONFIGS = ("drivers/nvdimm/virtio_pmem_rust/.kunitconfig", "tests/kunit/.kunitconfig")
LIMIT = 300


def counts(text):
    """Return how many tests passed and failed by kunit.py's last line, or None."""
    found = re.findall(r"Ran \d+ tests: (.*)", text)
    if not found:
        return None
    numbers = {name: int(value) for name, value in re.findall(r"(\w+): (\d+)", found[-1])}
    bad = sum(numbers.get(name, 0) for name in ("failed", "crashed", "errors"))
    return numbers.get("passed", 0), bad


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
        command = [
            sys.executable, "tools/testing/kunit/kunit.py", "run", "--arch", "um",
            "--build_dir", out, "--jobs", os.cpu_count(), "--timeout", LIMIT,
            # Time passes only while everybody sleeps: nobody waits for a timeout, and random tests
            # can be repeated. KUnit must not count that time.
            "--kernel_args", "time-travel=inf-cpu", "--kernel_args", "kunit.timeout=1000000",
        ]
        for config in CONFIGS:
            command += ["--kunitconfig", config]
        for word in toolchain.variables(tools):
            command += ["--make_options", word]
        with steps.step("kunit (UML)"):
            trouble = None
            try:
                steps.run(command, log, cwd=kdir)
            except steps.Trouble as error:
                trouble = error
    text = log.read_text(errors="replace")
    found = counts(text)
    if found is None:
        raise trouble or steps.Trouble(f"kunit.py did not say how many tests ran\n"
                                       f"{steps.tail(log)}")
    passed, failed = found
    if trouble:
        failed = max(failed, 1)
        for line in re.findall(r"^.*(?:\[FAILED\]|\[CRASHED\]|not ok).*$", text, re.M)[:20]:
            steps.say(line)
        steps.say(f"log: {log}")
    return passed, failed


def main():
    """Report by exit status."""
    passed, failed = run()
    print(f"kunit: {passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    steps.main(main)
