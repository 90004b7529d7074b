"""A week's texts into the lake's scores."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.runtime.tiny_model import TOML as MODEL_TOML
from tests.runtime.tiny_model import make_tiny_model
from workbench.cli import app
from workbench.errors import ModelError
from workbench.insight.scored import join_reviews, prefer_engines
from workbench.report.figure_scores import sentiment_figure
from workbench.runtime import read
from workbench.runtime.read import split_texts
from workbench.runtime.workers import Encoders
from workbench.scoring import api, score, week
from workbench.scoring.texts import TEXT_SCHEMA, select_texts, summarize_texts, text_id
from workbench.scoring.week import missing_bundle, score_week, score_week_if_bundled, workspace_models
from workbench.settings import settings
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.tasks.labels import TASKS
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

WEEK = Week.parse("2026-W47")
TOML = """
name = "tablets"
[company]
id = "larkpaper"
name = "Larkpaper"
[[competitors]]
id = "ondine"
name = "Ondine"
"""


def on(day: float) -> Any:
    """A moment of the week."""
    return WEEK.start + timedelta(days=day, hours=6)


class Shop:
    """A workspace with rows in its lake."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.models("")
        self.lake = Lake(root / "lake")
        self.review("good phone, the price is bad", day=1)
        self.review("很好，物流快", day=2, company_id="larkpaper")
        self.review("👍", day=3)
        self.review("!!! ???", day=3)
        self.review("bad bad bad", day=-10)
        self.review("too old", day=-40)
        self.claim("the price is good")
        self.claim("good phone, the price is bad")  # a review says the same

    @property
    def workspace(self) -> Workspace:
        return load_workspace(self.root)

    def models(self, toml: str) -> None:
        (self.root / "workspace.toml").write_text(TOML + toml, encoding="utf-8")

    def review(self, text: str | None, *, day: float, company_id: str = "ondine", **more: Any) -> None:
        rows = self.lake.read("reviews")
        row = {
            **dict.fromkeys(TABLES["reviews"].schema),
            "review_id": f"r{rows.height}",
            "snapshot_id": "s1",
            "company_id": company_id,
            "source_id": "reviews",
            "url": "https://ondine.example/reviews",
            "fetched_at": on(4),
            "text": text,
            "published": on(day).date(),
            **more,
        }
        self.lake.upsert("reviews", pl.DataFrame([row], schema=TABLES["reviews"].schema))

    def claim(self, text: str, *, day: float = 1, kind: str = "statement") -> None:
        rows = self.lake.read("claims")
        row = {
            "snapshot_id": "s2",
            "company_id": "ondine",
            "source_id": "folio",
            "url": "https://ondine.example/folio",
            "fetched_at": on(day),
            "position": rows.height,
            "kind": kind,
            "level": None,
            "text": text,
        }
        self.lake.upsert("claims", pl.DataFrame([row], schema=TABLES["claims"].schema))

    def scores(self) -> pl.DataFrame:
        return self.lake.read("scores")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A home of the workbench without a model."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


@pytest.fixture
def bundled(home: Path, tiny: Path) -> Path:
    """The same with the tiny model in place of the bundled one."""
    return Path(shutil.copytree(tiny, home / "engines" / "reviews"))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "watch")


def run(shop: Shop, week: Week = WEEK) -> Any:
    return score_week(shop.workspace, week, progress=False)


def test_reviews_are_read_for_all_tasks_and_statements_for_topics(shop: Shop, bundled: Path) -> None:
    result = run(shop)
    assert result.texts_read == 6
    found = {(row["text_id"], row["task"]) for row in shop.scores().to_dicts()}
    reviews = ["good phone, the price is bad", "很好，物流快", "👍", "!!! ???", "bad bad bad"]
    wanted = {(text_id(text), task) for text in reviews for task in TASKS}
    assert found == wanted | {(text_id("the price is good"), "topics")}
    assert result.missing().is_empty()
    assert result.by_task()["texts"].to_list() == [4, 4, 3]
    assert result.by_task()["without_answer"].to_list() == [1, 2, 2]
    assert len(set(result.reasons()["reason"])) == 2


def test_scores_are_those_of_the_texts_alone(shop: Shop, bundled: Path) -> None:
    run(shop)
    rows = shop.scores().filter(pl.col("text_id") == text_id("good phone, the price is bad")).sort("task")
    alone = score(["good phone, the price is bad"], models=dict.fromkeys(TASKS, bundled)).row(0, named=True)
    by_task = {row["task"]: row for row in rows.to_dicts()}
    for name in ("sentiment", "p_negative", "p_neutral", "p_positive"):
        assert by_task["sentiment"][name] == alone[name]
        assert by_task["topics"][name] is None
    assert by_task["topics"]["topics"] == alone["topics"]
    assert by_task["entities"]["entities"] == alone["entities"]
    for row in by_task.values():
        assert all(row[n] == alone[n] for n in ("language", "model", "engine_id", "backend", "precision", "reason"))


