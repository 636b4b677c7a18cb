# SPDX-License-Identifier: GPL-2.0
"""The kernel's fault injection: allocations with a module's code on their stack fail."""

import re

import steps


def text_of(machine, module):
    """Return the start and the end of a loaded module's code."""
    (file,) = machine.kernel.out.glob(f"modules/lib/modules/*/kernel/**/{module}.ko")
    size = re.search(r"\] \.text +PROGBITS +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) ",
                     steps.output(["readelf", "-WS", file]))
    start = int(machine.sh(f"cat /sys/module/{module}/sections/.text"), 16)
    return start, start + int(size[1], 16)


def prepare(machine, name, text, settings):
    """Have an injection fail allocations below a module's code, from when it gets a probability."""
    settings = {"require-start": f"{text[0]:#x}", "require-end": f"{text[1]:#x}",
                "stacktrace-depth": 32, "task-filter": "N", "verbose": 0, **settings}
    machine.sh("\n".join(f"echo {value} >/sys/kernel/debug/{name}/{setting}"
                         for setting, value in settings.items()))


def set_probability(machine, names, percent):
    """Start the injections, or stop them with 0."""
    machine.sh("\n".join(f"echo {percent} >/sys/kernel/debug/{name}/probability"
                         for name in names))
