# SPDX-License-Identifier: GPL-2.0
"""The project's own Python environment, with the packages of tests/requirements.txt."""

import sys

import packages
import settings
import steps

REQUIREMENTS = settings.TESTS / "requirements.txt"


def python():
    """Return the interpreter of the environment; create or update it first if it is stale."""
    folder = settings.BUILD / "venv"
    interpreter, stamp = folder / "bin/python", folder / "requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="ascii")
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted \
            and steps.output([interpreter, "-c", ""]) is not None:
        return interpreter
    if steps.output([sys.executable, "-c", "import ensurepip, venv"]) is None:
        packages.install(["python3-venv"])
    log = steps.log_path("venv")
    with steps.step("python environment"):
        steps.run([sys.executable, "-m", "venv", "--clear", folder], log)
        steps.run([interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                   "-r", REQUIREMENTS], log, append=True)
        stamp.write_text(wanted, encoding="ascii")
    return interpreter
