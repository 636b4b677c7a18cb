# SPDX-License-Identifier: GPL-2.0
"""Let the tests import the tools, and end a running build with them."""

import signal

import steps


def pytest_configure():
    """Let SIGTERM end the build, too."""
    signal.signal(signal.SIGTERM, steps.interrupted)
