from __future__ import annotations

import hashlib
import json
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from archives import HTML, MONDAY, day, only_file, put, reread
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from workbench.errors import ArchiveError
from workbench.store.archive import Archive, Entry, snapshot_id

URL = "https://ondine.example/folio"

any_text = st.text(max_size=60)
headers = st.lists(st.tuples(any_text, any_text), max_size=6)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def test_snapshot_id_is_what_the_docstring_says() -> None:
    text = f"{URL}\n2026-11-16T06:00:00.000000Z\n{hashlib.sha256(b'page').hexdigest()}\n"
    assert snapshot_id(URL, MONDAY, b"page") == hashlib.sha256(text.encode()).hexdigest()
    elsewhere = MONDAY.astimezone(timezone(timedelta(hours=8)))
    assert snapshot_id(URL, elsewhere, b"page") == snapshot_id(URL, MONDAY, b"page")
    different = {
        snapshot_id(URL, MONDAY, b""),
        snapshot_id(URL, day(1), b"page"),
        snapshot_id(URL + "/", MONDAY, b"page"),
    }
    assert len(different | {snapshot_id(URL, MONDAY, b"page")}) == 4
    with pytest.raises(ValueError, match="time zone"):
        snapshot_id(URL, datetime(2026, 11, 16), b"")  # noqa: DTZ001


@settings(max_examples=40, deadline=None)
@given(payload=st.binary(max_size=3000), headers=headers, reason=any_text, status=st.integers(100, 599))
def test_any_response_comes_back(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, headers: list[tuple[str, str]], reason: str, status: int
) -> None:
    archive = Archive(tmp_path_factory.mktemp("a"))
    with archive.writer() as writer:
        before = put(writer, b"before")
        written = writer.response(
            source_id="s",
            url=URL,
            fetched_at=day(1),
            http_status=status,
            headers=headers,
            payload=payload,
            reason=reason,
        )
        after = put(writer, b"after", at=day(2))
    assert reread(archive.root) == [before, written, after]
    assert archive.payload(written) == payload
    assert written.payload_sha256 == hashlib.sha256(payload).hexdigest()
    assert (written.status, written.http_status) == ("fetched", status)


@settings(max_examples=40, deadline=None)
@given(note=st.text(), url_path=st.text(alphabet=st.characters(exclude_categories=["Z", "C"]), max_size=30))
def test_any_note_and_address_come_back(tmp_path_factory: pytest.TempPathFactory, note: str, url_path: str) -> None:
    archive = Archive(tmp_path_factory.mktemp("a"))
    url = f"https://moshu.example/{url_path}"
    with archive.writer() as writer:
        denied = writer.attempt(source_id="s", url=url, attempted_at=MONDAY, status="robots-denied", note=note)
        page = put(writer, at=day(1), url=url)
    assert reread(archive.root) == [denied, page]
    assert (denied.url, denied.note, denied.snapshot_id, denied.status) == (url, note, None, "robots-denied")
    assert archive.latest(url) == page


def test_headers_survive_as_the_server_sent_them(archive: Archive) -> None:
    sent = [
        ("content-type", "text/html; charset=gbk"),
        ("ETag", 'W/"é-墨"'),
        ("last-modified", "Mon, 16 Nov 2026 05:00:00 GMT"),
        ("Content-Encoding", "gzip"),
        ("Transfer-Encoding", "chunked"),
        ("X-Split", "a\r\nX-Injected: b"),
    ]
    with archive.writer() as writer:
        entry = put(writer, "墨舒".encode("gbk"), headers=sent)
    assert entry.content_type == "text/html; charset=gbk"
    assert entry.etag == 'W/"é-墨"'
    assert entry.last_modified == "Mon, 16 Nov 2026 05:00:00 GMT"
    with only_file(archive.root).open("rb") as stream:
        record = next(r for r in ArchiveIterator(stream) if r.rec_type == "response")
        # Any WARC reader gets the body: nothing says that it is still encoded.
        assert record.http_headers.get_header("X-Archive-Orig-Content-Encoding") == "gzip"
        assert record.http_headers.get_header("Transfer-Encoding") is None
        assert record.http_headers.get_header("X-Injected") is None


