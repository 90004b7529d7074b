"""A file of texts to a file of scores: ``workbench score-file``."""

from __future__ import annotations

import json
import queue
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import polars as pl
from polars.io.plugins import register_io_source

from workbench.errors import ParameterError
from workbench.files import atomic_write
from workbench.runtime.read import split_texts
from workbench.scoring.api import Scorer, open_scorer
from workbench.tasks.labels import TASKS

__all__ = ["FORMATS", "FileScores", "score_file"]

FORMATS: Final = (".csv", ".jsonl", ".ndjson", ".parquet")
"""What can be read and written, by suffix."""

_CHUNK_ROWS: Final = 4096
_GROUP_ROWS: Final = 65_536  # of a row group: large ones are written and read faster
_WRITE_AHEAD: Final = 8  # chunks that wait to be written
_TICK_S: Final = 0.1


@dataclass(frozen=True)
class FileScores:
    """What ``score_file`` wrote: all rows of the source, ``unread`` of them with a reason instead of scores."""

    out: Path
    rows: int
    unread: int
    models: tuple[str, ...]

    def summary(self) -> str:
        """One line for a person."""
        unread = f", {self.unread} of them with a reason instead of scores" if self.unread else ""
        return f"{self.rows} rows{unread}, read by {' and '.join(self.models)}: {self.out}"


def score_file(
    source: Path | str,
    *,
    text_column: str,
    out: Path | str,
    tasks: Sequence[str] = TASKS,
    backend: str = "auto",
    models: Mapping[str, Path | str] | None = None,
    prefix: str = "",
    scorer: Scorer | None = None,
    progress: bool = True,
) -> FileScores:
    """Score the column ``text_column`` of ``source`` and write all its rows and columns, with the scores, to ``out``.

    CSV, JSON lines and Parquet are told by the suffix, on both sides. Columns of a CSV file stay the text they are;
    into a CSV file, topics and entities are written as JSON. ``prefix`` goes before the names of the new columns, for
    a source that has such columns already. ``scorer``: one that is open, which is used and left open; ``tasks``,
    ``backend`` and ``models`` do not count then. The file is read, scored and written in chunks, all three at once,
    and ``out`` appears when it is whole.
    Raises ParameterError when a file, column or task is wrong, ModelError when a model cannot be loaded.
    """
    source, out = Path(source), Path(out)
    _check_paths(source, out)
    with _readable(source):
        frame = _scan(source)
        schema = frame.collect_schema()
    if text_column not in schema:
        raise ParameterError(
            f"{source} has no column {text_column!r}. Its columns: {', '.join(schema)}. Name one with --text-column."
        )
    if not isinstance(schema[text_column], (pl.String, pl.Null, pl.Categorical, pl.Enum)):
        raise ParameterError(
            f"Column {text_column!r} of {source} holds {schema[text_column]}, not text. "
            "Name another with --text-column."
        )
    with nullcontext(scorer) if scorer else open_scorer(tasks=tasks, backend=backend, models=models) as scorer:
        new = [f"{prefix}{name}" for name in scorer.schema]
        if double := [name for name in new if name in schema]:
            raise ParameterError(
                f"{source} has a column {double[0]!r} already. Give the new columns a prefix: --prefix scored_"
            )
        rows = unread = 0
        names = dict(zip(scorer.schema, new, strict=True))
        total = _row_count(source, frame)
        read: deque[pl.DataFrame] = deque()

        def texts() -> Iterator[list[str | None]]:
            at_once, cut = scorer.workers, 0
            for chunk in _chunks(frame):
                own = chunk[text_column].cast(pl.String).to_list()
                # Those that are tokenized first are small, so that a GPU does not wait long for the first one.
                for start, end in split_texts(own, parts=at_once if cut < at_once else 1):
                    read.append(chunk[start:end])
                    cut += 1
                    yield own[start:end]

        whole = pl.Schema({**schema, **{names[name]: kind for name, kind in scorer.schema.items()}})
        with _writer(out, whole) as write, _bar(source, total, progress) as advance, _readable(source):
            scored = scorer.score_chunks(texts(), expected=total or 0, advance=advance)
            with closing(scored):
                for scores in scored:
                    unread += scores["reason"].count()
                    rows += len(scores)
                    write(read.popleft().hstack(scores.rename(names)))
        return FileScores(out, rows, unread, tuple(session.spec.title for session in scorer.sessions))


