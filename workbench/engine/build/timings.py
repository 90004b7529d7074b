"""The timing cache of a builder: what it measured of each kernel, kept for later builds.

TensorRT 8.5 and 8.6 refuse the cache they wrote themselves where they work without cuBLAS and cuDNN (tactic sources
"none"): its last part, about fused pieces ("Myelin"), carries 0.0.0.0 as the versions of both, and on reading the
whole cache is dropped for it. Without that part all else is read again. The part tells little: fused pieces are
compiled anew in every build.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

__all__ = ["merged_timings", "read_timings", "without_fused"]

logger = logging.getLogger(__name__)

_MAGIC: Final = b"ptrt"
_LENGTH_AT: Final = 16  # of what follows these and the length itself, 24 bytes
_BODY_AT: Final = 24
_NUMBER: Final = b"\x08\x80\x01\x00"
_LIST: Final = b"\x01\x80\x03\x80\x01\x00"
_FUSED: Final = re.compile(
    re.escape(_NUMBER) + b"(.{8})" + re.escape(_LIST) + b"(.{8})file_format_version=", re.DOTALL
)


def without_fused(timings: bytes) -> bytes | None:
    """``timings`` without the part about fused pieces; None where they are not of that form."""
    found = _FUSED.search(timings)
    if not timings.startswith(_MAGIC) or found is None:
        return None
    count = struct.unpack("<Q", found[2])[0]
    if found[1] != found[2] or found.end(2) + count != len(timings):
        return None
    body = timings[_BODY_AT : found.start()] + _NUMBER + bytes(8) + _LIST + bytes(8)
    return timings[:_LENGTH_AT] + struct.pack("<Q", len(body)) + body


def read_timings(trt: ModuleType, config: Any, log: Any, timings: bytes | None) -> tuple[Any, bool]:
    """The timing cache that a build fills, set in ``config``, and whether ``timings`` are in it.

    ``log``: the library's logger, which keeps errors until they are taken. None on TensorRT-RTX, where the calls are
    there and do nothing.
    """
    if trt.__name__ == "tensorrt_rtx":
        return None, False
    log.take()
    for form in _forms(timings):
        made = config.create_timing_cache(form)
        # A cache that is refused is an empty one; the library's complaint alone tells.
        if not log.take() and made is not None and config.set_timing_cache(made, False):
            return made, True
    if timings:
        logger.warning("The kept timings are of another TensorRT or GPU and are not used")
    made = config.create_timing_cache(b"")
    config.set_timing_cache(made, False)
    return made, False


def merged_timings(config: Any, log: Any, made: Any, others: bytes | None) -> bytes:
    """``made`` to be kept, with what ``others`` know besides: another build may have kept its own meanwhile."""
    for form in _forms(others):
        log.take()
        other = config.create_timing_cache(form)
        if not log.take() and other is not None:
            made.combine(other, False)
            break
    return bytes(memoryview(made.serialize()))


def _forms(timings: bytes | None) -> Iterator[bytes]:
    if timings:
        yield timings
        shorter = without_fused(timings)
        if shorter is not None:
            yield shorter
