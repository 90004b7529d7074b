"""The lake: Delta tables of what was read from the archive, one folder a table, merged by key.

Everything in the lake can be made again from the archive, so a table that does not fit its declaration
(``workbench.store.tables``) is not repaired: delete the lake folder and run ``workbench weekly``.

A write is one Delta commit, so a reader sees all of it or none. A row is updated only if one of its values differs,
with nulls compared as values (``IS DISTINCT FROM``); when no row differs no file is written and the table keeps its
version.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from workbench.errors import LakeError
from workbench.store.tables import TABLES, Table

__all__ = ["Lake", "Upsert"]

log = logging.getLogger(__name__)

_DELETE = "__delete"
_ATTEMPTS = 10


@dataclass(frozen=True)
class Upsert:
    """What a write did, in rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0

    @property
    def changed(self) -> int:
        """Rows inserted, updated or deleted."""
        return self.inserted + self.updated + self.deleted


class Lake:
    """The Delta tables under ``root``: a folder, or the address of one on an object store (``s3://bucket/lake``).

    Credentials for an object store come from the environment, as deltalake reads them.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root) if isinstance(root, str) and "://" not in root else root

    def read(self, table: str) -> pl.DataFrame:
        """All rows in the declared schema, sorted by key; no rows when the table was never written.

        Raises LakeError when the table does not fit its declaration.
        """
        rows = self.scan(table)
        with _explained(table):
            return rows.sort(_declared(table).key).collect()

    def scan(self, table: str) -> pl.LazyFrame:
        """The table as a lazy frame in the declared schema, unsorted. Raises LakeError as ``read`` does."""
        declared = _declared(table)
        with _explained(table):
            delta = self._open(table)
            if delta is None:
                return pl.LazyFrame(schema=declared.schema)
            frame = pl.scan_delta(delta)
            problems = _differences(declared, frame.collect_schema())
            if isinstance(self.root, Path) and "%" in delta.table_uri:
                # deltalake escapes a folder's spaces and Chinese characters, and polars looks for the escaped name.
                paths = [unquote(uri) for uri in delta.file_uris()]
                frame = pl.scan_parquet(paths, glob=False) if paths else pl.LazyFrame(schema=declared.schema)
        if problems:
            raise LakeError(
                f"{self._uri(table)} does not fit this version of the workbench: {'; '.join(problems)}. "
                f"Delete the folder {self.root} and rebuild it from the archive with: workbench weekly"
            )
        return frame.select(declared.schema.names())

    def version(self, table: str) -> int | None:
        """Version of the table, which every write that changes something raises; None if it was never written."""
        _declared(table)
        with _explained(table):
            delta = self._open(table)
            return None if delta is None else delta.version()

    def upsert(self, table: str, rows: pl.DataFrame) -> Upsert:
        """Insert rows with a new key and update those whose values differ, in one commit.

        Raises LakeError when ``rows`` has other columns or types than declared, a null in its key or a key twice; and
        when the table in the lake does not fit its declaration.
        """
        return self._write(table, rows, None)

    def replace(self, table: str, rows: pl.DataFrame, *, where: Mapping[str, Sequence[str]]) -> Upsert:
        """Make ``rows`` the only rows whose columns have the values in ``where``, in one commit.

        ``where``: column name to the values allowed; several columns must all match. Rows that are there already stay
        as they are. Raises LakeError as ``upsert`` does, and when a row of ``rows`` lies outside ``where``.
        """
        declared = _declared(table)
        unknown = [column for column in where if column not in declared.schema]
        if unknown or not where:
            raise LakeError(
                f"Table {table} cannot be replaced by {', '.join(unknown) or 'nothing'}: "
                f"name one or more of its columns: {', '.join(declared.schema.names())}"
            )
        _check_rows(declared, rows)
        outside = rows.filter(~_matches(where))
        if not outside.is_empty():
            raise LakeError(
                f"Table {table}: {outside.height} rows lie outside of what they replace ({', '.join(where)}). "
                "Give only rows that match, or name more values."
            )
        return self._write(table, rows, _matches(where))

    def _write(self, table: str, rows: pl.DataFrame, within: pl.Expr | None) -> Upsert:
        declared = _declared(table)
        _check_rows(declared, rows)
        rows = rows.select(declared.schema.names())
        retrying = Retrying(
            retry=retry_if_exception_type(CommitFailedError),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            before_sleep=before_sleep_log(log, logging.DEBUG),
            reraise=True,
        )
        with _explained(table):
            return retrying(self._write_once, declared, rows, within)

    def _write_once(self, table: Table, rows: pl.DataFrame, within: pl.Expr | None) -> Upsert:
        stored = self.scan(table.name).select(table.key) if within is None else self.scan(table.name).filter(within)
        keys = list(table.key)
        gone = stored.select(keys).join(rows.lazy(), on=keys, how="anti").collect() if within is not None else None
        doomed = 0 if gone is None else gone.height
        if rows.is_empty() and not doomed:
            return Upsert()
        parts = [rows.with_columns(pl.lit(value=False).alias(_DELETE))]
        if gone is not None and doomed:
            parts.append(gone.with_columns(pl.lit(value=True).alias(_DELETE)))
        values = {column: f"s.{column}" for column in table.schema}
        differs = " OR ".join(f"(t.{c} IS DISTINCT FROM s.{c})" for c in table.schema if c not in table.key)
        done = (
            self._create(table)
            .merge(
                pl.concat(parts, how="diagonal"),
                predicate=" AND ".join(f"t.{column} = s.{column}" for column in table.key),
                source_alias="s",
                target_alias="t",
            )
            .when_matched_delete(f"s.{_DELETE}")
            .when_matched_update(values, predicate=differs)
            .when_not_matched_insert(values, predicate=f"NOT s.{_DELETE}")
            .execute()
        )
        inserted, updated = done["num_target_rows_inserted"], done["num_target_rows_updated"]
        return Upsert(inserted, updated, rows.height - inserted - updated, done["num_target_rows_deleted"])

    def _create(self, table: Table) -> DeltaTable:
        found = self._open(table.name)
        if found is not None:
            return found
        if isinstance(self.root, Path):
            self.root.mkdir(parents=True, exist_ok=True)
        # Two processes may both get here: the one that comes second finds the first one's table.
        write_deltalake(self._uri(table.name), pl.DataFrame(schema=table.schema), mode="ignore", name=table.name)
        return DeltaTable(self._uri(table.name))

    def _open(self, table: str) -> DeltaTable | None:
        uri = self._uri(table)
        return DeltaTable(uri) if DeltaTable.is_deltatable(uri) else None

    def _uri(self, table: str) -> str:
        return str(self.root / table) if isinstance(self.root, Path) else f"{self.root.rstrip('/')}/{table}"


@contextmanager
def _explained(table: str) -> Iterator[None]:
    try:
        yield
    except CommitFailedError as error:
        raise LakeError(
            f"Table {table} was being written by another process {_ATTEMPTS} times over ({error}). "
            "Wait until that is done and run the command again."
        ) from error
    except (DeltaError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        # A panic, which is no Exception, is what polars answers a data file with that is shorter than it should be.
        raise LakeError(
            f"Table {table} cannot be read or written: {error}. If it is damaged, delete the lake folder and rebuild "
            "it from the archive with: workbench weekly"
        ) from error


def _declared(table: str) -> Table:
    if table not in TABLES:
        raise LakeError(f"There is no table {table!r}. Use one of: {', '.join(TABLES)}")
    return TABLES[table]


def _matches(where: Mapping[str, Sequence[str]]) -> pl.Expr:
    return pl.all_horizontal(
        [pl.col(column).is_in(list(values)).fill_null(value=False) for column, values in where.items()]
    )


def _differences(table: Table, schema: pl.Schema) -> list[str]:
    """One text for each column that is not as declared."""
    found = []
    for column, expected in table.schema.items():
        if column not in schema:
            found.append(f"table {table.name}, column {column}: expected {expected}, got no such column")
        elif schema[column] != expected:
            found.append(f"table {table.name}, column {column}: expected {expected}, got {schema[column]}")
    extra = [column for column in schema if column not in table.schema]
    return [*found, *(f"table {table.name}, column {c}: expected no such column, got {schema[c]}" for c in extra)]


def _check_rows(table: Table, rows: pl.DataFrame) -> None:
    problems = _differences(table, rows.schema)
    if problems:
        raise LakeError(
            f"Nothing was written: {'; '.join(problems)}. Make the rows with schema=TABLES[{table.name!r}].schema. "
            "If an older lake gave these rows, delete its folder and run: workbench weekly"
        )
    keys = rows.select(table.key)
    for column in table.key:
        if keys[column].null_count():
            raise LakeError(f"Nothing was written: table {table.name}, column {column} is part of the key and null.")
    double = keys.filter(keys.is_duplicated())
    if not double.is_empty():
        first = ", ".join(f"{column} {value!r}" for column, value in double.row(0, named=True).items())
        raise LakeError(
            f"Nothing was written: table {table.name} got {double.height} rows that share a key, such as {first}. "
            "Give one row for each key."
        )
