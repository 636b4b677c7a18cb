# SPDX-License-Identifier: GPL-2.0
"""Run the tests, all or by part, and count them."""

import functools
import os
import re
import sys
import xml.etree.ElementTree

import boot
import coverage
import device_table
import kernel as kernels
import kernel_source
import kunit
import packages
import python_env
import settings
import spec
import steps
import toolchain
import xfstests


def cargo_test(name):
    """Run the tests of the crate in a directory of tests/."""
    cargo = toolchain.cargo()
    log = steps.log_path(name)
    manifest = settings.TESTS / name / "Cargo.toml"
    with steps.step(name):
        trouble = None
        try:
            steps.run([cargo, "test", "--release", "--locked", "--manifest-path", manifest,
                       "--target-dir", settings.BUILD / name, "--", "--show-output"], log,
                      env={"LONG": settings.get("LONG")})
        except steps.Trouble as error:
            trouble = error
    found = re.findall(r"^test result: .*? (\d+) passed; (\d+) failed", log.read_text(), re.M)
    for line in re.findall(r"^regret: (.*)", log.read_text(), re.M):
        steps.say(line)
    if trouble:
        steps.say(f"error: {trouble}")
    passed = sum(int(good) for good, _ in found)
    failed = sum(int(bad) for _, bad in found)
    return passed, max(failed, 1) if trouble else failed


def pytest(name, folder, *options):
    """Run the tests in a directory with pytest."""
    report = settings.BUILD / f"{name}.xml"
    report.unlink(missing_ok=True)
    log = steps.log_path(name)
    trouble = None
    python = python_env.python()
    # Other tools do not get the variables of make; the tests use them.
    variables = {name: os.environ[name] for name in settings.VARIABLES if name in os.environ}
    with steps.step(name):
        try:
            steps.run([python, "-m", "pytest", "-v", "-p", "no:cacheprovider",
                       f"--junitxml={report}", *options, folder], log, cwd=settings.ROOT,
                      env=variables)
        except steps.Trouble as error:
            trouble = error
    if not report.exists():
        raise trouble
    suites = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests"))
        failed += int(suite.get("failures")) + int(suite.get("errors"))
        skipped += int(suite.get("skipped"))
    for line in log.read_text(errors="replace").splitlines():
        if re.match(r"(FAILED|ERROR) ", line):
            steps.say(line)
    if trouble:
        steps.say(f"log: {log}")
        failed = max(failed, 1)
    return max(total - failed - skipped, 0), failed


def scripts():
    """Run the tools' own tests."""
    packages.need("test")
    return pytest("scripts", settings.TESTS / "scripts")


def builds():
    """Configure, and with LONG=1 build, the kernels that users may have."""
    kernel_source.given()  # refuse a bad one first
    packages.need("build")
    return pytest("builds", settings.TESTS / "builds")


def in_guests(part, folder, kernel, *options):
    """Run the tests in a directory that boot guests with a kernel."""
    built = kernels.ready(kernel)
    # Guests wait more than they compute. guest.py describes the faults of QEMU's emulation that hit
    # about one guest in fifty.
    return pytest(part, settings.TESTS / folder, f"--built={built.out}",
                  "-n", str(min(os.cpu_count(), 4)), "--reruns=2",
                  "--only-rerun=stale breakpoint", "--only-rerun=wrong clock", *options)


def guests(part, kernel, *options):
    """Run the tests in guests, those that are for this kernel."""
    # Tests share a guest within their module only.
    return in_guests(part, "boot", kernel, "--dist=loadscope", *options)


def devices(part):
    """Run the tests on the project's own device, and write a table of what passed."""
    toolchain.cargo()
    counts = in_guests(part, "devices", "release", "--dist=loadgroup")
    steps.say(f"table: {device_table.write(settings.BUILD / f'{part}.xml')}")
    return counts


def elsewhere(part, name, *others):
    """Run a part; with LONG=1 also with other variables, unless the user has given one of them."""
    counts = [part(name)]
    if not settings.flag("LONG") or any(os.environ.get(variable) for variable, _ in others):
        return counts[0]
    for variable, value in others:
        os.environ[variable] = value
        try:
            counts.append(part(f"{name}-{value}"))
        finally:
            del os.environ[variable]
    return tuple(map(sum, zip(*counts, strict=True)))


def boot_test():
    """Run the tests in guests."""
    return elsewhere(lambda name: guests(name, "release", "-rs"), "boot-test",
                     ("QEMU", "10.0"), ("QEMU", "11.1"), ("ARCH", "arm64"))


def crash():
    """Check the images that a power failure could have left."""
    # The workers' guests compute all the time. One operation comes before two.
    counts = in_guests("crash", "crash", "release", "-rP", "--dist=load", "--maxschedchunk=1",
                       "-n", str(min(os.cpu_count(), 2)))
    for line in re.findall(r"^crash: (.*)", steps.log_path("crash").read_text(), re.M):
        steps.say(line)
    return counts


PARTS = {
    "model": functools.partial(cargo_test, "model"),
    "concurrency": functools.partial(cargo_test, "concurrency"),
    "scripts": scripts,
    "kunit": kunit.run,
    "builds": builds,  # continues the build for KUnit
    "coverage": coverage.run,
    "boot": boot.run,
    "boot-test": boot_test,
    "devices": functools.partial(elsewhere, devices, "devices", ("ARCH", "arm64")),
    "crash": crash,
    "only-debug": functools.partial(guests, "only-debug", "debug", "-m", "only_debug"),
    "debug-test": functools.partial(guests, "debug-test", "debug"),
    "module-test": functools.partial(guests, "module-test", "debian", "-rs"),
    "xfstests": xfstests.optional,
    "spec": spec.run,  # the last: it reads the others' results
}


def wanted():
    """List the parts that run when none is named, the quick ones first."""
    # debug-test contains only-debug, and takes long.
    out = {"only-debug"} if settings.flag("LONG") else {"debug-test", "xfstests"}
    return [name for name in PARTS if name not in out]


def main():
    """Run the parts that the command line names, or all."""
    # Refuse bad values before a kernel is built.
    settings.flag("LONG")
    settings.flag("NO_INSTALL")
    settings.number("SEED")
    names = sys.argv[1:] or wanted()
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    passed = failed = 0
    spec.forget(sys.argv[1:] or PARTS)
    for name in names:
        try:
            good, bad = PARTS[name]()
        except settings.BadSetting:
            raise
        except (steps.Trouble, OSError) as error:
            steps.say(f"error: {name}: {error}")
            good, bad = 0, 1
        print(f"{name}: {good} passed, {bad} failed", flush=True)
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    steps.main(main)
