"""WARC 1.1 records as bytes: made, read back, and found again in a file that may be damaged.

A file is a row of gzip members, one member a record (WARC 1.1, annex D), so a record can be read from its offset
alone and a damaged one does not take its neighbours with it. Everything here works on records; what they mean for the
workbench is in ``workbench.store.archive``.

Record ids are UUIDs (version 5) of what the record is about, digests are SHA-256, and the gzip headers carry no time:
the same calls give the same bytes.
"""

from __future__ import annotations

import base64
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecordLoader
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParserException
from warcio.timeutils import iso_date_to_datetime
from warcio.utils import Digester
from warcio.warcwriter import BufferWARCWriter

__all__ = [
    "OPEN",
    "SUFFIX",
    "Damage",
    "Located",
    "Record",
    "date_from_time",
    "digest_from_sha256",
    "member_from_record",
    "read_record",
    "record_id",
    "scan",
    "sha256_from_digest",
    "time_from_date",
    "warcinfo_id",
]

SUFFIX = ".warc.gz"
OPEN = ".open"
"""Behind the name of a file that is still being written."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:workbench:warc")
_CHUNK = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b\x08"
_TAIL = b"\r\n\r\n"

# The archive keeps decoded bodies, so these would be untrue of the record. Their values stay readable under the
# prefix that Heritrix and pywb use for the same purpose.
_WIRE_HEADERS = frozenset({"content-encoding", "transfer-encoding", "content-length"})
_ORIGINAL = "X-Archive-Orig-"


@dataclass(frozen=True)
class Record:
    """One record as read. ``status`` is the HTTP status line without the protocol, empty where there is none."""

    kind: str
    fields: Mapping[str, str]
    """Named fields of the WARC header, names in lower case."""
    status: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes
    problem: str = ""
    """Why the content does not match its digests; empty when it does."""

    def header(self, name: str) -> str | None:
        """The first HTTP header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Located:
    """A record and the bytes it takes in its file."""

    record: Record
    offset: int
    length: int


@dataclass(frozen=True)
class Damage:
    """Bytes of a file that are no whole record. ``at_end``: nothing follows, as a killed writer leaves it."""

    offset: int
    length: int
    reason: str
    at_end: bool


class _RawHeaders(StatusAndHeaders):  # type: ignore[misc]
    """HTTP headers written as UTF-8; warcio would percent-encode them, and an ETag would no longer be the same."""

    def compute_headers_buffer(self, header_filter: Any = None) -> None:
        self.headers_buff = self.to_bytes(header_filter)


class _Writer(BufferWARCWriter):  # type: ignore[misc]
    WARC_VERSION = "WARC/1.1"

    @staticmethod
    def _create_digester() -> Any:
        return Digester("sha256")

    @staticmethod
    def _create_temp_file() -> BytesIO:
        return BytesIO()


def record_id(*parts: str) -> str:
    """A WARC-Record-ID that follows from ``parts``."""
    return f"<urn:uuid:{uuid.uuid5(_NAMESPACE, chr(10).join(parts))}>"


def warcinfo_id(name: str) -> str:
    """Record id of the warcinfo record of the file with that (final) name."""
    return record_id("warcinfo", name)