def _check_paths(source: Path, out: Path) -> None:
    for path, role in ((source, "read"), (out, "write")):
        if path.suffix.lower() not in FORMATS:
            raise ParameterError(f"Cannot {role} {path}: its name must end in one of {', '.join(FORMATS)}")
    if not source.is_file():
        raise ParameterError(f"No file {source}. Check the path.")
    if source.resolve() == out.resolve():
        raise ParameterError(f"{out} is the file that is read. Name another one with --out.")


def _scan(source: Path) -> pl.LazyFrame:
    # A file's name is a name, not a pattern, and a column of a CSV file stays text: 007 is not 7.
    if source.suffix.lower() == ".csv":
        return pl.scan_csv(source, infer_schema=False, glob=False)
    if source.suffix.lower() == ".parquet":
        return pl.scan_parquet(source, glob=False)
    # All lines are looked at for their keys: one that appears late is kept too.
    return pl.scan_ndjson(source, infer_schema_length=None)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0]
        hint = "Save it as UTF-8 and try again." if "utf-8" in first.lower() else "Mend the file and try again."
        raise ParameterError(f"{source} cannot be read: {first}. {hint}") from None


def _chunks(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    for batch in frame.collect_batches(chunk_size=_CHUNK_ROWS, maintain_order=True):
        yield from batch.iter_slices(_CHUNK_ROWS)


def _row_count(source: Path, frame: pl.LazyFrame) -> int | None:
    """Only Parquet says how many rows it has without being read."""
    return int(frame.select(pl.len()).collect().item()) if source.suffix.lower() == ".parquet" else None


class _AbandonedError(Exception):
    """Ends the writing of a file that will not become whole."""


class _Writer:
    """Appends frames to a stream in the format of a suffix, in a thread of its own.

    Written frames are forgotten: only a row group and the frames that wait are in memory.
    """

    def __init__(self, out: Path, stream: IO[bytes], schema: pl.Schema) -> None:
        self._out = out
        self._stream = stream
        self._schema = schema
        self._waiting: queue.Queue[pl.DataFrame | None] = queue.Queue(_WRITE_AHEAD)
        self._abandoned = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        write = {".csv": self._write_csv, ".parquet": self._write_parquet}.get(out.suffix.lower(), self._write_ndjson)
        self._written = self._thread.submit(write)

    def __call__(self, frame: pl.DataFrame | None) -> None:
        """Write ``frame``; None ends the file. Raises ParameterError when it, or one before it, cannot be written."""
        while True:
            if self._written.done():
                self._result()
            try:
                return self._waiting.put(frame, timeout=_TICK_S)
            except queue.Full:
                continue

    def finish(self) -> None:
        """Wait until everything is written."""
        self(None)
        self._result()
        self._thread.shutdown()

    def abandon(self) -> None:
        """Write no more."""
        self._abandoned = True
        self._thread.shutdown(wait=True)

    def _result(self) -> None:
        try:
            self._written.result()
        except (pl.exceptions.PolarsError, OSError) as error:
            first = str(error).strip().splitlines()[0].rstrip(".")
            raise ParameterError(
                f"{self._out} cannot be written: {first}. Make room, or name another file with --out."
            ) from None

    def _frames(self) -> Iterator[pl.DataFrame]:
        while True:
            try:
                frame = self._waiting.get(timeout=_TICK_S)
            except queue.Empty:
                if self._abandoned:
                    raise _AbandonedError from None
                continue
            if frame is None:
                return
            yield frame

    def _write_parquet(self) -> None:
        def frames(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            # What a reader of the frame might ask for; writing asks for everything.
            for frame in self._frames():
                yield frame if columns is None else frame.select(columns)

        register_io_source(frames, schema=self._schema).sink_parquet(self._stream, row_group_size=_GROUP_ROWS)

    def _write_csv(self) -> None:
        _flat(pl.DataFrame(schema=self._schema)).write_csv(self._stream)
        for frame in self._frames():
            _flat(frame).write_csv(self._stream, include_header=False)

    def _write_ndjson(self) -> None:
        for frame in self._frames():
            frame.write_ndjson(self._stream)


@contextmanager
def _writer(out: Path, schema: pl.Schema) -> Iterator[_Writer]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as stream:
        writer = _Writer(out, stream, schema)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists and records as JSON: a CSV cell holds text."""
    return frame.with_columns(
        pl.Series(name, [_json(value) for value in frame[name].to_list()], dtype=pl.String)
        for name, kind in frame.schema.items()
        if kind.is_nested()
    )


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)


@contextmanager
def _bar(source: Path, total: int | None, progress: bool) -> Iterator[Any]:
    if not progress:
        yield None
        return
    from workbench.progress import tqdm

    with tqdm(total=total, unit="row", desc=f"Scoring {source.name}") as bar:
        yield bar.update
