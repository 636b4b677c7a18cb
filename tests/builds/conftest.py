# SPDX-License-Identifier: GPL-2.0
"""Let the tests import the tools, share the KUnit kernel's objects, and end a running build."""

import signal

import pytest

import build_cache
import editor
import settings
import steps


def pytest_configure():
    """Let SIGTERM end the build, too."""
    signal.signal(signal.SIGTERM, steps.interrupted)


@pytest.fixture(scope="session", name="prepared")
def make_prepared():
    """The overlay, the kernel's own project, and the commands of its builds."""
    out = settings.out("kunit")
    if (out / build_cache.STAMP).exists() and not (out / "rust/kernel.o").exists() \
            and not settings.flag("LONG"):
        pytest.skip("the KUnit kernel is a kept one, without objects; LONG=1 compiles them")
    return editor.prepare()
