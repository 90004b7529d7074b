"""A file of texts to a file of scores: ``workbench score-file``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import polars as pl

from workbench.errors import ParameterError
from workbench.files import atomic_write
from workbench.scoring.api import Scorer, open_scorer
from workbench.tasks.labels import TASKS

__all__ = ["FORMATS", "FileScores", "score_file"]

FORMATS: Final = (".csv", ".jsonl", ".ndjson", ".parquet")
"""What can be read and written, by suffix."""

_CHUNK_ROWS: Final = 1024


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
    progress: bool = True,
) -> FileScores:
    """Score the column ``text_column`` of ``source`` and write all its rows and columns, with the scores, to ``out``.

    CSV, JSON lines and Parquet are told by the suffix, on both sides. Columns of a CSV file stay the text they are;
    into a CSV file, topics and entities are written as JSON. ``prefix`` goes before the names of the new columns, for
    a source that has such columns already. The file is read in chunks, and ``out`` appears when it is whole.
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
    with open_scorer(tasks=tasks, backend=backend, models=models) as scorer:
        new = [f"{prefix}{name}" for name in scorer.schema]
        if double := [name for name in new if name in schema]:
            raise ParameterError(
                f"{source} has a column {double[0]!r} already. Give the new columns a prefix: --prefix scored_"
            )
        rows = unread = 0
        with _writer(out) as write, _bar(source, frame, progress) as advance, _readable(source):
            for chunk in _chunks(frame):
                scores = scorer.score(chunk[text_column].cast(pl.String))
                unread += scores["reason"].count()
                write(chunk.hstack(scores.rename({name: f"{prefix}{name}" for name in scores.columns})))
                rows += len(chunk)
                advance(len(chunk))
            if not rows:
                write(_empty(schema, scorer, prefix))
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


def _empty(schema: pl.Schema, scorer: Scorer, prefix: str) -> pl.DataFrame:
    return pl.DataFrame(schema={**schema, **{f"{prefix}{name}": kind for name, kind in scorer.schema.items()}})


class _Writer:
    """Appends frames to a stream in the format of a suffix."""

    def __init__(self, stream: IO[bytes], suffix: str, parts: Path) -> None:
        self.stream = stream
        self.suffix = suffix
        self.parts = parts
        self.count = 0

    def __call__(self, frame: pl.DataFrame) -> None:
        if self.suffix == ".csv":
            _flat(frame).write_csv(self.stream, include_header=not self.count)
        elif self.suffix == ".parquet":
            frame.write_parquet(self.parts / f"{self.count:08}.parquet")
        else:
            frame.write_ndjson(self.stream)
        self.count += 1

    def finish(self) -> None:
        """Put the parts of a Parquet file together, without holding them all."""
        if self.suffix == ".parquet":
            pl.scan_parquet(sorted(self.parts.iterdir())).sink_parquet(self.stream)


@contextmanager
def _writer(out: Path) -> Iterator[_Writer]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(out) as stream,
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".parts") as parts,
    ):
        writer = _Writer(stream, out.suffix.lower(), Path(parts))
        yield writer
        writer.finish()


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
def _bar(source: Path, frame: pl.LazyFrame, progress: bool) -> Iterator[Any]:
    if not progress:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    # Only Parquet says how many rows it has without being read.
    total = frame.select(pl.len()).collect().item() if source.suffix.lower() == ".parquet" else None
    with tqdm(total=total, unit="row", desc=f"Scoring {source.name}") as bar:
        yield bar.update
