"""The model card in section 10."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from report_world import WEEK, plain_world
from scored_reviews import scored_world

from workbench.insight.proportions import share_interval
from workbench.report import build_report
from workbench.report.model_cards import (
    card_from_spec,
    card_notes,
    cards_table,
    find_cards,
    limit_lines,
    training_lines,
)
from workbench.settings import settings
from workbench.tasks.spec import ModelSpec
from workbench.workspace import ModelChoice, Models

TOML = """\
name = "reviews"
version = "1"
max_tokens = 64
pad_id = 0
limits = ["Sarcasm is read as it is written. <b>", "Other languages than English and Chinese are guesses."]

[outputs.sentiment]
kind = "classes"
labels = ["negative", "neutral", "positive"]

[training]
date = 2026-11-22
[[training.sets]]
name = "zh_shopping"
licence = "none stated"
origin = "SophonPlus/ChineseNlpCorpus"
rows = 62507
[[training.sets]]
name = "own"

[metrics]
precision = "fp32"
[metrics.zh_shopping]
language = "zh"
split = "test"
accuracy = { value = 0.941, n = 3000 }
f1_micro = { value = 0.71, n = 80, interval = [0.6, 0.8] }
f1_price = { value = 0.5, n = 8 }
[metrics.en_amazon]
accuracy = 0.912
n = 1000
interval = [0.9, 0.93]
[metrics.topics.app_reviews]
accuracy_of_four = 0.76
"""


def card(**more: Any) -> Any:
    return card_from_spec(
        ModelSpec(name="m", version="2", max_tokens=8, pad_id=0, outputs={}, folder=Path(), card=more)
    )


def test_every_shape_of_a_measured_value_is_read() -> None:
    found = card(
        metrics={
            "precision": "fp16",
            "zh_shopping": {"language": "zh", "split": "test", "accuracy": {"value": 0.941, "n": 3000}, "n": 5},
            "en_amazon": {"accuracy": 0.9, "n": 200, "interval": [0.85, 0.94]},
            "topics": {"app": {"macro_f1": 0.7}},
            "odd": {"accuracy": True, "other": "text", "none": {"value": "x"}, "nan": float("nan")},
        }
    ).metrics
    assert [(row["set"], row["metric"], row["value"], row["n"]) for row in found] == [
        ("zh_shopping", "accuracy", 0.941, 3000),
        ("en_amazon", "accuracy", 0.9, 200),
        ("topics app", "macro_f1", 0.7, None),
    ]
    assert (found[0]["language"], found[0]["split"], found[0]["precision"]) == ("zh", "test", "fp16")
    assert (found[0]["low"], found[0]["high"]) == share_interval(2823, 3000)
    assert (found[1]["low"], found[1]["high"]) == (0.85, 0.94)
    assert (found[2]["low"], found[2]["high"]) == (None, None)


@pytest.mark.parametrize(
    "more",
    [{}, {"metrics": [], "training": "none", "limits": 7}, {"metrics": {"x": {}}, "training": {"sets": ["a", {}]}}],
)
def test_a_card_without_anything_says_nothing(more: dict[str, Any]) -> None:
    found = card(**more)
    assert (found.metrics, found.sets, found.limits) == ((), (), ())
    assert cards_table([found]) == ""


def test_limits_are_a_list_a_table_or_a_text() -> None:
    assert card(limits="one\n two").limits == ("one two",)
    assert card(limits={"a": "one", "b": ["two", ""]}).limits == ("one", "two")
    assert len(limit_lines(card(limits=["x" * 999]))[0]) == 300


def test_training_sets_are_named_with_their_licence() -> None:
    found = card(
        training={"sets": [{"name": "zh_shop", "licence": "MIT", "rows": 1, "origin": "a/b"}, {"name": "own"}]}
    )
    assert training_lines(found) == ["zh shop, 1 text; licence: MIT; from a/b", "own; licence: not said"]


def write_model(folder: Path, toml: str = TOML) -> Path:
    """A model folder as far as its card goes."""
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(toml, encoding="utf-8")
    for name in ("model.onnx", "tokenizer.json"):
        (folder / name).touch()
    return folder


def test_the_method_shows_the_card(tmp_path: Path) -> None:
    workspace = scored_world(tmp_path / "workspace").write()
    choice = ModelChoice(path=str(write_model(tmp_path / "model")))
    models = Models(sentiment=choice, topics=choice, entities=choice)
    section = build_report(workspace.model_copy(update={"models": models}), WEEK).method
    tree = html.fromstring(str(section.body))
    rows = [
        [" ".join(cell.text_content().split()) for cell in row.xpath("./th|./td")]
        for row in tree.xpath("//table[@id='t-cards']//tr[td]")
    ]
    low, high = share_interval(2823, 3000)
    assert rows == [
        ["zh shopping test", "Chinese", "Accuracy", "0.941", f"{low:.3f} to {high:.3f}", "3,000"],
        ["zh shopping test", "Chinese", "F1 micro", "0.710", "0.600 to 0.800", "80"],
        ["en amazon", "–", "Accuracy", "0.912", "0.900 to 0.930", "1,000"],
        ["topics app reviews", "–", "Accuracy of four", "0.760", "–", "–"],
    ]
    (details,) = tree.xpath("//details")
    assert details.xpath("string(summary)") == "What reviews 1 was trained on: 2 sets, with their licences"
    assert "zh shopping, 62,507 texts; licence: none stated" in details.text_content()
    assert "Sarcasm is read as it is written. <b>" in tree.text_content()
    assert not tree.xpath("//b")
    (data,) = section.data["cards"]
    assert [row["metric"] for row in data["metrics"]][:3] == ["accuracy", "f1_micro", "f1_price"]
    assert section.to_json()["cards"][0]["training_sets"][0]["rows"] == 62507


def test_what_the_card_cannot_say_is_said() -> None:
    used = [{"model": "m 2", "precision": "fp32"}, {"model": "m 2", "precision": "fp16"}]
    known = card(metrics={"precision": "fp32", "a": {"accuracy": 0.9}})
    other = card(metrics={"precision": "int8", "a": {"accuracy": 0.9}})
    silent = card(metrics={"a": {"accuracy": 0.9}})
    assert card_notes(used, {"m 2": known}) == card_notes(used, {"m 2": silent}) == []
    assert card_notes(used, {"m 2": other}) == [
        "The values of m 2 were measured in int8; here it computed in fp16 and fp32."
    ]
    assert card_notes(used, {}) == [
        "How good m 2 is cannot be shown: its folder is not there any more, or holds another version."
    ]
    (note,) = card_notes(used, {"m 2": card()})
    assert note.startswith("The card of m 2 says nothing of how good it is.")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout without models."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


def test_cards_are_found_among_the_bundled_and_exported_ones(tmp_path: Path, home: Path) -> None:
    workspace = plain_world(tmp_path / "workspace").workspace
    assert find_cards(workspace, ["reviews 1"]) == {}
    write_model(home / "engines" / "reviews", "name = 1")  # broken: passed over
    write_model(workspace.root / "models" / "one-0123", TOML.replace('"reviews"', '"one"'))
    write_model(home / "engines" / "two", TOML.replace('"reviews"', '"two"'))
    assert sorted(find_cards(workspace, ["reviews 1", "one 1", "two 1"])) == ["one 1", "two 1"]
