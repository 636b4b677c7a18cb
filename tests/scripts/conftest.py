# SPDX-License-Identifier: GPL-2.0
"""No variables of make, except those that a test sets."""

import pytest

import settings


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch):
    """Remove variables that were given to the run as a whole."""
    for name in settings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
