# SPDX-License-Identifier: GPL-2.0
"""Make the table of README from the report of `make devices`: personality, transport, what passed.
"""

import re
import xml.etree.ElementTree

import device

# The tests of a column, by the beginning of their names.
COLUMNS = {
    "probe": "probe",
    "ext4, xfs": "file_system",
    "power cut": "power_cut",
    "rebind": "rebind",
    "reset": "reset",
    "suspend": "suspend",
    "64 jobs": "many_jobs",
    "read-only": "read_only|without_parameter",
    "bad answers": "answer|late|lost|hostile",
    "faults found": "mutant",
}

CASE = re.compile(rf"test_(\w+)\[({'|'.join(device.PERSONALITIES)})-"
                  rf"((?:{'|'.join(device.TRANSPORTS)})(?:-packed)?)")


def results(report):
    """Return {(personality, transport): {test: [whether it passed]}}, and the properties."""
    found, figures = {}, {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        match = CASE.match(case.get("name"))
        if not match or case.find("skipped") is not None:
            continue
        test, *pair = match.groups()
        passed = case.find("failure") is None and case.find("error") is None
        found.setdefault(tuple(pair), {}).setdefault(test, []).append(passed)
        for name in case.iter("property"):
            figures.setdefault(tuple(pair), {})[name.get("name")] = name.get("value")
    return found, figures


def cell(tests, pattern):
    """Return what became of the tests of a column: how many passed, of how many."""
    passed = [good for test, all_ in tests.items() if re.match(pattern, test) for good in all_]
    if not passed:
        return ""
    return str(len(passed)) if all(passed) else f"**{sum(passed)} of {len(passed)}**"


def date(report):
    """Return the day of the run."""
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite")
    return suite.get("timestamp")[:10]


def table(report):
    """Return the table as Markdown."""
    found, figures = results(report)
    names = sorted({name for all_ in figures.values() for name in all_})
    head = ["personality", "transport", *COLUMNS, *(name.replace("_", " ") for name in names)]
    lines = [head, ["---"] * len(head)]
    for pair in sorted(found, key=lambda pair: (list(device.PERSONALITIES).index(pair[0]),
                                                pair[1])):
        lines.append([pair[0], pair[1].replace("-", ", "),
                      *(cell(found[pair], pattern) for pattern in COLUMNS.values()),
                      *(figures.get(pair, {}).get(name, "") for name in names)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(report):
    """Write the table, with its date, to a file beside the report; return its path."""
    path = report.with_suffix(".md")
    path.write_text(f"{date(report)}\n\n{table(report)}", encoding="utf-8")
    return path
