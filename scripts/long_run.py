# SPDX-License-Identifier: GPL-2.0
"""A run of hours: a sample of it, a time to end, and results that outlive it."""

import hashlib
import json
import random
import time

import settings


def digest(*parts):
    """Return a digest of some values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


class Results:
    """Results by their keys, in a file with a line each."""

    def __init__(self, path):
        self.path, self.known = path, {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                key, *result = json.loads(line)
                self.known[key] = result

    def get(self, key):
        """Return the parts of a result, or None."""
        return self.known.get(key)

    def put(self, key, *result):
        """Add a result, or replace it."""
        self.known[key] = list(result)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps([key, *result]) + "\n")


def sample(found):
    """Return as many as LIMIT= says, the same for the same SEED=."""
    limit = settings.number("LIMIT")
    if not limit:
        return found
    seed = settings.number("SEED") or 1
    return random.Random(seed).sample(found, min(limit, len(found)))


def deadline():
    """Return the monotonic time at which MINUTES= are over."""
    minutes = settings.number("MINUTES")
    return time.monotonic() + 60 * minutes if minutes else float("inf")
