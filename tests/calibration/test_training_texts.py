"""The training texts: fields, order, labels, offsets, counts, and a card that belongs to them."""

import re
from collections import Counter

import pytest
from calibration_sets import LANGUAGES, REFRESH, TRAINING, card_block, read_card, read_training, training_path

from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TOPICS
from workbench.tasks.language import detect_language

LEAST = 1900
LEAST_OF_TOPIC = 0.09  # of all texts
LEAST_OF_TYPE = 150
MOST_BYTES = 1_600_000
FAMILIES = ("ThinkPad", "Kindle", "Roomba", "iPhone", "iPad")

every_language = pytest.mark.parametrize("language", LANGUAGES)


@every_language
def test_rows_have_the_declared_fields_and_stand_in_a_stable_order(language):
    rows = read_training(language)
    for row in rows:
        assert list(row) == ["id", "text", "language", "sentiment", "topics", "entities"], row["id"]
        assert re.fullmatch(rf"tr-{language}-\d{{4}}", row["id"])
        assert row["language"] == language, row["id"]
        assert row["text"], row["id"]
        assert row["text"] == row["text"].strip(), row["id"]
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))
    assert training_path(language).read_bytes().endswith(b"}\n")


@every_language
def test_labels_are_known_and_in_order(language):
    for row in read_training(language):
        assert row["sentiment"] in SENTIMENTS, row["id"]
        places = [TOPICS.index(topic) for topic in row["topics"]]
        assert 1 <= len(places) <= 3, row["id"]
        assert places == sorted(set(places)), row["id"]
        assert "other" not in row["topics"] or row["topics"] == ["other"], row["id"]


@every_language
def test_entities_agree_with_their_offsets(language):
    for row in read_training(language):
        end = 0
        for entity in row["entities"]:
            assert list(entity) == ["start", "end", "label", "text"], row["id"]
            assert entity["label"] in ENTITY_TYPES, row["id"]
            assert end <= entity["start"] < entity["end"], row["id"]
            assert row["text"][entity["start"] : entity["end"]] == entity["text"], row["id"]
            assert entity["text"] == entity["text"].strip(), row["id"]
            end = entity["end"]


@every_language
def test_rules_of_the_task_cards_that_can_be_told_by_the_letters(language):
    for row in read_training(language):
        labels = {(entity["text"], entity["label"]) for entity in row["entities"]}
        # Families are products, their versions models; public authorities are not marked; marks belong to a title.
        assert not {(family, "brand") for family in FAMILIES} & labels, row["id"]
        assert not any(re.fullmatch(r"(iPhone|ThinkPad) ?[A-Z]?\d+", text) for text, _ in labels), row["id"]
        assert not any(text in ("12315", "12345", "Centrelink", "HMRC") for text, _ in labels), row["id"]
        for title in re.finditer("《[^》]*》", row["text"]):
            assert (title[0], "product") in labels, row["id"]


@every_language
def test_enough_of_everything(language):
    rows = read_training(language)
    assert len(rows) >= LEAST
    sentiments = Counter(row["sentiment"] for row in rows)
    assert sentiments["neutral"] >= 0.4 * len(rows)
    assert min(sentiments[sentiment] for sentiment in SENTIMENTS) >= 0.18 * len(rows)
    topics = Counter(topic for row in rows for topic in row["topics"])
    assert min(topics[topic] for topic in TOPICS) >= LEAST_OF_TOPIC * len(rows), topics
    types = Counter(entity["label"] for row in rows for entity in row["entities"])
    assert min(types[label] for label in ENTITY_TYPES) >= LEAST_OF_TYPE, types
    assert 0.3 <= sum(not row["entities"] for row in rows) / len(rows) <= 0.6


@every_language
def test_texts_are_recognized_as_their_language(language):
    rows = read_training(language)
    # Two words, a brand and a number: not every text can be told.
    told = [detect_language(row["text"]) for row in rows]
    assert told.count(language) >= 0.98 * len(rows)


def test_the_files_stay_small():
    assert sum(training_path(language).stat().st_size for language in LANGUAGES) < MOST_BYTES


def test_the_card_is_of_these_files():
    before, block, after = read_card(TRAINING)
    assert block == card_block(TRAINING), f"calibration/{TRAINING}/README.md is out of date. Write it anew: {REFRESH}"
    for heading in ("How the texts were written", "How labels were decided", "Licence", "Limits"):
        assert f"\n## {heading}\n" in before + after
