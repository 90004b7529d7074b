from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal
from worlds import FOLIO, PRICING, REVIEWS, WEEK, Site, make_workspace, on, product_page

from workbench.errors import LakeError, ParameterError
from workbench.extract import EXTRACTOR
from workbench.ingest import IngestResult, ingest_week
from workbench.ingest.authors import MASK
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import load_workspace

ANN = {"author": "Annabel Kowalski-Nguyen", "text": "Great pen, and it finds my notes again.", "rating": 5}
BO = {"author": "Bo Lindqvist", "text": "The battery is empty after a week.", "rating": 2}
WANG = {"author": "王小明", "text": "手感很好，写字像在纸上，推荐给大家。", "rating": 5}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(make_workspace(tmp_path / "workspace"))


def ingest(site: Site, week: Week = WEEK, **options: Any) -> IngestResult:
    return ingest_week(site.workspace, week, progress=False, **options)


def fill(site: Site) -> dict[str, str]:
    """Two weeks: a price that falls, a page that stays, reviews on two pages, one page that goes."""
    return {
        "folio before": site.show(product_page("449.00", reviews=[ANN]), on(-6)),
        "pricing": site.show(product_page("9.00", name="Ondine Cloud"), on(-6), url=PRICING, source="pricing"),
        "reviews before": site.show(product_page(reviews=[BO]), on(-5), url=REVIEWS, source="reviews"),
        "folio": site.show(product_page("399.00", reviews=[BO, ANN, WANG]), on(1)),
        "pricing same": site.same(on(1), url=PRICING, source="pricing"),
        "reviews": site.show(product_page(reviews=[ANN]), on(1), url=REVIEWS, source="reviews"),
        "gone": site.show(
            b"<title>Not found</title><p>Nothing here.</p>", on(2), url=PRICING, source="pricing", status=404
        ),
    }


def contents(lake: Lake) -> dict[str, pl.DataFrame]:
    return {table: lake.read(table) for table in TABLES}


