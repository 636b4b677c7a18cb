# SPDX-License-Identifier: GPL-2.0
"""Let the tests import the tools, and decide themselves which variables of make are given."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import settings  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch):
    """Whoever runs the tests may have given variables that are meant for others of them."""
    for name in settings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
