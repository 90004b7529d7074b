from __future__ import annotations

import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.export.card import card_text
from workbench.engine.export.labels import LabelPlan, checkpoint_labels, plan_labels
from workbench.errors import ModelError
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TOPICS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def plan(task: str, *raw: str, problem_type: str | None = None, **mapping: str) -> LabelPlan:
    return plan_labels(task, raw, mapping=mapping, problem_type=problem_type, toml_line='huggingface = "org/name"')


NEG, NEU, POS = SENTIMENTS


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (("negative", "neutral", "positive"), (NEG, NEU, POS)),
        (("Positive", "NEG", "Neu"), (POS, NEG, NEU)),
        (("NEGATIVE", "POSITIVE"), (NEG, POS)),
        (("1 star", "2 stars", "3 stars", "4 stars", "5 stars"), (NEG, NEG, NEU, POS, POS)),
        (("star 5", "star 4", "star 3", "star 2", "star 1"), (POS, POS, NEU, NEG, NEG)),
        (("negative (stars 1, 2 and 3)", "positive (stars 4 and 5)"), (NEG, POS)),
        (("Very Negative", "Negative", "Neutral", "Positive", "Very Positive"), (NEG, NEG, NEU, POS, POS)),
        (("消极", "积极"), (NEG, POS)),
    ],
)
def test_sentiments_are_known_by_their_names(raw: tuple[str, ...], expected: tuple[str, ...]) -> None:
    found = plan("sentiment", *raw)
    assert (found.kind, found.labels, found.raw) == ("classes", expected, raw)


@pytest.mark.parametrize(
    ("count", "first", "expected"),
    [(2, 0, (NEG, POS)), (3, 0, SENTIMENTS), (5, 0, (NEG, NEG, NEU, POS, POS)), (5, 1, (NEG, NEG, NEU, POS, POS))],
)
def test_labels_without_names_are_read_in_order_and_said_so(
    count: int, first: int, expected: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = plan("sentiment", *(f"LABEL_{first + index}" for index in range(count)))
    assert found.labels == expected
    assert f'labels = {{ "LABEL_{first}" = "negative"' in caplog.text


def test_whoever_maps_one_label_without_a_name_must_map_all() -> None:
    with pytest.raises(ModelError, match="'LABEL_0', 'LABEL_2' cannot be read"):
        plan("sentiment", "LABEL_0", "LABEL_1", "LABEL_2", LABEL_1="negative")
    assert plan("sentiment", "LABEL_0", "LABEL_1", LABEL_0="positive", LABEL_1="negative").labels == (POS, NEG)


def test_the_mapping_goes_before_the_name() -> None:
    assert plan("sentiment", "negative", "positive", "mixed", mixed="neutral").labels == (NEG, POS, NEU)
    assert plan("sentiment", "positive", "negative", positive="negative", negative="positive").labels == (NEG, POS)


@pytest.mark.parametrize(
    ("task", "raw"),
    [
        ("sentiment", ("joy", "anger", "positive")),
        ("sentiment", ("positive", "neutral")),
        ("sentiment", ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")),
        ("sentiment", ("LABEL_1", "LABEL_0")),
        ("topics", ("price", "weather")),
        ("entities", ("O", "B-PER", "I-PER")),
        ("entities", ("LABEL_0", "LABEL_1")),
    ],
)
def test_labels_not_understood_are_listed_with_the_line_to_write(task: str, raw: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as error:
        plan(task, *raw)
    message = str(error.value)
    table = tomllib.loads(message[message.index("[models.") :])["models"][task]
    assert table["huggingface"] == "org/name"
    known = {"sentiment": SENTIMENTS, "topics": TOPICS, "entities": ENTITY_TYPES}[task]
    assert set(table["labels"].values()) <= {*known, "?"}
    # Of tags, the types are asked for.
    asked = {label.removeprefix("B-").removeprefix("I-") for label in raw} - {"O"}
    assert set(table["labels"]) == asked
    assert all(repr(label) in message for label in asked)


def test_one_label_or_several_are_told_apart() -> None:
    raw = ("bug_report", "Pricing", "customer service", "UX", "feature-request", "Other", "quality", "物流")
    ours = ("bug", "price", "service", "usability", "feature request", "other", "quality", "delivery")
    several = plan("topics", *raw, problem_type="multi_label_classification")
    assert (several.kind, several.labels) == ("labels", ours)
    one = plan("topics", *raw, problem_type="single_label_classification")
    assert (one.kind, one.labels) == ("classes", ours)


def test_what_measures_or_gives_several_sentiments_is_refused() -> None:
    with pytest.raises(ModelError, match="measures"):
        plan("sentiment", "LABEL_0")
    with pytest.raises(ModelError, match="measures"):
        plan("topics", "price", "bug", problem_type="regression")
    with pytest.raises(ModelError, match="exactly one"):
        plan("sentiment", "negative", "positive", problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="no task 'mood'"):
        plan("mood", "negative", "positive")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            ("O", "B-ORG", "I-ORG", "B-PRODUCT", "I-PRODUCT"),
            ("O", "B-company", "I-company", "B-product", "I-product"),
        ),
        (("O", "B-PER", "I-PER", "B-corporation", "I-corporation"), ("O", "O", "O", "B-company", "I-company")),
        (("I-ORG", "O", "I-LOC"), ("I-company", "O", "O")),
        (("O", "ORG", "PER"), ("O", "I-company", "O")),
        (
            ("O", "B-BRAND", "I-BRAND", "E-BRAND", "S-BRAND"),
            ("O", "B-brand", "I-brand", "I-brand", "B-brand"),
        ),
        (("O", "B-XH", "M-XH", "E-XH", "S-XH"), ("O", "B-model", "I-model", "I-model", "B-model")),
        (("O", "B_HCCX", "I_HCCX", "L_HPPX", "U_HPPX"), ("O", "B-product", "I-product", "I-brand", "B-brand")),
    ],
)
def test_tags_of_every_scheme(raw: tuple[str, ...], expected: tuple[str, ...]) -> None:
    found = plan("entities", *raw)
    assert (found.kind, found.labels) == ("tags", expected)


