"""Timing caches: the form in which TensorRT 8.6 takes its own again."""

import struct

import pytest

from workbench.engine.build.timings import without_fused

NUMBER, LIST = b"\x08\x80\x01\x00", b"\x01\x80\x03\x80\x01\x00"
FUSED = b"file_format_version=1\n0.0.0.0_0.0.0.0_0.0.0.0_94567e1dc6\n101 2 3 4 893305527347180 6.5e-03 2\n"


def cache(entries, fused, *, count=None):
    """A cache as 8.6 writes it: what it measured, then what it knows of fused pieces."""
    size = struct.pack("<Q", len(fused) if count is None else count)
    body = entries + NUMBER + size + LIST + size + fused
    return b"ptrt" + bytes(4) + struct.pack("<QQ", 236, len(body)) + body


# What was measured may hold the marks of the part too.
ENTRIES = bytes(range(256)) + NUMBER + struct.pack("<Q", 7) + LIST + b"file_format" + NUMBER


def test_only_the_part_about_fused_pieces_goes():
    assert without_fused(cache(ENTRIES, FUSED)) == cache(ENTRIES, b"")


@pytest.mark.parametrize(
    "timings",
    [
        b"",
        cache(ENTRIES, b""),
        cache(ENTRIES, FUSED)[:-1],
        cache(ENTRIES, FUSED) + b"\n",
        cache(ENTRIES, FUSED, count=len(FUSED) - 1),
        b"other" + cache(ENTRIES, FUSED),
    ],
    ids=["empty", "without such a part", "cut off", "longer", "wrong count", "another file"],
)
def test_other_bytes_are_left_alone(timings):
    assert without_fused(timings) is None
