from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from workbench.errors import LakeError
from workbench.store.lake import Lake, Upsert
from workbench.store.tables import TABLES

NOW = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "a lake, 墨舒")


def frame(table: str, *rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=TABLES[table].schema)


def plan(snapshot: str, position: int = 0, **values: Any) -> dict[str, Any]:
    return {"snapshot_id": snapshot, "position": position, "fetched_at": NOW, **values}


def state(lake: Lake, table: str) -> tuple[int | None, list[str]]:
    """Version and data files of a table: what must not move when nothing changed."""
    return lake.version(table), sorted(DeltaTable(Path(lake.root) / table).file_uris())


def test_every_table_is_empty_before_it_is_written(lake: Lake) -> None:
    for name, table in TABLES.items():
        assert lake.read(name).schema == table.schema
        assert lake.read(name).is_empty()
        assert lake.version(name) is None
        assert lake.upsert(name, frame(name)) == Upsert()
        assert lake.version(name) is None, "no rows make no table"
    assert not Path(lake.root).exists()


def test_every_table_keeps_types_and_nulls(lake: Lake) -> None:
    values: dict[Any, Any] = {
        pl.String: "墨舒 'M2'",
        pl.Int32: 2,
        pl.Float64: 0.1,
        pl.Float32: 0.5,
        pl.Date: date(2026, 11, 16),
        pl.Datetime: NOW,
        pl.Decimal: Decimal("12.3400"),
        pl.List: ["a", None, "b"],
    }
    for name, table in TABLES.items():
        full = {column: values[dtype.base_type()] for column, dtype in table.schema.items()}
        if "entities" in full:
            full["entities"] = [{"start": 0, "end": 2, "label": "brand", "text": "墨舒"}]
        empty = {column: (value if column in table.key else None) for column, value in full.items()}
        empty[table.key[0]] = "other"
        rows = frame(name, full, empty)
        assert lake.upsert(name, rows) == Upsert(inserted=2)
        assert_frame_equal(lake.read(name), rows.sort(table.key))
        before = state(lake, name)
        assert lake.upsert(name, rows) == Upsert(unchanged=2)
        assert state(lake, name) == before, name


def test_rows_come_back_sorted_by_key(lake: Lake) -> None:
    lake.upsert("plans", frame("plans", plan("b"), plan("a", 10), plan("a", 9)))
    lake.upsert("plans", frame("plans", plan("a", 1)))
    assert lake.read("plans").select("snapshot_id", "position").rows() == [("a", 1), ("a", 9), ("a", 10), ("b", 0)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"price": None}, {"price": Decimal("0")}),
        ({"price": Decimal("1")}, {"price": None}),
        ({"price": Decimal("1.0000")}, {"price": Decimal("1.0001")}),
        ({"name": None}, {"name": ""}),
        ({"features": None}, {"features": []}),
        ({"features": ["a"]}, {"features": ["a", None]}),
        ({"features": ["a", "b"]}, {"features": ["b", "a"]}),
        ({"features": ["a"]}, {"features": None}),
    ],
)
def test_only_the_row_that_differs_is_updated(lake: Lake, before: dict[str, Any], after: dict[str, Any]) -> None:
    lake.upsert("plans", frame("plans", plan("a", **before), plan("b", **before)))
    assert lake.upsert("plans", frame("plans", plan("a", **after), plan("b", **before))) == Upsert(
        updated=1, unchanged=1
    )
    (column,) = after
    assert lake.read("plans")[column].to_list() == [after[column], before[column]]
    stands = state(lake, "plans")
    assert lake.upsert("plans", frame("plans", plan("a", **after))) == Upsert(unchanged=1)
    assert state(lake, "plans") == stands


def test_files_without_a_changed_row_are_not_rewritten(lake: Lake) -> None:
    lake.upsert("plans", frame("plans", plan("a"), plan("b")))
    (first_file,) = state(lake, "plans")[1]
    lake.upsert("plans", frame("plans", plan("c")))
    rows = frame("plans", plan("a"), plan("b"), plan("c", name="Pro"), plan("d"))
    assert lake.upsert("plans", rows) == Upsert(inserted=1, updated=1, unchanged=2)
    assert first_file in state(lake, "plans")[1]


cells = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(max_size=5),
        "price": st.none() | st.decimals(-999, 999, places=4, allow_nan=False),
        "features": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
    }
)
tables = st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), cells, max_size=5)