def test_tags_without_one_for_other_words_are_refused() -> None:
    with pytest.raises(ModelError, match="none for words that are no entity"):
        plan("entities", "B-ORG", "I-ORG")


def test_entity_types_and_single_tags_can_be_mapped() -> None:
    raw = ("O", "B-MISC", "I-MISC", "B-ORG", "I-ORG")
    assert plan("entities", *raw, MISC="product").labels == ("O", "B-product", "I-product", "B-company", "I-company")
    assert plan("entities", *raw, MISC="product", ORG="O").labels == ("O", "B-product", "I-product", "O", "O")
    found = plan_labels("entities", raw, mapping={"B-ORG": "brand"}, problem_type=None, toml_line="")
    assert found.labels == ("O", "O", "O", "B-brand", "I-company")


def test_a_mapping_that_names_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'LABEL_9', which the checkpoint does not give; it gives 'neg', 'pos'"):
        plan("sentiment", "neg", "pos", LABEL_9="negative")
    with pytest.raises(ModelError, match=r"'neg' = 'bad'; sentiment knows 'negative', 'neutral', 'positive'"):
        plan("sentiment", "neg", "pos", neg="bad")


def test_labels_of_a_config() -> None:
    assert checkpoint_labels({"id2label": {"1": "b", "0": "a", "2": "c"}}) == ("a", "b", "c")
    assert checkpoint_labels({}) == ("LABEL_0", "LABEL_1")
    assert checkpoint_labels({"num_labels": 3}) == ("LABEL_0", "LABEL_1", "LABEL_2")
    for wrong in ({"0": "a", "2": "b"}, {"x": "a"}, ["a"]):
        with pytest.raises(ModelError, match="id2label"):
            checkpoint_labels({"id2label": wrong})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=6, unique=True), st.data())
def test_any_labels_are_read_or_named_and_survive_the_card(raw: list[str], data: st.DataObject) -> None:
    mapping = {label: data.draw(st.sampled_from(SENTIMENTS)) for label in raw}
    try:
        found = plan_labels("sentiment", raw, mapping=mapping, problem_type=None, toml_line='path = "x"')
    except ModelError as error:
        assert not {"negative", "positive"} <= set(mapping.values())
        message = str(error)
        assert tomllib.loads(message[message.index("\n[models.") :])["models"]["sentiment"]["labels"] == mapping
    else:
        text = card_text(found, name=raw[0], version="1", max_tokens=8, pad_id=0, source={"checkpoint": raw[1]})
        card = tomllib.loads(text)
        assert card["source"]["labels"] == mapping
        assert (card["name"], card["source"]["checkpoint"]) == (raw[0], raw[1])
        assert card["outputs"]["sentiment"]["labels"] == [mapping[label] for label in raw]
