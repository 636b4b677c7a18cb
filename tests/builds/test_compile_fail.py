# SPDX-License-Identifier: GPL-2.0
"""Examples in the documentation that must not compile fail with the error that they name."""

import re
import shlex
import subprocess

import pytest

import graft
import settings

# `ignore`, because the kernel builds every other block as a KUnit test.
BLOCK = re.compile(r"^ *//[/!] ```ignore,compile_fail,(?P<code>E\d{4})\n"
                   r"(?P<lines>(?: *//[/!].*\n)*?)"
                   r" *//[/!] ```$", re.M)

# What precedes the code of a line, a shown or a hidden one.
COMMENT = re.compile(r"^ *//[/!] ?(?:# |#$)?", re.M)

FILES = {name: (settings.ROOT / name).read_text(encoding="utf-8")
         for name in graft.new_files() if name.endswith(".rs")}

EXAMPLES = [pytest.param(COMMENT.sub("", match["lines"]), match["code"],
                         id=f"{name}:{text.count(chr(10), 0, match.start()) + 1}")
            for name, text in FILES.items() for match in BLOCK.finditer(text)]


def messages(example, folder):
    """Compile an example as the kernel compiles its doctests; return what rustc writes."""
    out = settings.out("kunit")
    saved = (out / "rust/.doctests_kernel_generated.o.cmd").read_text().splitlines()[0]
    words = shlex.split(saved.partition(":=")[2])
    # The rest names outputs and the source.
    words = ["env", "RUSTC_BOOTSTRAP=1", *words[:words.index("--out-dir")],
             "--cap-lints=allow", "--emit=obj", f"--out-dir={folder}", "-"]
    program = f"use kernel::prelude::*; pub fn main() {{ let _ = (|| {{\n{example}\n}})(); }}"
    return subprocess.run(words, input=program, cwd=out, capture_output=True, text=True,
                          check=False).stderr


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(("example", "code"), EXAMPLES)
def test_does_not_compile(example, code, tmp_path):
    """All of rustc's errors have the code that the example names."""
    said = messages(example, tmp_path)
    assert set(re.findall(r"^error(?:\[(\w+)\])?(?!: aborting)", said, re.M)) == {code}, said


@pytest.mark.usefixtures("prepared")
def test_other_examples_compile(tmp_path):
    """An example without an error compiles."""
    assert messages("let one = KBox::new(1, GFP_KERNEL)?;\nassert_eq!(*one, 1);\n"
                    "Ok::<(), Error>(())", tmp_path) == ""


def test_all_are_found():
    """No example that must not compile is written in another way, and missed."""
    assert sum(text.count("compile_fail") for text in FILES.values()) == len(EXAMPLES) > 0