def test_the_file_is_warc_1_1_with_digests_that_hold(archive: Archive) -> None:
    with archive.writer() as writer:
        original = put(writer, b"page")
        writer.revisit(source_id="ondine-folio", url=URL, fetched_at=day(1), original=original)
        writer.revisit(source_id="ondine-folio", url=URL, fetched_at=day(2), original=original, http_status=200)
        writer.attempt(source_id="x", url=URL, attempted_at=day(3), status="failed", http_status=503, note="busy")
    found = []
    with only_file(archive.root).open("rb") as stream:
        for record in ArchiveIterator(stream, check_digests="raise"):
            body = record.raw_stream.read()
            found.append((record.rec_headers.protocol, record.rec_type, dict(record.rec_headers.headers), body))
    assert [kind for _, kind, _, _ in found] == ["warcinfo", "response", "revisit", "revisit", "metadata"]
    assert {protocol for protocol, _, _, _ in found} == {"WARC/1.1"}
    response, not_modified, identical, metadata = (fields for _, _, fields, _ in found[1:])
    assert response["WARC-Target-URI"] == URL
    assert response["WARC-Date"] == "2026-11-16T06:00:00.000000Z"
    for revisit, profile in ((not_modified, "server-not-modified"), (identical, "identical-payload-digest")):
        assert revisit["WARC-Profile"] == f"http://netpreserve.org/warc/1.1/revisit/{profile}"
        assert revisit["WARC-Refers-To"] == response["WARC-Record-ID"]
        assert revisit["WARC-Refers-To-Target-URI"] == URL
        assert revisit["WARC-Refers-To-Date"] == response["WARC-Date"]
        assert revisit["WARC-Payload-Digest"] == response["WARC-Payload-Digest"]
    assert metadata["Content-Type"] == "application/json"
    assert json.loads(found[-1][3]) == {"status": "failed", "http_status": 503, "note": "busy"}


def test_a_chain_of_revisits_leads_to_the_one_payload(archive: Archive) -> None:
    with archive.writer() as writer:
        first = put(writer, b"page", headers=[*HTML, ("Last-Modified", "yesterday")])
        second = writer.revisit(source_id="ondine-folio", url=URL, fetched_at=day(1), original=first)
    with archive.writer() as writer:
        third = writer.revisit(
            source_id="ondine-folio", url=URL, fetched_at=day(2), original=second, headers=[("ETag", '"2"')]
        )
    assert archive.entries() == [first, second, third]
    assert third.refers_to == second.refers_to == first.snapshot_id
    assert len({first.snapshot_id, second.snapshot_id, third.snapshot_id}) == 3
    assert third.snapshot_id == snapshot_id(URL, day(2), b"page")
    assert third.status == "not-modified"
    assert third.snapshot_id is not None
    assert archive.payload(third) == archive.payload(third.snapshot_id) == b"page"
    # What the server did not repeat is the original's, so that the next request can be conditional.
    assert (third.content_type, third.etag, third.last_modified) == (first.content_type, '"2"', "yesterday")
    assert archive.latest(URL) == third


def test_a_revisit_needs_an_original_with_a_payload(archive: Archive) -> None:
    with archive.writer() as writer:
        failed = writer.attempt(source_id="s", url=URL, attempted_at=MONDAY, status="failed", note="timeout")
        with pytest.raises(ArchiveError, match="workbench collect"):
            writer.revisit(source_id="s", url=URL, fetched_at=day(1), original=failed)
    with pytest.raises(ArchiveError, match="timeout"):
        archive.payload(failed)
    with pytest.raises(ArchiveError, match="no snapshot"):
        archive.payload("0" * 64)


def test_wrong_use_is_refused(archive: Archive) -> None:
    with archive.writer() as writer:
        with pytest.raises(ValueError, match="fetched"):
            writer.attempt(source_id="s", url=URL, attempted_at=MONDAY, status="fetched", note="")
        with pytest.raises(ArchiveError, match=r"workspace\.toml"):
            put(writer, url="https://ondine.example/a b")
        with pytest.raises(ArchiveError, match=r"workspace\.toml"):
            put(writer, url="file:///etc/passwd")
    assert archive.entries() == []
    assert list(archive.root.glob("*.warc*")) == []


def test_final_url_is_kept(archive: Archive) -> None:
    with archive.writer() as writer:
        moved = writer.response(
            source_id="s",
            url=URL,
            fetched_at=MONDAY,
            http_status=200,
            headers=(),
            payload=b"",
            final_url="https://ondine.example/folio 2/\r\nX: y",
        )
        unchanged = writer.revisit(source_id="s", url=URL, fetched_at=day(1), original=moved)
    assert moved.final_url == unchanged.final_url == "https://ondine.example/folio%202/%0D%0AX:%20y"
    assert reread(archive.root) == [moved, unchanged]


