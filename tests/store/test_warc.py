from __future__ import annotations

import gzip
from contextlib import suppress
from datetime import datetime, timezone
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.store import warc

FIELDS = {"WARC-Record-ID": warc.record_id("a"), "WARC-Date": "2026-11-16T06:00:00.000000Z"}
WHOLE = gzip.decompress(
    warc.member_from_record(
        "response",
        FIELDS,
        url="https://a.example/",
        status="200 OK",
        headers=[("Content-Type", "text/html")],
        payload=b"<p>page</p>",
    )
)


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_value_error(data: bytes) -> None:
    for raw in (data, gzip.compress(data), gzip.compress(b"WARC/1.1\r\n" + data)):
        with suppress(ValueError):
            warc.read_record(BytesIO(raw), 0)


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, len(WHOLE) - 1), cut=st.integers(0, 40), put=st.binary(max_size=20))
def test_an_altered_record_is_never_taken_for_the_whole_one(at: int, cut: int, put: bytes) -> None:
    altered = WHOLE[:at] + put + WHOLE[at + cut :]
    start = WHOLE.index(b"\r\n\r\n") + 4  # from here on digests and length protect the content
    end = len(WHOLE) - 4
    if altered == WHOLE or not start <= at < end or at + cut > end:
        return
    try:
        record = warc.read_record(BytesIO(gzip.compress(altered)), 0).record
    except ValueError:
        return
    assert record.problem


def test_a_record_ends_where_the_next_begins() -> None:
    members = [
        warc.member_from_record("metadata", FIELDS, url="https://a.example/", payload=b"x" * n) for n in (0, 9, 70000)
    ]
    stream = BytesIO(b"".join(members))
    offset = 0
    for member in members:
        found = warc.read_record(stream, offset)
        assert found.length == len(member)
        offset += found.length
    with pytest.raises(ValueError, match="ends before"):
        warc.read_record(stream, offset)


@given(moment=st.datetimes(timezones=st.just(timezone.utc), min_value=datetime(1990, 1, 1)))  # noqa: DTZ001
def test_dates_come_back_to_the_microsecond(moment: datetime) -> None:
    assert warc.time_from_date(warc.date_from_time(moment)) == moment


@given(digest=st.binary(min_size=32, max_size=32))
def test_digests_come_back(digest: bytes) -> None:
    assert warc.sha256_from_digest(warc.digest_from_sha256(digest.hex())) == digest.hex()


@pytest.mark.parametrize("text", [None, "", "sha1:ABC", "sha256:", "sha256:!!!", "sha256"])
def test_other_digests_are_none(text: str | None) -> None:
    assert not warc.sha256_from_digest(text)
