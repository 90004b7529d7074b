"""Reviews from files."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import WEEK, Site, make_workspace, on, product_page

from workbench.errors import ArchiveError, ParameterError
from workbench.extract.page import Page, Review
from workbench.flow import find_snapshot
from workbench.ingest import ingest_week
from workbench.ingest.authors import MASK, redactor
from workbench.ingest.evidence import import_entries, prune_imports
from workbench.ingest.exports import columns_of, read_records, value_at
from workbench.ingest.imports import import_reviews, parse_mapping
from workbench.ingest.masking import WORD, NameMask
from workbench.ingest.values import day_of, language_of, rating_of
from workbench.store.lake import Lake

CSV = """Comment,Stars,Headline,User,When,Link
"The pen is quick, and quiet.",5,Like paper,Mary Ann Lee,2026-11-17,https://store.example/1
"Sync stops
after a day",2,,Bo,18 November 2026,
,4,,Cy,2026-11-18,
电池很耐用，屏幕清晰。,4,,小明,2026年11月19日,javascript:alert(1)
"Thanks Mary ann lee, I agree.",5,,Dee,2026-11-20,
"""
MAP = {"text": "Comment", "rating": "Stars", "title": "Headline", "author": "User", "date": "When", "url": "Link"}
EXPORTED = on(5)


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    return make_workspace(tmp_path / "watch")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "App Store.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def take(file: Path, workspace: Any, **options: Any) -> Any:
    given_options = {"mapping": MAP, "company": "ondine", "name": "appstore", "exported": EXPORTED, **options}
    return import_reviews(file, workspace, **given_options)


def reviews(workspace: Any) -> pl.DataFrame:
    return Lake(workspace.lake_dir).read("reviews").sort("published", "text")


def test_an_export_becomes_reviews_with_the_file_as_evidence(workspace: Any, export: Path) -> None:
    result = take(export, workspace)
    assert (result.rows, result.reviews, result.without_text) == (5, 4, 1)
    rows = reviews(workspace)
    assert rows["source_id"].unique().to_list() == ["import:appstore"]
    assert rows["company_id"].unique().to_list() == ["ondine"]
    assert rows["published"].to_list() == [date(2026, 11, day) for day in (17, 18, 19, 20)]
    assert rows["rating"].to_list() == [5, 2, 4, 5]
    assert rows["rating_scale"].to_list() == [5] * 4
    assert rows["title"].to_list() == ["Like paper", None, None, None]
    assert rows["text"][1] == "Sync stops\nafter a day"
    assert rows["language"].to_list() == ["en", "en", "zh", "en"]
    assert rows["url"].to_list() == ["https://store.example/1", *["import:appstore"] * 3]
    assert "2026-W47" in result.summary()
    assert "1 without text" in result.summary()
    entry, payload = find_snapshot(workspace, rows["snapshot_id"][0][:12])
    assert payload == export.read_bytes()
    assert entry.note == "App Store.csv"
    assert (workspace.root / entry.warc).read_bytes() == payload


def test_authors_are_hashed_and_masked_as_on_pages(workspace: Any, export: Path) -> None:
    take(export, workspace)
    rows = reviews(workspace)
    assert rows["text"][3] == f"Thanks {MASK}, I agree."
    assert all(len(value) == 32 for value in rows["author_hash"])
    assert "Mary" not in rows.write_csv()
    # The same review on a page is the same row.
    site = Site(workspace)
    text = "The pen is quick, and quiet."
    page = {"author": "Mary Ann Lee", "title": "Like paper", "text": text, "date": "2026-11-17", "rating": 5}
    site.show(product_page(reviews=[page]), on(6))
    ingest_week(workspace, WEEK, progress=False)
    assert reviews(workspace).filter(pl.col("text") == text).height == 1
    assert take(export, workspace).changed.changed == 0


def test_importing_again_changes_nothing(workspace: Any, export: Path) -> None:
    take(export, workspace, exported=None)
    lake = Lake(workspace.lake_dir)
    before = lake.version("reviews"), lake.version("pages"), lake.read("reviews").rows()
    again = take(export, workspace, exported=None)
    assert again.changed.changed == 0
    assert (lake.version("reviews"), lake.version("pages"), lake.read("reviews").rows()) == before


def test_a_better_mapping_replaces_what_the_first_one_gave(workspace: Any, export: Path) -> None:
    take(export, workspace, mapping={"text": "Comment"})
    assert reviews(workspace)["rating"].null_count() == 4
    result = take(export, workspace)
    assert reviews(workspace)["rating"].null_count() == 0
    assert reviews(workspace).height == result.reviews == 4


def test_a_later_export_brings_only_what_is_new(workspace: Any, export: Path, tmp_path: Path) -> None:
    take(export, workspace)
    first = reviews(workspace)
    later = tmp_path / "later.csv"
    later.write_text(CSV + "New this time,1,,Eve,2026-11-21,\n", encoding="utf-8")
    result = take(later, workspace, exported=on(6))
    assert (result.reviews, result.known) == (1, 4)
    assert reviews(workspace).head(4).equals(first)
    # Exports may come in any order: a review belongs to the earliest.
    oldest = tmp_path / "oldest.csv"
    oldest.write_text(CSV.splitlines()[0] + "\n" + "\n".join(CSV.splitlines()[1:2]) + "\n", encoding="utf-8")
    take(oldest, workspace, exported=on(1))
    assert reviews(workspace)["fetched_at"].to_list() == [on(1), on(5), on(5), on(5), on(6)]
    assert reviews(workspace).height == 5


def test_imports_come_back_when_the_lake_is_made_again(workspace: Any, export: Path) -> None:
    take(export, workspace)
    before = reviews(workspace)
    for path in sorted(workspace.lake_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    workspace.lake_dir.rmdir()
    ingest_week(workspace, WEEK, progress=False)
    assert reviews(workspace).equals(before)
    versions = Site(workspace).versions()
    ingest_week(workspace, WEEK, progress=False)
    assert Site(workspace).versions() == versions


def test_evidence_that_was_changed_is_told(workspace: Any, export: Path) -> None:
    take(export, workspace)
    entry = import_entries(workspace)[0]
    (workspace.root / entry.warc).write_text("something else")
    with pytest.raises(ArchiveError, match="was changed since it was imported"):
        find_snapshot(workspace, str(entry.snapshot_id))
    take(export, workspace)
    assert find_snapshot(workspace, str(entry.snapshot_id))[1] == export.read_bytes()


def test_pruning_deletes_old_files_only(workspace: Any, export: Path) -> None:
    take(export, workspace)
    assert prune_imports(workspace, on(4)) == 0
    take(export, workspace, name="second", exported=on(1))
    assert prune_imports(workspace, on(4)) == 1
    assert len(import_entries(workspace)) == 1
    assert find_snapshot(workspace, str(import_entries(workspace)[0].snapshot_id))[1] == export.read_bytes()
    assert prune_imports(workspace, on(9)) == 1
    assert list((workspace.root / "imports").iterdir()) == []


def test_companies_and_sources_may_stand_in_columns(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    rows = [
        {"text": "Good pen", "company": "Ondine Labs", "source": "App Store", "date": "2026-11-17"},
        {"text": "Good case", "company": "LARKPAPER", "source": "Play", "date": 1795132800},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    import_reviews(path, workspace, exported=EXPORTED)
    found = reviews(workspace).select("company_id", "source_id", "published").rows()
    assert found == [
        ("ondine", "import:app-store", date(2026, 11, 17)),
        ("larkpaper", "import:play", date(2026, 11, 20)),
    ]
    assert len(import_entries(workspace)) == 2
    rows.append({"text": "?", "company": "Acme", "source": "x", "date": ""})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ParameterError, match=r"'Acme' is no company of the workspace\. Known: larkpaper, ondine"):
        import_reviews(path, workspace)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": {**MAP, "text": "Kommentar"}}, "no column 'Kommentar' for text. Its columns: Comment, Stars"),
        ({"mapping": {"stars": "Stars"}}, "No field is named 'stars'. Fields: text, title"),
        ({"mapping": {"rating": "Stars"}}, "--map text=COLUMN"),
        ({"mapping": {}}, "--map text=COLUMN"),
        ({"company": None}, "Name it with --company ID"),
        ({"company": "acme"}, "'acme' is no company of the workspace"),
        ({"name": "…"}, "--name appstore"),
        ({"records": "data"}, "leave --records out"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(
    options: dict[str, Any], message: str, workspace: Any, export: Path
) -> None:
    with pytest.raises(ParameterError, match=message):
        take(export, workspace, **options)
    assert not (workspace.root / "imports").exists()
    assert Lake(workspace.lake_dir).version("reviews") is None


def test_values_that_are_not_understood_are_counted(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("text,rating,date\nOne,7,yesterday\nTwo,fine,2026-11-17\nThree,2,\nThree,2,\n", encoding="utf-8")
    result = import_reviews(path, workspace, company="ondine", rating_scale=5, exported=EXPORTED)
    assert "1 dates were not understood, such as 'yesterday'" in result.summary()
    assert "2 ratings were not understood" in result.summary()
    assert (result.reviews, result.repeated) == (3, 1)


def test_a_file_without_reviews_writes_nothing_into_the_lake(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("text,rating\n,5\n", encoding="utf-8")
    result = import_reviews(path, workspace, company="ondine")
    assert (result.reviews, result.without_text) == (0, 1)
    assert Lake(workspace.lake_dir).version("reviews") is None


# Files

DUMP = {
    "page": 1,
    "tags": ["a"],
    "data": {"reviews": [{"id": 1, "body": {"en": "Fine"}, "user": {"name": "Al"}, "votes": [{"n": 3}]}]},
}


def test_nested_documents_are_read_by_path() -> None:
    records = read_records(json.dumps(DUMP).encode(), "dump.json")
    assert columns_of(records) == ["id", "body.en", "user.name", "votes.0.n"]
    assert [value_at(records[0], column) for column in columns_of(records)] == [1, "Fine", "Al", 3]
    two = {**DUMP, "more": [{"x": 1}]}
    with pytest.raises(ParameterError, match=r"several lists: data\.reviews, more"):
        read_records(json.dumps(two).encode(), "dump.json")
    assert read_records(json.dumps(two).encode(), "dump.json", records="more") == [{"x": 1}]
    with pytest.raises(ParameterError, match=r"no list of objects at 'x'\. Lists there: data\.reviews, more"):
        read_records(json.dumps(two).encode(), "dump.json", records="x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_spreadsheets_of_all_kinds_are_read(encoding: str, separator: str) -> None:
    lines = [["评论", "星级"], ["物流很快，屏幕清晰，就是价格有点高。手写的感觉非常好，推荐大家购买。", "4"]]
    text = "\r\n".join(separator.join(f'"{cell}"' for cell in line) for line in lines)
    records = read_records(text.encode(encoding), "x.csv")
    assert records == [{"评论": lines[1][0], "星级": "4"}]


RSS = """<?xml version="1.0"?><rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>Forum</title>
<item><title>Pen</title><description>&lt;p&gt;Writes &lt;b&gt;well&lt;/b&gt;.&lt;/p&gt;
&lt;p&gt;5 &amp;lt; 6&lt;/p&gt;</description>
<dc:creator>Al</dc:creator><pubDate>Tue, 17 Nov 2026 08:00:00 GMT</pubDate><link>https://f.example/1</link></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:im="http://store.example/im"><title>Store</title>
<entry><title>Stops</title><content type="text">Sync stops</content><author><name>Bo</name></author>
<updated>2026-11-18T07:00:00-07:00</updated><link href="https://s.example/2"/><im:rating>2</im:rating></entry></feed>"""


def test_items_of_feeds_are_comments(workspace: Any, tmp_path: Path) -> None:
    for name, feed in (("forum.rss", RSS), ("store.atom", ATOM)):
        (tmp_path / name).write_text(feed, encoding="utf-8")
        import_reviews(tmp_path / name, workspace, company="ondine", exported=EXPORTED)
    rows = reviews(workspace).select("source_id", "title", "text", "rating", "published", "url").rows()
    assert rows == [
        ("import:forum", "Pen", "Writes well.\n5 < 6", None, date(2026, 11, 17), "https://f.example/1"),
        ("import:store", "Stops", "Sync stops", 2.0, date(2026, 11, 18), "https://s.example/2"),
    ]
    assert reviews(workspace)["author_hash"].null_count() == 0


def test_a_feed_cannot_reach_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret words")
    feed = f'<!DOCTYPE rss [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><rss><item><title>&x;</title></item></rss>'
    assert "secret words" not in str(read_records(feed.encode(), "x.xml"))


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["Fine"], "date": [datetime(2026, 11, 17, tzinfo=timezone.utc)], "rating": [4.5]})
    frame.write_parquet(tmp_path / "x.parquet")
    records = read_records((tmp_path / "x.parquet").read_bytes(), "x.parquet")
    assert day_of(records[0]["date"]) == date(2026, 11, 17)
    assert records[0]["rating"] == 4.5


@pytest.mark.parametrize(
    ("name", "payload", "message"),
    [
        ("x.xlsx", b"PK", "Export it as CSV"),
        ("x.json", b"{", "not valid JSON"),
        ("x.json", b"[1, 2]", "no list of objects"),
        ("x.jsonl", b'{"a": 1}\n[2]', "line 2 is no JSON object"),
        ("x.jsonl", b'{"a": 1}\n{', "line 2 is not valid JSON"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("x.rss", b"<rss><item>", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_say_why(name: str, payload: bytes, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        read_records(payload, name)


@given(st.binary(max_size=300), st.sampled_from([".csv", ".json", ".jsonl", ".xml", ".parquet", ".tsv"]))
def test_any_bytes_are_read_or_refused(payload: bytes, suffix: str) -> None:
    try:
        records = read_records(payload, f"x{suffix}")
    except ParameterError:
        return
    for column in columns_of(records):
        assert isinstance(column, str)


# Values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("4", (4, 5)),
        ("3,5", (3.5, 5)),
        (4, (4, 5)),
        ("4 out of 5", (4, 5)),
        ("★★★☆☆", (3, 5)),
        ("8/10", (8, 10)),
        (True, (1, 1)),
        ("FALSE", (0, 1)),
        ("", None),
        (None, None),
        (float("nan"), None),
    ],
)
def test_ratings(value: Any, expected: Any) -> None:
    assert rating_of(value, 5.0) == expected


@pytest.mark.parametrize(
    ("value", "country", "expected"),
    [
        ("2026-11-17T23:30:00-08:00", None, date(2026, 11, 17)),
        ("20261117", None, date(2026, 11, 17)),
        ("17.11.2026", None, date(2026, 11, 17)),
        ("03/11/2026", None, date(2026, 11, 3)),
        ("03/11/2026", "US", date(2026, 3, 11)),
        ("Nov 17, 2026 8:00 AM", None, date(2026, 11, 17)),
        ("2026年11月17日 10:05", None, date(2026, 11, 17)),
        (1794873600, None, date(2026, 11, 17)),
        ("1794873600000", None, date(2026, 11, 17)),
        (date(2026, 11, 17), None, date(2026, 11, 17)),
        ("", None, None),
    ],
)
def test_days(value: Any, country: str | None, expected: Any) -> None:
    assert day_of(value, country) == expected


def test_languages() -> None:
    assert language_of("zh-Hans", "hello") == "zh"
    assert language_of("english", "你好，很好用") == "zh"
    assert language_of(None, "hello") == "en"


def test_a_mapping_is_read_from_the_command_line() -> None:
    assert parse_mapping(["text=body.en, rating=stars", "author=user.name"]) == {
        "text": "body.en",
        "rating": "stars",
        "author": "user.name",
    }
    with pytest.raises(ParameterError, match="--map text=comment"):
        parse_mapping(["text"])


# Names

_names = st.text(st.sampled_from("aAbB 小明★-"), min_size=1, max_size=6)


@given(st.lists(_names, max_size=6), st.lists(st.text(st.sampled_from("aAbB 小明★-,"), max_size=24), max_size=5))
def test_the_index_finds_the_names_that_the_page_mask_finds(names: list[str], texts: list[str]) -> None:
    page = redactor(Page(reviews=tuple(Review(author=name) for name in names)))
    mask = NameMask(names, texts)
    assert [mask(text) for text in texts] == [page(text) for text in texts]


def test_a_nickname_that_is_a_word_is_masked_in_its_own_review_only() -> None:
    texts = [f"Good pen {number}" for number in range(WORD + 1)]
    mask = NameMask(["Good", "Ana Ruiz"], [*texts, "Ana Ruiz is right"])
    assert mask(texts[0]) == texts[0]
    assert mask("Good pen", "Good") == f"{MASK} pen"
    assert mask("Ana Ruiz is right") == f"{MASK} is right"