def test_entries_are_sorted_and_cut_at_start_and_end(archive: Archive) -> None:
    with archive.writer() as writer:
        late = put(writer, at=day(2))
        early = put(writer, at=day(0), source="b")
        same = put(writer, at=day(0), source="a", url="https://a.example/")
    assert archive.entries() == [same, early, late]
    assert archive.entries(start=day(2)) == [late]
    assert archive.entries(end=day(2)) == [same, early]
    assert archive.entries(start=day(1), end=day(1.5)) == []


def test_the_same_calls_give_the_same_bytes(tmp_path: Path) -> None:
    def write(root: Path) -> dict[str, bytes]:
        archive = Archive(root)
        with archive.writer(opened_at=MONDAY) as writer:
            original = put(writer, b"page" * 1000)
            writer.revisit(source_id="ondine-folio", url=URL, fetched_at=day(1), original=original)
            writer.attempt(source_id="s", url=URL, attempted_at=day(1), status="blocked", note="captcha")
        return {path.name: path.read_bytes() for path in root.glob("*.warc.gz")}

    first = write(tmp_path / "a")
    assert first == write(tmp_path / "b")
    assert len(first) == 1
    with pytest.raises(ArchiveError, match="already"), Archive(tmp_path / "a").writer(opened_at=MONDAY) as writer:
        put(writer)


def test_an_error_inside_the_session_keeps_what_was_seen(archive: Archive) -> None:
    entries = []

    def collect() -> None:
        with archive.writer() as writer:
            entries.append(put(writer))
            raise RuntimeError("network")

    with pytest.raises(RuntimeError, match="network"):
        collect()
    assert only_file(archive.root).name.endswith(".warc.gz")
    assert reread(archive.root) == entries


def test_a_running_session_can_be_read(archive: Archive) -> None:
    with archive.writer() as writer:
        entry = put(writer, b"page")
        other = Archive(archive.root)
        assert other.entries() == [entry]
        assert other.payload(entry) == b"page"
    # The entry made under the temporary name is still good under the final one.
    assert other.payload(entry) == b"page"
    assert other.entries() == [entry]


def test_threads_may_share_a_writer(archive: Archive) -> None:
    written: list[Entry] = []

    def work(number: int) -> None:
        written.extend(
            put(writer, f"{number} {n}".encode(), at=day(n), source=f"s{number}", url=f"https://a.example/{number}")
            for n in range(20)
        )

    with archive.writer() as writer:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(reread(archive.root)) == set(written)
    assert len(written) == 80


def test_the_index_is_used_and_made_again_when_wrong(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with archive.writer() as writer:
        entry = put(writer, b"page")
    assert archive.entries() == [entry]
    (index,) = (archive.root / "index").iterdir()
    good = index.read_text()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the WARC file was scanned although the index is good")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.store.warc.scan", refuse)
        assert Archive(archive.root).entries() == [entry]
    for bad in (
        "",
        "{}",
        "null",
        good[:-20],
        good.replace('"version": 1', '"version": 0'),
        good.replace("url", "uri"),
    ):
        index.write_text(bad)
        assert Archive(archive.root).entries() == [entry]
        assert index.read_text() == good
    index.unlink()
    index.parent.rmdir()
    assert Archive(archive.root).entries() == [entry]


def test_a_forged_index_cannot_pass_other_bytes_off_as_a_snapshot(archive: Archive) -> None:
    with archive.writer() as writer:
        first, second = put(writer, b"one"), put(writer, b"two", at=day(1))
    archive.entries()
    (index,) = (archive.root / "index").iterdir()
    index.write_text(index.read_text().replace(f'"offset": {first.offset}', f'"offset": {second.offset}'))
    forged = Archive(archive.root)
    with pytest.raises(ArchiveError):
        forged.payload(str(first.snapshot_id))
    assert forged.payload(second) == b"two"


def test_a_read_only_archive_can_be_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with archive.writer() as writer:
        entry = put(writer)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("workbench.store.archive.write_text", refuse)
    assert Archive(archive.root).entries() == [entry]


def test_files_of_other_tools_are_passed_over(archive: Archive) -> None:
    from warcio.warcwriter import WARCWriter

    archive.root.mkdir()
    with (archive.root / "other.warc.gz").open("wb") as stream:
        foreign = WARCWriter(stream, gzip=True)
        foreign.write_record(foreign.create_warcinfo_record("other.warc.gz", {"software": "other"}))
        foreign.write_record(foreign.create_warc_record("https://a.example/", "metadata"))
    assert archive.entries() == []


def test_an_archive_that_is_not_there_is_empty(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "nowhere")
    assert archive.entries() == []
    assert archive.latest(URL) is None
    assert archive.prune(MONDAY) == 0
    assert not archive.root.exists()