def assert_same_lake(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> None:
    for table in TABLES:
        assert_frame_equal(one[table], other[table])


def test_a_week_is_read_into_the_lake(site: Site) -> None:
    ids = fill(site)
    result = ingest(site)
    assert (result.week, result.snapshots, result.pages_read, result.warnings) == ("2026-W47", 7, 6, ())
    pages = site.lake.read("pages")
    assert set(pages["snapshot_id"]) == set(ids.values())
    assert set(pages["extractor"]) == {EXTRACTOR}
    offers = site.lake.read("offers").filter(pl.col("url") == FOLIO).sort("fetched_at")
    assert offers.select("snapshot_id", "price", "currency", "availability", "offer_key", "company_id").rows() == [
        (ids["folio before"], Decimal("449.0000"), "USD", "InStock", "OF-1", "ondine"),
        (ids["folio"], Decimal("399.0000"), "USD", "InStock", "OF-1", "ondine"),
    ]
    sources = site.lake.read("sources")
    assert dict(sources.select("source_id", "status").iter_rows()) == {
        "folio": "fetched",
        "pricing": "fetched",
        "reviews": "fetched",
        "own": "stale",
    }
    assert result.changed["offers"].inserted == site.lake.read("offers").height
    assert result._repr_html_().count("<tr>") == 1 + len(result.changed)


def test_reading_a_week_again_changes_nothing(site: Site) -> None:
    fill(site)
    ingest(site)
    ingest(site, WEEK.back(1))
    versions = site.versions()
    files = {table: DeltaTable(site.workspace.lake_dir / table).file_uris() for table in TABLES if versions[table]}
    for week in (WEEK, WEEK.back(1), WEEK):
        result = ingest(site, week)
        assert result.pages_read == 0
        assert all(upsert.changed == 0 for upsert in result.changed.values())
    assert site.versions() == versions
    for table, before in files.items():
        assert DeltaTable(site.workspace.lake_dir / table).file_uris() == before


def test_the_order_weeks_are_read_in_does_not_matter(site: Site, tmp_path: Path) -> None:
    fill(site)
    ingest(site, WEEK.back(1))
    ingest(site, WEEK)
    forward = contents(site.lake)
    site.workspace.lake_dir.rename(tmp_path / "forward")
    ingest(site, WEEK, window_days=0)
    ingest(site, WEEK.back(1), window_days=0)
    assert_same_lake(contents(Lake(site.workspace.lake_dir)), forward)


def test_a_page_that_stayed_the_same_has_rows_of_its_own(site: Site) -> None:
    first = site.show(product_page("399.00"), on(-3))
    second = site.same(on(1))
    result = ingest(site)
    assert result.pages_read == 1, "the payload is read once"
    rows = site.lake.read("offers").sort("fetched_at").select("snapshot_id", "price", "fetched_at").rows()
    assert rows == [(first, Decimal("399.0000"), on(-3)), (second, Decimal("399.0000"), on(1))]
    pages = site.lake.read("pages")
    assert set(pages["http_status"]) == {200}, "304 is what the server said, not what the page is"
    assert pages["payload_sha256"].n_unique() == 1


def test_a_page_that_is_gone_offers_nothing(site: Site) -> None:
    ids = fill(site)
    ingest(site)
    page = site.lake.read("pages").row(by_predicate=pl.col("snapshot_id") == ids["gone"], named=True)
    assert page["http_status"] == 404
    for table in ("offers", "plans", "claims", "creatives", "reviews"):
        assert ids["gone"] not in site.lake.read(table)["snapshot_id"]


def test_what_a_change_is_measured_from_is_read_however_old(site: Site) -> None:
    old = site.show(product_page("449.00"), on(-100))
    site.show(product_page("459.00"), on(-200))
    gone = site.show(b"gone", on(-90), status=410)
    new = site.show(product_page("399.00"), on(1))
    assert ingest(site).snapshots == 3
    assert set(site.lake.read("pages")["snapshot_id"]) == {old, gone, new}


def test_the_window_can_be_chosen(site: Site) -> None:
    fill(site)
    assert ingest(site, window_days=0).snapshots == 7, "what the week is compared with is read all the same"
    site.show(product_page("500.00"), on(-10))
    assert ingest(site, window_days=7).pages_read == 0
    assert ingest(site, window_days=14).pages_read == 1
    with pytest.raises(ParameterError, match="window_days"):
        ingest(site, window_days=-1)


def test_a_review_is_one_row_of_its_first_snapshot(site: Site) -> None:
    ids = fill(site)
    ingest(site)
    reviews = site.lake.read("reviews")
    owners = dict(reviews.select("text", "snapshot_id").iter_rows())
    assert owners == {
        ANN["text"]: ids["folio before"],
        BO["text"]: ids["reviews before"],
        WANG["text"]: ids["folio"],
    }
    assert dict(reviews.select("text", "language").iter_rows())[WANG["text"]] == "zh"
    # An older page that turns up later (an archive that was merged in) takes its reviews over.
    earlier = site.show(product_page(reviews=[WANG]), on(-20))
    ingest(site)
    again = site.lake.read("reviews")
    assert again.height == 3
    assert dict(again.select("text", "snapshot_id").iter_rows())[WANG["text"]] == earlier
    assert set(again["review_id"]) == set(reviews["review_id"])


def test_no_author_is_named_anywhere_in_the_lake(site: Site) -> None:
    people = [ANN, BO, WANG]
    site.show(
        product_page(reviews=people, body=f"<p>Our tester {ANN['author']} wrote with it for a month.</p>"), on(1)
    )
    site.show(product_page(reviews=people), on(1), url=REVIEWS, source="reviews")
    ingest(site)
    reviews = site.lake.read("reviews")
    assert reviews.height == 3
    assert reviews["author_hash"].n_unique() == 3
    assert all(len(value) == 32 for value in reviews["author_hash"])
    names = [str(person["author"]) for person in people]
    for table in TABLES:
        text = site.lake.read(table).write_json()
        for file in (site.workspace.lake_dir / table).rglob("*"):
            # Parquet pages are compressed, so the bytes alone would prove little; statistics and logs are plain.
            data = file.read_bytes() if file.is_file() else b""
            assert not [name for name in names if name.encode() in data], file
        assert not [name for name in names if name in text], table
    shown = site.lake.read("pages").row(by_predicate=pl.col("url") == FOLIO, named=True)
    assert f"Our tester {MASK} wrote" in shown["text"]
    assert "Annabel Kowalski-Nguyen" in site.archive.payload(shown["snapshot_id"]).decode(), "the archive is evidence"


def test_another_extractor_reads_everything_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if an older version of the code had read other things from the same pages."""
    ids = fill(site)
    old = site.show(product_page(reviews=[WANG], price="470.00"), on(-40))
    with monkeypatch.context() as patch:
        patch.setattr("workbench.ingest.EXTRACTOR", "0.0.9+old")
        ingest(site, WEEK.back(6))
        ingest(site, window_days=28)
    offers = site.lake.read("offers")
    spurious = offers.head(1).with_columns(position=pl.lit(7, pl.Int32))
    site.lake.upsert(
        "offers", pl.concat([spurious, offers.tail(1).with_columns(price=pl.lit(1).cast(pl.Decimal(18, 4)))])
    )
    reviews = site.lake.read("reviews")
    read_differently = reviews.with_columns(review_id="x" + pl.col("review_id"), text=pl.col("text") + " Read more")
    site.lake.replace("reviews", read_differently, where={"snapshot_id": reviews["snapshot_id"].to_list()})

    result = ingest(site)
    assert result.pages_read == 7
    assert set(site.lake.read("pages")["extractor"]) == {EXTRACTOR}
    assert set(site.lake.read("pages")["snapshot_id"]) == {*ids.values(), old}
    mended = contents(site.lake)
    site.workspace.lake_dir.rename(tmp_path / "mended")
    ingest(site, WEEK.back(6))
    ingest(site)
    assert_same_lake(mended, contents(site.lake))


def test_a_source_that_changed_its_kind_is_read_again(site: Site) -> None:
    fill(site)
    ingest(site)
    path = site.workspace.root / "workspace.toml"
    before, after = 'ondine.example/folio"\nkind = "product"', 'ondine.example/folio"\nkind = "landing"'
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    site.workspace = load_workspace(site.workspace.root)
    assert ingest(site).pages_read == 2
    pages = site.lake.read("pages")
    assert set(pages.filter(pl.col("url") == FOLIO)["kind"]) == {"landing"}


def test_sources_that_left_the_workspace_are_passed_over(site: Site) -> None:
    site.show(product_page(), on(1))
    site.show(product_page(), on(1), url="https://former.example/", source="former")
    site.miss(on(1), url="https://former.example/x", source="former")
    result = ingest(site)
    assert (result.ignored, result.pages_read) == (2, 1)
    assert set(site.lake.read("sources")["source_id"]) == {"own", "folio", "pricing", "reviews"}


def test_a_damaged_snapshot_is_a_warning(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    good = site.show(product_page(), on(1))
    bad = site.show(product_page("1.00"), on(2))
    entry = next(e for e in site.archive.entries() if e.snapshot_id == bad)
    path = site.archive.root / entry.warc
    whole = bytearray(path.read_bytes())
    site.archive.entries()  # remembered in the index, which still lists the snapshot after the damage below
    stat = path.stat()
    whole[-20] ^= 0xFF
    path.write_bytes(whole)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = ingest(site)
    assert site.lake.read("pages")["snapshot_id"].to_list() == [good]
    (warning,) = result.warnings
    assert bad in warning
    assert warning.endswith("workbench weekly")
    assert warning in caplog.text
    assert warning.split(":")[0] in result._repr_html_()


def test_a_run_that_dies_half_way_is_made_good_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill(site)
    ingest(site)
    whole = contents(site.lake)
    for table in ("offers", "claims", "reviews", "pages", "sources"):
        site.workspace.lake_dir.rename(tmp_path / f"before {table}")
        replace = Lake.replace

        def die(self: Lake, name: str, *args: Any, _at: str = table, _do: Any = replace, **options: Any) -> Any:
            if name == _at:
                raise LakeError("no space left on device")
            return _do(self, name, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Lake, "replace", die)
            with pytest.raises(LakeError, match="no space"):
                ingest(site)
        ingest(site)
        assert_same_lake(contents(site.lake), whole)


def test_a_sitemap_is_no_page(tmp_path: Path) -> None:
    sitemap, article = "https://ondine.example/sitemap.xml", "https://ondine.example/news/1"
    extra = f'[[competitors.sources]]\nid = "news"\nurl = "{sitemap}"\nkind = "news"\ndiscover = "sitemap"\n'
    site = Site(make_workspace(tmp_path, extra=extra))
    site.show(
        b"<urlset><url><loc>https://ondine.example/news/1</loc></url></urlset>", on(1), url=sitemap, source="news"
    )
    site.show(product_page(), on(1), url=article, source="news")
    assert ingest(site).pages_read == 1
    pages = site.lake.read("pages").sort("url")
    assert pages["url"].to_list() == [article, sitemap]
    assert pages["text"].to_list()[1] == ""
    assert set(site.lake.read("claims")["url"]) <= {article}
    assert site.lake.read("sources").filter(pl.col("source_id") == "news").height == 2


def test_an_empty_archive_gives_a_list_of_what_is_missing(site: Site) -> None:
    result = ingest(site)
    assert (result.snapshots, result.pages_read) == (0, 0)
    assert set(site.lake.read("sources")["status"]) == {"stale"}
    assert {table for table, version in site.versions().items() if version is not None} == {"sources"}
    assert not (site.workspace.root / "salt").exists(), "nothing was hashed yet"