def test_several_processes_that_tokenize_share_a_week(
    shop: Shop, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(texts: Any, *, parts: int) -> Any:
        ranges.append(list(split_texts(texts, parts=parts)))
        return ranges[-1]

    ranges: list[Any] = []
    monkeypatch.setattr(week, "split_texts", cut)
    monkeypatch.setattr(read, "_LEAST_TEXTS", 2)
    monkeypatch.setattr(api, "make_encoders", lambda session: Encoders(session.encoder, workers=2))
    assert run(shop).texts_read == 6
    assert [(0, 3), (3, 5)] in ranges
    rows = {(row["text_id"], row["task"]): row for row in shop.scores().to_dicts()}
    texts = ["good phone, the price is bad", "很好，物流快", "👍", "!!! ???", "bad bad bad"]
    alone = score(texts, models=dict.fromkeys(TASKS, bundled)).to_dicts()
    for text, own in zip(texts, alone, strict=True):
        assert rows[text_id(text), "sentiment"]["sentiment"] == own["sentiment"]
        assert rows[text_id(text), "topics"]["topics"] == own["topics"]


def test_nothing_is_scored_twice(shop: Shop, bundled: Path) -> None:
    run(shop)
    versions = {name: shop.lake.version(name) for name in TABLES}
    again = run(shop)
    assert again.texts_read == 0
    assert again.texts_per_second is None
    assert {name: shop.lake.version(name) for name in TABLES} == versions
    shop.review("the price is good", day=3)  # a statement said so: its topics are known
    more = run(shop)
    assert more.texts_read == 1
    assert shop.scores().group_by("text_id", "task", "engine_id").len()["len"].max() == 1
    assert run(shop, WEEK.back(-1)).texts_read == 0


def test_a_changed_model_reads_again_and_is_the_one_that_counts(shop: Shop, bundled: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "mine", toml=MODEL_TOML.replace('"tiny"', '"mine"'), seed=7)
    first = run(shop)
    shop.models(f'[models.sentiment]\npath = "{tmp_path / "mine"}"\n')
    second = run(shop)
    assert second.texts_read == 5  # the reviews, for sentiment alone
    engines = {engine.task: engine for engine in second.engines}
    assert engines["sentiment"].model == "mine 1"
    assert engines["topics"] == first.engines[1]
    assert run(shop).texts_read == 0

    def chosen() -> str | None:
        scores = prefer_engines(shop.scores(), shop.lake.read("engines").filter(pl.col("week") == str(WEEK)))
        joined = join_reviews(shop.lake.read("reviews"), scores, WEEK)
        assert joined.engines["sentiment"].missing_week == joined.engines["sentiment"].missing_baseline == 0
        return joined.engines["sentiment"].model

    assert chosen() == "mine 1"
    shop.models("")
    assert run(shop).texts_read == 0
    assert chosen() == "tiny 1"
    # Other labels or temperatures make another engine of the same weights.
    toml = (bundled / "model.toml").read_text()
    (bundled / "model.toml").write_text(toml.replace("zh = 2.0", "zh = 3.0"))
    assert run(shop).texts_read == 6


def test_texts_are_those_that_a_report_compares(shop: Shop) -> None:
    shop.review("seen without a date", day=0, published=None)
    shop.review("dated after it was seen", day=0, published=date(2027, 5, 1))
    shop.review("of next week", day=0, published=date(2026, 11, 23), fetched_at=on(6))
    shop.review("seen next week", day=1, fetched_at=on(7))
    shop.review("  ", day=1, title=" ")
    shop.review("of a company that left", day=1, company_id="gone")
    texts = select_texts(shop.lake, shop.workspace, WEEK)
    assert texts.schema == TEXT_SCHEMA
    joined = join_reviews(shop.lake.read("reviews").filter(pl.col("company_id") != "gone"), shop.scores(), WEEK)
    reviews = texts.filter(pl.col("kind") == "review")
    assert sorted(reviews.select("text_id", "side").rows()) == sorted(joined.rows.select("text_id", "side").rows())
    assert {"seen without a date", "dated after it was seen"} <= set(texts["text"])
    assert summarize_texts(texts)["week"].sum() == texts.filter(pl.col("side") == "week").height


def test_a_statement_is_new_once(shop: Shop) -> None:
    shop.claim("the price is good", day=2)
    shop.claim("A heading", kind="heading")
    shop.claim("Said long ago", day=-60)
    shop.claim("Said long ago", day=2)
    shop.claim("Said before", day=-8)
    statements = select_texts(shop.lake, shop.workspace, WEEK).filter(pl.col("kind") == "statement")
    sides = dict(statements.select("text", "side").iter_rows())
    assert sides == {
        "the price is good": "week",
        "good phone, the price is bad": "week",
        "Said before": "baseline",
    }


def test_without_the_bundled_model_scoring_fails_and_the_notebook_goes_on(shop: Shop, home: Path) -> None:
    with pytest.raises(ModelError, match=r"No model is bundled .*git checkout -- engines.*workbench score -w"):
        run(shop)
    result = score_week_if_bundled(shop.workspace, WEEK, progress=False)
    assert not result.available
    assert "no model.onnx" in str(result.reason)
    assert result.texts["text"].len() == 7
    assert "Nothing is scored." in result._repr_html_()
    assert result.summary() == result.reason
    for frame in (result.sentiments(), result.topics(), result.reasons(), result.by_task(), result.least_certain()):
        assert frame.is_empty()
    assert "No review" in sentiment_figure(result, shop.workspace)
    assert shop.lake.version("scores") is None


def test_every_other_trouble_with_a_model_is_an_error(shop: Shop, home: Path, bundled: Path) -> None:
    (bundled / "model.toml").write_text("name = 3")
    with pytest.raises(ModelError, match="name: must be a text"):
        score_week_if_bundled(shop.workspace, WEEK, progress=False)
    shop.models('[models.topics]\nbundled = "revews"\n')
    with pytest.raises(ModelError, match="revews"):
        score_week_if_bundled(shop.workspace, WEEK, progress=False)
    shop.models('[models.topics]\npath = "nowhere"\n')
    with pytest.raises(ModelError, match="nowhere"):
        score_week_if_bundled(shop.workspace, WEEK, progress=False)
    assert shop.lake.version("scores") is None


def test_the_bundle_is_not_needed_when_every_task_has_a_model(shop: Shop, home: Path, tiny: Path) -> None:
    shop.models("".join(f'[models.{task}]\npath = "{tiny}"\n' for task in TASKS))
    assert missing_bundle(shop.workspace) is None
    assert workspace_models(shop.workspace, ["topics"]) == {"topics": tiny.resolve()}
    assert score_week_if_bundled(shop.workspace, WEEK, progress=False).texts_read == 6


def test_a_backend_that_cannot_run_here_is_an_error(shop: Shop, bundled: Path) -> None:
    with pytest.raises(ModelError, match="tensorrt"):
        score_week(shop.workspace, WEEK, backend="tensorrt", progress=False)


def test_what_the_notebook_shows(shop: Shop, bundled: Path) -> None:
    for number in range(12):
        shop.review(f"good price the phone {number}", day=1)
    result = run(shop)
    counts = result.sentiments()
    assert counts["reviews"].sum() == 15
    assert counts.select(pl.sum_horizontal("negative", "neutral", "positive")).to_series().sum() == 15
    least = result.least_certain(3)
    assert least.group_by("language").len()["len"].max() == 3
    english = least.filter(pl.col("language") == "en")["certainty"]
    assert english.is_sorted()
    week = result.texts.filter(pl.col("side") == "week").select("text_id")
    joined = result.scores.filter(pl.col("task") == "sentiment", pl.col("language") == "en").join(week, on="text_id")
    certainty = joined.select(pl.max_horizontal("p_negative", "p_neutral", "p_positive")).to_series()
    assert english[0] == pytest.approx(certainty.min())
    assert set(result.topics().columns) == {"topic", "language", "reviews", "statements"}
    names = result.entities()
    reviews = result.texts.filter(pl.col("side") == "week", pl.col("kind") == "review").select("text_id")
    rows = result.scores.filter(pl.col("task") == "entities").join(reviews, on="text_id")
    assert names["names"].sum() == rows["entities"].list.len().sum()
    assert names["names"].is_sorted(descending=True)
    assert names["names"][0] > 0
    assert all(1 <= len(found) <= 5 for found in names["most_frequent"])
    drawn = sentiment_figure(result, shop.workspace)
    assert "<svg" in drawn
    assert "Ondine" in drawn
    assert f"{result.texts_read:,} read now at" in result.summary()
    assert result.engines[0].engine_id in result._repr_html_()


def test_the_command_says_who_read_each_task_and_why(shop: Shop, bundled: Path, tiny: Path) -> None:
    done = CliRunner().invoke(app, ["score", "-w", str(shop.root), "--week", str(WEEK)])
    assert done.exit_code == 0, done.output
    first, why = done.stdout.splitlines()
    assert "read now at" in first
    assert why.startswith("sentiment, topics, entities: the FP32 model of reviews reads (")
    shop.models(f'[models.topics]\npath = "{tiny}"\n')
    result = score_week(shop.workspace, WEEK, progress=False)
    assert [line.partition(" of ")[0] for line in result.report().splitlines()[1:]] == [
        "sentiment, entities: the FP32 model",
        "topics: the FP32 model",
    ]


def test_an_empty_lake_is_no_error(tmp_path: Path, bundled: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "workspace.toml").write_text(TOML)
    result = score_week(load_workspace(tmp_path / "new"), WEEK, progress=False)
    assert (result.texts_read, result.scores.height) == (0, 0)
