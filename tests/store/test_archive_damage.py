"""What the archive does when a process is killed, a file is damaged, or several write at once."""

from __future__ import annotations

import gzip
import hashlib
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from archives import MONDAY, day, only_file, put, reread
from warcio.archiveiterator import ArchiveIterator

from workbench.errors import ArchiveError
from workbench.store import warc
from workbench.store.archive import Archive, Entry

URL = "https://ondine.example/folio"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def three(archive: Archive) -> list[Entry]:
    """An archive of three snapshots; the last holds bytes that do not compress."""
    noise = bytes((n * n * 31 + n // 7) % 256 for n in range(2000))
    with archive.writer() as writer:
        return [put(writer, b"one"), put(writer, b"two", at=day(1)), put(writer, noise, at=day(2))]


def spans(path: Path) -> list[tuple[int, int]]:
    """Offset and length of each record."""
    found = warc.scan(path, warcinfo_id=warc.warcinfo_id(path.name))
    return [(item.offset, item.length) for item in found]


def test_a_last_record_torn_anywhere_is_skipped(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    written = three(archive)
    path = only_file(archive.root)
    whole = path.read_bytes()
    start, length = spans(path)[-1]
    cuts = [*range(start + 1, start + 40), *range(start + 40, start + length - 40, 97)]
    cuts += range(start + length - 40, start + length)
    for cut in cuts:
        path.write_bytes(whole[:cut])
        caplog.clear()
        assert reread(archive.root) == written[:2], f"cut at byte {cut}"
        assert f"Skipped {cut - start} bytes at the end of" in caplog.text
    path.write_bytes(whole[:start])
    caplog.clear()
    assert reread(archive.root) == written[:2]
    assert caplog.text == ""


@pytest.mark.parametrize("garbage", [b"\0" * 4096, b"garbage", b"\x1f\x8b\x08", gzip.compress(b"no record"), b"\x1f"])
def test_garbage_at_the_end_is_skipped(archive: Archive, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    written = three(archive)
    path = only_file(archive.root)
    path.write_bytes(path.read_bytes() + garbage)
    assert reread(archive.root) == written
    assert "Skipped" in caplog.text
    assert archive.payload(written[0]) == b"one"


def test_a_damaged_record_does_not_take_its_neighbours_with_it(archive: Archive) -> None:
    written = three(archive)
    path = only_file(archive.root)
    whole = path.read_bytes()
    for number, (start, length) in enumerate(spans(path)):
        for at in (start, start + 12, start + length // 2, start + length - 6):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            rest = [entry for entry in written if entry.offset != start]
            assert reread(archive.root) == rest, f"record {number}, byte {at}"
    path.write_bytes(whole)
    assert reread(archive.root) == written


def test_a_page_cannot_smuggle_in_a_record(archive: Archive, tmp_path: Path) -> None:
    """A payload that holds a whole archive file must not be read as one when its own record is damaged."""
    other = Archive(tmp_path / "other")
    with other.writer() as writer:
        put(writer, b"forged", source="forged")
    noise = b"".join(hashlib.sha256(n.to_bytes(2, "big")).digest() for n in range(940))
    before, after = noise[:20_000], noise[20_000:]
    smuggled = only_file(other.root).read_bytes()
    with archive.writer() as writer:
        first = put(writer, b"one")
        # Deflate stores what it cannot compress, so the smuggled members stand in the file as they are.
        carrier = put(writer, before + smuggled + after, at=day(1))
        last = put(writer, b"three", at=day(2))
    path = only_file(archive.root)
    whole = path.read_bytes()
    assert smuggled in whole, "the test needs the smuggled bytes to be stored, not compressed"
    path.write_bytes(whole[: carrier.offset] + b"\0" * 12 + whole[carrier.offset + 12 :])
    assert reread(archive.root) == [first, last]


def test_an_altered_payload_is_noticed(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    """A record that is whole gzip and whole WARC, only with another price in it."""
    with archive.writer() as writer:
        entry = put(writer, b"<b>$ 199</b>")
        untouched = put(writer, b"other", at=day(1))
    path = only_file(archive.root)
    whole = path.read_bytes()
    (start, length) = spans(path)[1]
    record = gzip.decompress(whole[start : start + length]).replace(b"$ 199", b"$ 999")
    path.write_bytes(whole[:start] + gzip.compress(record) + whole[start + length :])
    found = reread(archive.root)
    # It is still known that the page was fetched; only what it said is not to be trusted.
    assert [e.snapshot_id for e in found] == [entry.snapshot_id, untouched.snapshot_id]
    assert "was altered" in caplog.text
    with pytest.raises(ArchiveError, match=r"not what was archived.*workbench weekly"):
        archive.payload(str(entry.snapshot_id))
    assert archive.payload(str(untouched.snapshot_id)) == b"other"


def test_a_payload_altered_together_with_its_digests_is_noticed(archive: Archive) -> None:
    with archive.writer() as writer:
        entry = put(writer, b"$ 199")
        forged = put(writer, b"$ 999", source="copy")
    path = only_file(archive.root)
    whole = path.read_bytes()
    start, length = spans(path)[2]
    assert start == forged.offset
    record = gzip.decompress(whole[start : start + length])
    record = record.replace(str(forged.snapshot_id).encode(), str(entry.snapshot_id).encode())
    path.write_bytes(whole[: entry.offset] + gzip.compress(record))
    assert reread(archive.root)[0].snapshot_id == entry.snapshot_id
    with pytest.raises(ArchiveError, match="does not match its snapshot id"):
        archive.payload(str(entry.snapshot_id))


KILLED = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from archives import day, put
from workbench.store.archive import Archive
with Archive(pathlib.Path(sys.argv[1])).writer() as writer:
    for number in range(1000):
        put(writer, str(number).encode(), at=day(number / 1000))
        print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_it_had_written(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    arguments = [sys.executable, "-c", KILLED, str(archive.root), str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen = int(line) + 1
            if seen == 25:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    path = only_file(archive.root)
    assert path.name.endswith(".open")
    with path.open("ab") as stream:
        stream.write(path.read_bytes()[300:400])  # the torn record that a kill in the middle of a write leaves

    kept = archive.entries()
    assert len(kept) >= seen
    assert [archive.payload(e) for e in kept] == [str(n).encode() for n in range(len(kept))]
    assert "at the end of" in caplog.text

    caplog.clear()
    with archive.writer() as writer:
        added = put(writer, b"next week", at=day(7))
    assert sorted(p.suffix for p in archive.root.glob("*.warc*")) == [".gz", ".gz"]
    assert "left open by a killed process" in caplog.text
    assert reread(archive.root) == [*kept, added]
    # What was known before the rescue is still good after it.
    assert archive.payload(kept[3]) == b"3"
    for file in archive.root.glob("*.warc.gz"):
        with file.open("rb") as stream:
            assert all(
                record.raw_stream.read() is not None for record in ArchiveIterator(stream, check_digests="raise")
            )


def test_an_open_file_without_a_whole_record_goes(archive: Archive) -> None:
    archive.root.mkdir()
    (archive.root / "20261116T060000000000Z-aa.warc.gz.open").write_bytes(b"\x1f\x8b\x08\x00")
    assert archive.entries() == []
    with archive.writer() as writer:
        entry = put(writer)
    assert [path.name for path in archive.root.glob("*.warc*")] == [entry.warc]


def test_a_rescue_cut_short_is_not_read_twice(archive: Archive) -> None:
    """A crash between the copy and the removal leaves both names."""
    written = three(archive)
    path = only_file(archive.root)
    copy = path.with_name(path.name + ".open")
    copy.write_bytes(path.read_bytes()[:-10])
    assert reread(archive.root) == written
    with archive.writer():
        pass
    assert not copy.exists()
    assert reread(archive.root) == written


WRITES = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from archives import day, put
from workbench.store.archive import Archive
name = sys.argv[3]
with Archive(pathlib.Path(sys.argv[1])).writer() as writer:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(50):
        put(writer, f"{name} {number}".encode(), at=day(number / 100), url=f"https://{name}.example/", source=name)
"""


def test_two_processes_write_at_once(archive: Archive) -> None:
    arguments = [sys.executable, "-c", WRITES, str(archive.root), str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([*arguments, "one"], **pipes) as one,  # type: ignore[call-overload]
        subprocess.Popen([*arguments, "two"], **pipes) as two,  # type: ignore[call-overload]
    ):
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        with pytest.raises(ArchiveError, match="being written to"):
            archive.prune(day(100))
        with archive.writer() as writer:  # and a third one, in this process, leaves the others' open files alone
            put(writer, b"three 0", at=day(3), url="https://three.example/", source="three")
        for process in (one, two):
            process.stdin.write("\n")
            process.stdin.flush()
        one.communicate()
        two.communicate()
    assert (one.returncode, two.returncode) == (0, 0)
    found = reread(archive.root)
    assert len(found) == 101
    assert len({entry.warc for entry in found}) == 3
    expected = {f"{name} {n}".encode() for name in ("one", "two") for n in range(50)} | {b"three 0"}
    assert {archive.payload(entry) for entry in found} == expected


def test_prune_keeps_what_a_younger_snapshot_refers_to(archive: Archive) -> None:
    with archive.writer(opened_at=MONDAY) as writer:
        needed = put(writer, b"needed")
        old = put(writer, b"old", url="https://ondine.example/old")
        failed = writer.attempt(source_id="s", url=URL, attempted_at=day(0), status="failed", note="timeout")
    with archive.writer(opened_at=day(1)) as writer:
        put(writer, b"also old", at=day(1), url="https://ondine.example/old")
        middle = writer.revisit(source_id="ondine-folio", url=URL, fetched_at=day(1), original=needed)
    with archive.writer(opened_at=day(10)) as writer:
        young = writer.revisit(source_id="ondine-folio", url=URL, fetched_at=day(10), original=middle)
        fresh = put(writer, b"fresh", at=day(10), url="https://ondine.example/old")
    known = archive.entries()
    assert len(known) == 7

    assert archive.prune(day(5)) == 4
    left = reread(archive.root)
    assert [e.snapshot_id for e in left] == [needed.snapshot_id, young.snapshot_id, fresh.snapshot_id]
    assert archive.payload(young) == b"needed"
    assert old not in left
    assert failed not in left
    assert len(list(archive.root.glob("*.warc.gz"))) == 2, "a file without records is deleted"
    with pytest.raises(ArchiveError, match="pruned"):
        archive.payload(old)
    # An entry read before the pruning has an offset that is no longer right; its snapshot is found all the same.
    assert archive.payload(needed) == b"needed"
    assert archive.prune(day(5)) == 0

    assert archive.prune(day(100)) == 3
    assert archive.entries() == []
    assert list(archive.root.glob("*.warc*")) == []
    assert list((archive.root / "index").iterdir()) == []


def test_prune_moves_records_and_still_finds_them(archive: Archive) -> None:
    with archive.writer() as writer:
        old = put(writer, b"x" * 5000)
        kept = put(writer, b"kept", at=day(10))
    assert archive.prune(day(5)) == 1
    found = archive.entries()
    assert [e.snapshot_id for e in found] == [kept.snapshot_id]
    assert found[0].offset < kept.offset
    assert archive.payload(kept) == b"kept"
    with only_file(archive.root).open("rb") as stream:
        kinds = [record.rec_type for record in ArchiveIterator(stream, check_digests="raise")]
    assert kinds == ["warcinfo", "response"]
    assert old.offset < kept.offset


def test_a_crash_while_pruning_loses_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with archive.writer() as writer:
        put(writer, b"old")
        kept = put(writer, b"kept", at=day(10))
    before = only_file(archive.root).read_bytes()

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.files.os.fsync", crash)
        with pytest.raises(OSError, match="no space"):
            archive.prune(day(5))
    assert only_file(archive.root).read_bytes() == before
    assert [path for path in archive.root.iterdir() if path.suffix == ".part"] == []
    assert archive.payload(kept) == b"kept"
    assert archive.prune(day(5)) == 1


def test_a_full_disk_leaves_no_half_record(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    class Full:
        """A file on a disk that runs full: a write takes only half."""

        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> object:
            return getattr(self.stream, name)

        def write(self, data: bytes) -> int:
            return self.stream.write(data[: len(data) // 2])  # type: ignore[attr-defined,no-any-return]

    with archive.writer() as writer:
        first = put(writer, b"one")
        good = writer._stream
        writer._stream = Full(good)  # type: ignore[assignment]
        with pytest.raises(ArchiveError, match="full"):
            put(writer, b"two", at=day(1))
        writer._stream = good
        third = put(writer, b"three", at=day(2))
    assert reread(archive.root) == [first, third]
    assert caplog.text == ""
