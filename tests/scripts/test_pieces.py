# SPDX-License-Identifier: GPL-2.0
"""A kernel is refused for each piece that it lacks, which is named, and for no other reason."""

import kernel_pieces
import pytest

import pieces

# A change of the source, and a word of what is then missing; nothing if the piece is still there.
CHANGES = {
    "no-async": ("#define NVDIMM_FLUSH_ASYNC 1", "#define NVDIMM_FLUSH_LATER 1",
                 "NVDIMM_FLUSH_ASYNC"),
    "other-value": ("#define NVDIMM_FLUSH_ASYNC 1", "#define NVDIMM_FLUSH_ASYNC 17",
                    "NVDIMM_FLUSH_ASYNC"),
    "async-becomes-error": ("if (rc > 0)\n\t\t\treturn rc;\n\t\t", "", "passes on"),
    "enomem-becomes-eio": ("if (rc && rc != -ENOMEM)", "if (rc)", "keeps -ENOMEM"),
    "data-after-failed-flush": ("\t\t\tbio_endio(bio);\n\t\t\treturn;\n", "",
                                "flush before it has failed"),
    "data-less-bios-are-copied": ("if (bio_has_data(bio)) {", "{", "looks for no data"),
    "only-a-comment": ("if (bio_has_data(bio)) {", "/* if (bio_has_data(bio)) { */ {",
                       "looks for no data"),
    "failed-bios-are-flushed": (" && !bio->bi_status", "", "bio that has failed"),
    "taken-bios-are-completed": ("if (ret == NVDIMM_FLUSH_ASYNC)\n\t\t\treturn;", "",
                                 "leaves a bio alone"),
    "in-another-function": ("static void pmem_submit_bio", "static void pmem_submit_old",
                            "pmem_submit_bio"),
    "no-irq-safe-lock": ("SpinLockIrq<T>", "SpinLockBh<T>", "SpinLockIrq"),
    "data-unbound": ("type DriverData<'bound>;", "type DriverData;", "DriverLayout"),
    "no-atomics": ("pub struct Atomic<", "pub struct Cell<", "atomic"),
    "no-debugfs": ("pub struct Scope<", "pub struct Dir<", "debugfs"),
    "no-trace-events": ("declare_trace", "trace", "trace events"),
    "no-flags": ("impl_flags {", "flags {", "flags"),
    "other-spaces": ("if (rc > 0)\n\t\t\treturn rc;", "if (rc > 0) /* taken */ return rc;", ""),
    "as-patched": ("if ((bio->bi_opf & REQ_FUA) && !bio", "if (flush_last && !bio", ""),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_missing_is_named(tmp_path, name):
    old, new, word = CHANGES[name]
    kernel_pieces.make(tmp_path)
    assert pieces.missing(tmp_path) == []
    kernel_pieces.change(tmp_path, old, new)
    found = pieces.missing(tmp_path)
    if not word:
        assert found == []
        return
    assert found
    assert all(word in piece.gives for piece in found)
    # One thing was taken away; only a function that is gone takes more with it.
    assert len(found) == 1 or name == "in-another-function"


def test_every_piece_can_be_missed(tmp_path):
    kernel_pieces.make(tmp_path)
    words = [word for _, _, word in CHANGES.values() if word]
    for piece in pieces.PIECES:
        assert any(word in piece.gives for word in words), piece.gives
        (tmp_path / piece.path).unlink()
        assert piece in pieces.missing(tmp_path)
        kernel_pieces.make(tmp_path)
