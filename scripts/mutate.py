# SPDX-License-Identifier: GPL-2.0
"""List the mutants of a Rust file: those of cargo-mutants, and removed statements and calls."""

import collections
import dataclasses
import json
import re
import textwrap

import settings
import steps
import toolchain

CARGO_MUTANTS = "27.1.0"

# Statements that are no candidates: definitions, control flow, assertions and messages.
KEPT = re.compile(r"(let (?!_ =)|if|else|match|for|while|loop|use|const|static|fn|pub|impl|type|"
                  r"mod|extern|struct|enum|trait|where|macro_rules|unsafe (?!\{)|\w*assert\w*!|"
                  r"(crate::)?(pr|dev)_\w+!|'\w+:|[}\]).,|&!#?\"]|[A-Z]\w*(\(|$))")
ARM = re.compile(r"(?P<head>\s*\S.* => )(?P<call>[a-z_].*\)),$")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A text that replaces a part of a file; the name is unique in the file, and has no line."""
    file: str
    name: str
    start: int
    end: int
    new: str

    def apply(self, text):
        """Return the file's text with the fault."""
        return text[:self.start] + self.new + text[self.end:]


def cargo_mutants():
    """Return the path of cargo-mutants, installed in the cache if it is not there."""
    path = settings.cache() / "bin/cargo-mutants"
    version = steps.output([path, "mutants", "--version"]) or ""
    if CARGO_MUTANTS not in version:
        toolchain.cargo_install("cargo-mutants", CARGO_MUTANTS)
    return path


def offsets(text):
    """Return the offset at which each line begins."""
    found = [0]
    for line in text.splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def operators(tool, path):
    """List cargo-mutants' mutants of a file, as (line, start, end, new text, name)."""
    text = steps.output([tool, "mutants", "--Zmutate-file", path, "--list", "--json"])
    if text is None:
        raise steps.Trouble(f"cargo-mutants cannot read {path}")
    begins = offsets(path.read_text())
    found = []
    for one in json.loads(text):
        start, end = ((begins[place["line"] - 1] + place["column"] - 1)
                      for place in (one["span"]["start"], one["span"]["end"]))
        name = re.sub(r"^.*?:\d+:\d+: ", "", one["name"])
        found.append((one["span"]["start"]["line"], start, end, one["replacement"], name))
    return found


def code(line):
    """Return a line without strings, characters, comments and attributes."""
    line = re.sub(r'b?"(\\.|[^"\\])*"', "0", line)
    line = re.sub(r"b?'(\\.|[^'\\])'", "0", line)
    return re.sub(r"//.*|^\s*#!?\[.*\]$", "", line).rstrip()


def depth(line):
    """Return how many more brackets a line opens than it closes."""
    return sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))


def functions(lines):
    """Return for each line the name of the function around it, and whether that returns nothing.

    The code is rustfmt's: a function ends at the first line that has its indentation again.
    """
    found, inside = [], []
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        match = re.match(r"\s*(?:[\w()]+ |extern \"C\" )*fn (\w+)", line)
        if match:
            head = ""
            for more in lines[number:]:
                head += more
                if more.endswith(("{", ";", "}")):
                    break
            # A closure among the parameters may return something.
            result = re.search(r"\) -> ", head.rsplit("where", 1)[0][head.rfind(")"):])
            inside.append((indent, match[1], not result))
        found.append(inside[-1][1:] if inside else (None, False))
        if inside and indent == inside[-1][0] and line.strip() == "}":
            inside.pop()
    return found


def whole(lines, number):
    """Return the number of the line at which a statement ends, or None if it is none."""
    level, head = 0, lines[number]
    indent = len(head) - len(head.lstrip())
    for last in range(number, len(lines)):
        level += depth(lines[last])
        if level < 0:
            return None
        after = next((line for line in lines[last + 1:] if line), "")
        if level == 0 and not after.strip().startswith((".", "?")):
            if lines[last].endswith(";"):
                return last
            is_tail = after.strip() == "}" and len(after) - 1 < indent
            return last if is_tail and lines[last].endswith((")", "}")) else None
    return None


def removals(text):
    """List the mutants of a file that lack a statement or a call, in the same form."""
    lines = [code(line) for line in text.splitlines()]
    begins, around = offsets(text), functions(lines)
    found, before = [], ""
    for number, line in enumerate(lines):
        if not line:
            continue
        name, returns_nothing = around[number]
        starts = before.endswith(("{", "}", ";")) and not KEPT.match(line.strip())
        before = line
        arm = ARM.fullmatch(line)
        if not name:
            continue
        if arm and returns_nothing and depth(arm["call"]) == 0:
            start = begins[number] + text[begins[number]:].index(" => ") + 4
            end, new = begins[number + 1] - 2, "()"
        elif starts and " => " not in line:
            last = whole(lines, number)
            if last is None or not (lines[last].endswith(";") or returns_nothing):
                continue
            start, end, new = begins[number], begins[last + 1] - 1, ""
        else:
            continue
        what = textwrap.shorten(text[start:end], 100, placeholder=" …")
        found.append((number + 1, start, end, new, f"remove {what} in {name}"))
    return found


def mutants(tool, root, file, end):
    """List the mutants of a file before the line at which its own tests begin."""
    path, seen = root / file, collections.Counter()
    found = []
    for line, start, stop, new, name in sorted(operators(tool, path) + removals(path.read_text())):
        if line < end:
            seen[name] += 1
            unique = f"{name} #{seen[name]}" if seen[name] > 1 else name
            found.append(Mutant(file, unique, start, stop, new))
    return found
