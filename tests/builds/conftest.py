# SPDX-License-Identifier: GPL-2.0
"""Let the tests import the tools, and end a running build with them."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import steps  # noqa: E402


def pytest_configure():
    """Let SIGTERM end the build, too."""
    signal.signal(signal.SIGTERM, steps.interrupted)