def date_from_time(moment: datetime) -> str:
    """WARC-Date with microseconds. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; pass datetime.now(timezone.utc) or the like")
    return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def time_from_date(date: str) -> datetime:
    """The UTC time a WARC-Date names. Raises ValueError."""
    moment: datetime = iso_date_to_datetime(date, tz_aware=True)
    return moment


def digest_from_sha256(sha256: str) -> str:
    """``sha256:<base32>``, the form WARC readers check, from hex."""
    return "sha256:" + base64.b32encode(bytes.fromhex(sha256)).decode()


def sha256_from_digest(digest: str | None) -> str | None:
    """Hex from ``sha256:<base32>``; None for anything else."""
    algorithm, _, value = (digest or "").partition(":")
    try:
        return base64.b32decode(value).hex() if algorithm == "sha256" else None
    except ValueError:
        return None


def member_from_record(
    kind: str,
    fields: Mapping[str, str | None],
    *,
    url: str = "",
    content_type: str = "",
    status: str = "",
    headers: Sequence[tuple[str, str]] = (),
    payload: bytes = b"",
) -> bytes:
    """One record as a gzip member.

    ``fields``: named fields of the WARC header; those that are None are left out. ``status`` and ``headers``: HTTP
    status line (without the protocol) and headers, written when ``status`` is not empty. Line breaks and control
    characters in them become spaces. ``payload``: the decoded body.
    """
    http = None
    if status:
        lines = [(_clean_name(name), _clean(value)) for name, value in headers]
        if kind == "response":
            lines = [(_ORIGINAL + n if n.lower() in _WIRE_HEADERS else n, v) for n, v in lines]
            lines.append(("Content-Length", str(len(payload))))
        http = _RawHeaders(_clean(status), [line for line in lines if line[0]], protocol="HTTP/1.1")
    writer = _Writer(gzip=True)
    record = writer.create_warc_record(
        url,
        kind,
        payload=BytesIO(payload),
        length=len(payload),
        warc_content_type=content_type,
        warc_headers_dict={name: _clean(value) for name, value in fields.items() if value is not None},
        http_headers=http,
    )
    writer.write_record(record)
    member: bytes = writer.get_contents()
    return member


def read_record(stream: IO[bytes], offset: int) -> Located:
    """The record at ``offset``. Raises ValueError when there is no whole record."""
    data, length = _read_member(stream, offset)
    return Located(_record_from_bytes(data), offset, length)


def scan(path: Path, *, warcinfo_id: str) -> Iterator[Located | Damage]:
    """All records of a file in order, and the stretches between them that are no record.

    After damage the next gzip member is looked for. It counts only when it names this file's ``warcinfo_id``: bytes
    of a page must never be taken for a record of the archive.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        offset = 0
        while offset < size:
            found = _record_or_reason(stream, offset)
            if isinstance(found, str):
                resumed = _next_record(stream, offset + 1, warcinfo_id)
                end = resumed if resumed is not None else size
                yield Damage(offset, end - offset, found, at_end=resumed is None)
                offset = end
            else:
                yield found
                offset += found.length


def _record_or_reason(stream: IO[bytes], offset: int) -> Located | str:
    try:
        return read_record(stream, offset)
    except ValueError as error:
        return str(error)


def _next_record(stream: IO[bytes], start: int, warcinfo_id: str) -> int | None:
    stream.seek(start)
    rest = stream.read()
    for match in re.finditer(re.escape(_GZIP_MAGIC), rest):
        found = _record_or_reason(stream, start + match.start())
        if isinstance(found, Located) and found.record.fields.get("warc-warcinfo-id") == warcinfo_id:
            return found.offset
    return None


def _read_member(stream: IO[bytes], offset: int) -> tuple[bytes, int]:
    """One gzip member's content and its compressed length. Raises ValueError when it is not whole."""
    stream.seek(offset)
    decompressor = zlib.decompressobj(zlib.MAX_WBITS + 16)
    parts, read = [], 0
    while not decompressor.eof:
        chunk = stream.read(_CHUNK)
        if not chunk:
            raise ValueError("the record ends before it is whole")
        read += len(chunk)
        try:
            parts.append(decompressor.decompress(chunk))
        except zlib.error as error:
            raise ValueError(f"not a gzip member ({error})") from None
    return b"".join(parts), read - len(decompressor.unused_data)


def _record_from_bytes(data: bytes) -> Record:
    loader = ArcWarcRecordLoader(verify_http=False, arc2warc=False)
    try:
        raw = loader.parse_record_stream(BytesIO(data), known_format="warc", check_digests=True)
        payload: bytes = raw.raw_stream.read()
    except (ArchiveLoadFailed, StatusAndHeadersParserException, EOFError, AttributeError) as error:
        # AttributeError: warcio asks a header that is not there for its start.
        raise ValueError(f"not a WARC record ({str(error).strip() or type(error).__name__})") from None
    fields = {name.lower(): value for name, value in raw.rec_headers.headers}
    declared = fields.get("content-length", "")
    head, _, block = data.partition(_TAIL)
    if not declared.isdigit() or len(block) < int(declared):
        raise ValueError("the record's content is shorter than its Content-Length")
    problem = "; ".join(raw.digest_checker.problems)
    if len(head) + len(_TAIL) + int(declared) + len(_TAIL) != len(data):
        problem = problem or "the record's content is longer than its Content-Length"
    http = raw.http_headers
    return Record(
        kind=raw.rec_type or "",
        fields=fields,
        status=http.statusline if http else "",
        headers=tuple(http.headers) if http else (),
        payload=payload,
        problem=problem,
    )


def _clean(text: str) -> str:
    """``text`` as it can stand in a header line and be read back the same."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def _clean_name(name: str) -> str:
    """A header name as a token (RFC 9110, 5.6.2); what is not allowed in one becomes a hyphen."""
    return re.sub(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]+", "-", name.strip())