@settings(max_examples=12, deadline=None)
@given(first=tables, second=tables)
def test_upsert_and_replace_do_what_a_dict_does(
    tmp_path_factory: pytest.TempPathFactory, first: dict[Any, Any], second: dict[Any, Any]
) -> None:
    def rows(cells: dict[Any, Any]) -> pl.DataFrame:
        return frame("plans", *(plan(snapshot, n, **values) for (snapshot, n), values in cells.items()))

    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.upsert("plans", rows(first))
    done = lake.upsert("plans", rows(second))
    merged = {**first, **second}
    assert_frame_equal(lake.read("plans"), rows(merged).sort("snapshot_id", "position"))
    assert done.inserted == len(second.keys() - first.keys())
    assert done.updated == sum(first[key] != second[key] for key in first.keys() & second.keys())
    assert done.inserted + done.updated + done.unchanged == len(second)

    only_a = {key: values for key, values in first.items() if key[0] == "a"}
    lake.replace("plans", rows(only_a), where={"snapshot_id": ["a"]})
    expected = {key: values for key, values in merged.items() if key[0] != "a"} | only_a
    assert_frame_equal(lake.read("plans"), rows(expected).sort("snapshot_id", "position"))
    version = lake.version("plans")
    lake.replace("plans", rows(only_a), where={"snapshot_id": ["a"]})
    lake.upsert("plans", rows(expected))
    assert lake.version("plans") == version


def test_replace_takes_away_what_is_no_longer_there(lake: Lake) -> None:
    lake.upsert("plans", frame("plans", plan("a", 0), plan("a", 1), plan("b", 0)))
    version = lake.version("plans")
    assert version is not None
    done = lake.replace("plans", frame("plans", plan("a", 1), plan("a", 2)), where={"snapshot_id": ["a", "nowhere"]})
    assert done == Upsert(inserted=1, unchanged=1, deleted=1)
    assert done.changed == 2
    assert lake.version("plans") == version + 1, "a replacement is one commit"
    assert lake.read("plans").select("snapshot_id", "position").rows() == [("a", 1), ("a", 2), ("b", 0)]
    assert lake.replace("plans", frame("plans"), where={"snapshot_id": ["a"]}) == Upsert(deleted=2)
    assert lake.replace("plans", frame("plans"), where={"snapshot_id": ["a"]}) == Upsert()
    assert lake.version("plans") == version + 2
    assert lake.read("plans")["snapshot_id"].to_list() == ["b"]


def test_replace_may_take_a_row_over_from_elsewhere(lake: Lake) -> None:
    """A review whose first snapshot turns out to be an older one changes its owner and stays one row."""
    lake.upsert("reviews", frame("reviews", {"review_id": "r", "snapshot_id": "later"}))
    moved = frame("reviews", {"review_id": "r", "snapshot_id": "earlier"})
    assert lake.replace("reviews", moved, where={"snapshot_id": ["earlier"]}) == Upsert(updated=1)
    assert_frame_equal(lake.read("reviews"), moved)


def test_replace_with_several_columns_needs_all_to_match(lake: Lake) -> None:
    rows = frame("plans", *(plan(s, company_id=c) for s, c in (("1", "x"), ("2", "y"))))
    lake.upsert("plans", rows)
    done = lake.replace("plans", frame("plans"), where={"snapshot_id": ["1", "2"], "company_id": ["y", "z"]})
    assert done == Upsert(deleted=1)
    assert lake.read("plans")["snapshot_id"].to_list() == ["1"]


