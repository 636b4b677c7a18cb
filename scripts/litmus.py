# SPDX-License-Identifier: GPL-2.0
"""Run tests/litmus/ with herd7 and the kernel's own memory model."""

import re

import kernel_source
import settings
import steps

FOLDER = settings.TESTS / "litmus"


def files():
    """List the litmus tests."""
    return sorted(FOLDER.glob("*.litmus"))


def expected(path):
    """Return the result that a litmus test names: Never or Sometimes."""
    return re.search(r"^ \* Result: (\w+)$", path.read_text(encoding="utf-8"), re.M)[1]


def observed(herd, model, path):
    """Return the result that herd7 finds, or None."""
    text = steps.output([herd, "-conf", "linux-kernel.cfg", path], cwd=model)
    match = re.search(r"^Observation \S+ (\w+) ", text or "", re.M)
    return match and match[1]


def run():
    """Run all; return how many passed and how many failed."""
    herd = settings.get("HERD7")
    if steps.output([herd, "-version"]) is None:
        raise steps.Trouble(f"no {herd}: Debian has no package of it; build "
                            "github.com/herd/herdtools7, 7.58 or newer, and give HERD7=")
    with steps.alone():
        model = kernel_source.tree() / "tools/memory-model"
    failed = 0
    for path in files():
        found = observed(herd, model, path)
        print(f"{path.stem}: {found}")
        if found != expected(path):
            print(f"{path.stem}: {expected(path)} is expected")
            failed += 1
    return len(files()) - failed, failed


def main():
    """Report by exit status."""
    passed, failed = run()
    print(f"litmus: {passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    steps.main(main)
