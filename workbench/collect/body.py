"""Decode a response body piece by piece, so that a small body can never become a large one in memory.

gzip and brotli turn a few kilobytes into gigabytes when asked to. Here no step puts out more than 64 KiB, every layer
counts what it puts out, and the first byte over the limit ends the page.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import brotli

from workbench.collect.problems import BodyError, TransientError

__all__ = ["ACCEPT_ENCODING", "Body", "decode_body", "gunzip"]

ACCEPT_ENCODING = "gzip, deflate, br"

_STEP = 64 * 1024
_MAX_LAYERS = 3
_MAX_GZIP_MEMBERS = 1000
# Codings that exist and are not asked for. Any other unknown word ("utf-8" is a frequent one) is a slip of the
# server's settings and is ignored, as browsers do.
_NOT_SPOKEN = frozenset({"zstd", "compress", "x-compress", "dcb", "dcz", "exi", "aes128gcm", "pack200-gzip"})


class _Layer(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def complete(self) -> bool: ...


class _Gzip:
    """RFC 1952. Members may follow each other; what is no member at the end (padding) is ignored."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._members = 0
        self._between = False
        self._over = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._over:
            if self._between:
                if not data.startswith(b"\x1f"):
                    self._over = True
                    return
                self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
                self._between = False
            yield from _inflate(self._stream, data)
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data
                self._between = True
                self._members += 1
                if self._members > _MAX_GZIP_MEMBERS:
                    raise BodyError(f"the gzip body has more than {_MAX_GZIP_MEMBERS} members")

    @property
    def complete(self) -> bool:
        return self._between


class _Deflate:
    """RFC 1950, or raw RFC 1951, which some servers send under the same name."""

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._head = self._head, b""
            zlib_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        if not self._stream.eof:
            yield from _inflate(self._stream, data)

    @property
    def complete(self) -> bool:
        return self._stream is not None and self._stream.eof


def _inflate(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    try:
        while True:
            out = stream.decompress(data, _STEP)
            data = stream.unconsumed_tail
            if out:
                yield out
            # A full step may leave output behind with no input left; only a short one says that all is out.
            if stream.eof or (not data and len(out) < _STEP):
                return
    except zlib.error as error:
        raise BodyError(f"the compressed body is broken: {error}") from None


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            while not self._stream.is_finished():
                out = self._stream.process(data, output_buffer_limit=_STEP)
                data = b""
                if not out:  # and only then: "can accept more data" is true with output pending too
                    return
                yield out
        except brotli.error as error:
            raise BodyError(f"the brotli body is broken: {error}") from None

    @property
    def complete(self) -> bool:
        return bool(self._stream.is_finished())


_LAYERS: dict[str, type[_Gzip] | type[_Deflate] | type[_Brotli]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
}


class Body:
    """Collects a body as it arrives.

    ``content_encoding`` is the header's value. Neither what arrives nor what any layer puts out may exceed
    ``max_bytes``. With ``cut`` a longer body is cut there instead of refused, and ``full`` says when to stop reading.
    """

    def __init__(self, content_encoding: str = "", *, max_bytes: int, cut: bool = False) -> None:
        names = [name.strip().lower() for name in content_encoding.split(",")]
        if unknown := sorted(_NOT_SPOKEN.intersection(names)):
            raise BodyError(f"the body is coded as {unknown[0]}, which was not asked for")
        # The header lists the codings in the order they were applied (RFC 9110, 8.4).
        self._layers: list[_Layer] = [_LAYERS[name]() for name in reversed(names) if name in _LAYERS]
        if len(self._layers) > _MAX_LAYERS:
            raise BodyError(f"the body is coded {len(self._layers)} times over")
        self._max_bytes = max_bytes
        self._cut = cut
        self._counts = [0] * (len(self._layers) + 1)
        self._out = bytearray()
        self.full = False

    def feed(self, data: bytes) -> None:
        """Take the next piece off the wire. Raises BodyError."""
        if self.full or not data:
            return
        for part in self._decoded(data, 0):
            self._out += part
            if self.full:
                return

    def _decoded(self, data: bytes, depth: int) -> Iterator[bytes]:
        self._counts[depth] += len(data)
        over = self._counts[depth] - self._max_bytes
        if over > 0:
            if not self._cut:
                raise BodyError(f"the body is larger than {self._max_bytes:,} bytes")
            self.full = True
            data = data[: max(len(data) - over, 0)]
        if depth == len(self._layers):
            yield data
            return
        for part in self._layers[depth].feed(data):
            yield from self._decoded(part, depth + 1)

    def finish(self) -> bytes:
        """The decoded body. Raises TransientError when a compressed body ended before its end."""
        arrived = self._counts[0] > 0
        if arrived and not self.full and not all(layer.complete for layer in self._layers):
            raise TransientError("the compressed body ends before its end")
        return bytes(self._out)


def decode_body(parts: Sequence[bytes], content_encoding: str, *, max_bytes: int) -> bytes:
    """Decode a body that is already here. Raises BodyError, TransientError as Body does."""
    body = Body(content_encoding, max_bytes=max_bytes)
    for part in parts:
        body.feed(part)
    return body.finish()


def gunzip(data: bytes, *, max_bytes: int) -> bytes:
    """Unpack a .gz file. Raises BodyError when it is broken or unpacks to more than ``max_bytes``."""
    return decode_body([data], "gzip", max_bytes=max_bytes)