def test_replace_refuses_rows_outside(lake: Lake) -> None:
    with pytest.raises(LakeError, match="1 rows lie outside"):
        lake.replace("plans", frame("plans", plan("a"), plan("b")), where={"snapshot_id": ["a"]})
    with pytest.raises(LakeError, match="week"):
        lake.replace("plans", frame("plans"), where={"week": ["2026-W47"]})
    with pytest.raises(LakeError, match="name one or more"):
        lake.replace("plans", frame("plans"), where={})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            pl.DataFrame({"week": ["2026-W47"]}),
            r"table sources, column company_id: expected String, got no such column",
        ),
        (frame("sources").with_columns(extra=pl.lit(1)), r"column extra: expected no such column, got Int32"),
        (
            frame("sources").with_columns(pl.col("http_status").cast(pl.Int64)),
            r"http_status: expected Int32, got Int64",
        ),
        (
            frame("sources", {"week": "w", "source_id": None, "url": "u"}),
            r"column source_id is part of the key and null",
        ),
        (frame("sources", *[{"week": "w", "source_id": "s", "url": "u"}] * 2), r"2 rows that share a key.*week 'w'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(lake: Lake, rows: pl.DataFrame, message: str) -> None:
    with pytest.raises(LakeError, match=message):
        lake.upsert("sources", rows)
    assert lake.version("sources") is None


def test_columns_may_come_in_any_order(lake: Lake) -> None:
    rows = frame("plans", plan("a", name="Pro"))
    lake.upsert("plans", rows.select(sorted(rows.columns)))
    assert_frame_equal(lake.read("plans"), rows)


def test_a_table_of_another_version_is_not_read_as_this_one(lake: Lake) -> None:
    old = (
        frame("offers").drop("condition").with_columns(pl.col("price").cast(pl.Float64), pl.lit("x").alias("colour"))
    )
    write_deltalake(Path(lake.root) / "offers", old)
    for use in (lake.read, lake.scan, lambda table: lake.upsert(table, frame(table, plan("a")))):
        with pytest.raises(LakeError) as caught:
            use("offers")
        message = str(caught.value)
        assert r"table offers, column price: expected Decimal(precision=18, scale=4), got Float64" in message
        assert "column condition: expected String, got no such column" in message
        assert "column colour: expected no such column" in message
        assert message.endswith("workbench weekly")


@pytest.mark.parametrize("damage", ["deleted", "cut short", "overwritten"])
def test_a_damaged_table_is_named(lake: Lake, damage: str) -> None:
    lake.upsert("plans", frame("plans", plan("a")))
    (data,) = (Path(lake.root) / "plans").glob("*.parquet")
    if damage == "deleted":
        data.unlink()
    else:
        data.write_bytes(b"\0" * (data.stat().st_size if damage == "overwritten" else 100))
    for use in (lake.read, lambda table: lake.upsert(table, frame(table, plan("a")))):
        with pytest.raises(LakeError, match=r"Table plans cannot be read.*workbench weekly"):
            use("plans")


def test_unknown_tables_are_named(lake: Lake) -> None:
    for use in (lake.read, lake.scan, lake.version):
        with pytest.raises(LakeError, match="Use one of: sources, pages"):
            use("page")


def test_a_lake_can_be_an_address(tmp_path: Path) -> None:
    address = (tmp_path / "address").as_uri() + "/"
    lake = Lake(address)
    rows = frame("plans", plan("a"))
    assert lake.upsert("plans", rows) == Upsert(inserted=1)
    assert lake.upsert("plans", rows) == Upsert(unchanged=1)
    assert_frame_equal(lake.read("plans"), rows)
    for same in (Lake(tmp_path / "address"), Lake(str(tmp_path / "address"))):
        assert_frame_equal(same.read("plans"), rows)


WRITES = """
import sys, pathlib
import polars as pl
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
root, name = sys.argv[1:]
lake = Lake(pathlib.Path(root))
print("ready", flush=True)
sys.stdin.readline()
for n in range(5):
    rows = [{"change_id": f"{which} {n}", "week": "w", "why": name} for which in (name, "both")]
    lake.upsert("changes", pl.DataFrame(rows, schema=TABLES["changes"].schema))
"""


def test_processes_that_write_the_same_table_wait_for_each_other(lake: Lake) -> None:
    names = ("one", "two", "three")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITES, str(lake.root), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    found = lake.read("changes")["change_id"].to_list()
    expected = [f"{name} {n}" for name in names for n in range(5)] + [f"both {n}" for n in range(5)]
    assert sorted(found) == sorted(expected), "no row is lost and none is there twice"


def test_a_conflict_is_tried_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits between our look at the table and our commit."""
    lake.upsert("plans", frame("plans", plan("a")))
    original, raced = Lake._create, []

    def slip_in(self: Lake, table: Any) -> DeltaTable:
        opened = original(self, table)
        if not raced:
            raced.append(Upsert())
            raced.append(Lake(self.root).upsert("plans", frame("plans", plan("a", name="theirs"), plan("b"))))
        return opened

    monkeypatch.setattr(Lake, "_create", slip_in)
    done = lake.upsert("plans", frame("plans", plan("a", name="ours"), plan("b")))
    assert raced[1:] == [Upsert(inserted=1, updated=1)]
    assert done == Upsert(updated=1, unchanged=1)
    assert lake.read("plans").select("snapshot_id", "name").rows() == [("a", "ours"), ("b", None)]
