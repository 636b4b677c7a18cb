# SPDX-License-Identifier: GPL-2.0
"""Try Debian's newest kernel source, and pin it if the overlay works there."""

import os
import shutil

import kernel
import kernel_source
import kunit
import settings
import steps

FOLDER = settings.BUILD / "bump"


def fetch(pinned):
    """Fetch and unpack the newest source; return it, or None if it is pinned."""
    with steps.alone():
        with steps.step("fetch the newest kernel source"):
            newest = kernel_source.newer(pinned)
        if newest is None:
            return None
        with steps.step(f"unpack {newest.name}"):
            kernel_source.unpack(newest.path, FOLDER / "linux")
    return newest


def broken():
    """List what fails on the tree that KDIR names, with the reasons."""
    try:
        kernel_source.given()
        with steps.alone():
            kernel_source.tree()
    except steps.Trouble as error:
        return [f"graft: {error}"]
    found = []
    try:
        kernel.ready("release")
    except steps.Trouble as error:
        found.append(f"release kernel: {error}")
    try:
        passed, failed = kunit.run()
        if failed or not passed:
            found.append(f"kunit: {passed} passed, {failed} failed")
    except steps.Trouble as error:
        found.append(f"kunit: {error}")
    return found


def main():
    """Report what breaks, or write the pin."""
    for name, why in (("KDIR", "fetches the source itself"), ("ONLY", "runs all tests"),
                      ("SEED", "runs the tests as make test does")):
        if settings.get(name):
            raise settings.BadSetting(f"{name}= is given: make bump {why}")
    pinned = kernel_source.read_pin()
    newest = fetch(pinned)
    if newest is None:
        print(f"{pinned.package} is the newest")
        return 0
    os.environ |= {"KDIR": str(FOLDER / "linux"), "O": str(FOLDER)}
    found = broken()
    for line in found:
        steps.say(f"error: {newest.package}: {line}")
    if found:
        return 1
    kernel_source.write_pin(newest)
    shutil.rmtree(FOLDER)
    print(f"{newest.package} is pinned, in place of {pinned.package}; run make test before you "
          "commit that")
    return 0


if __name__ == "__main__":
    steps.main(main)
