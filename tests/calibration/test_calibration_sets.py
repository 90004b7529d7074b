import re
from collections import Counter

import pytest
from calibration_sets import (
    LABELS,
    LANGUAGES,
    REFRESH,
    ROOT,
    SETS,
    STRATA,
    TRAINING,
    card_block,
    labels_of,
    read_card,
    read_rows,
    set_path,
)

from workbench.tasks.labels import SENTIMENTS, TASKS, TOPICS
from workbench.tasks.language import detect_language

LEAST = {"calibration": 512, "validation": 400}
LEAST_IN_STRATUM = {"normal": 150, "boundary": 35, "abnormal": 24}
LEAST_OF_LABEL = {"sentiment": 50, "topics": 30, "entities": 60}
KEYS = {"sentiment": "label", "topics": "labels", "entities": "entities"}
# Characters. The calibration sets go beyond a model's 512 tokens.
LONG = {("calibration", "en"): 2100, ("calibration", "zh"): 600, ("validation", "en"): 900, ("validation", "zh"): 400}
EMOJI = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]")
HAN = re.compile(r"[\u4e00-\u9fff]")

every_set = pytest.mark.parametrize(("task", "kind"), [(task, kind) for task in TASKS for kind in SETS])


@every_set
def test_rows_have_the_declared_fields(task, kind):
    for row in read_rows(task, kind):
        assert list(row) == ["id", "language", "stratum", "text", KEYS[task]], row["id"]
        assert row["language"] in LANGUAGES, row["id"]
        assert row["stratum"] in STRATA, row["id"]
        assert isinstance(row["text"], str), row["id"]
        assert row["text"].strip(), row["id"]
        # White space around a text is one of the things that go wrong with texts.
        assert row["stratum"] == "abnormal" or row["text"] == row["text"].strip(), row["id"]


@every_set
def test_rows_stand_in_a_stable_order(task, kind):
    rows = read_rows(task, kind)
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    for row in rows:
        assert re.fullmatch(f"{task[0]}{row['language']}{kind[0]}\\d{{3}}", row["id"])
    assert set_path(task, kind).read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("kind", SETS)
def test_sentiments(kind):
    assert all(row["label"] in SENTIMENTS for row in read_rows("sentiment", kind))


@pytest.mark.parametrize("kind", SETS)
def test_topics_in_the_labels_order_and_other_alone(kind):
    for row in read_rows("topics", kind):
        places = [TOPICS.index(topic) for topic in row["labels"]]
        assert places, row["id"]
        assert places == sorted(set(places)), row["id"]
        assert "other" not in row["labels"] or row["labels"] == ["other"], row["id"]


@pytest.mark.parametrize("kind", SETS)
def test_entities_agree_with_their_offsets(kind):
    for row in read_rows("entities", kind):
        end = 0
        for entity in row["entities"]:
            assert list(entity) == ["start", "end", "label", "text"], row["id"]
            assert entity["label"] in LABELS["entities"], row["id"]
            assert end <= entity["start"] < entity["end"], row["id"]
            assert row["text"][entity["start"] : entity["end"]] == entity["text"], row["id"]
            assert entity["text"] == entity["text"].strip(), row["id"]
            end = entity["end"]


@every_set
def test_enough_of_everything(task, kind):
    rows = read_rows(task, kind)
    assert len(rows) >= LEAST[kind]
    strata = Counter((row["language"], row["stratum"]) for row in rows)
    labels = Counter((row["language"], label) for row in rows for label in labels_of(task, row))
    for language in LANGUAGES:
        for stratum, least in LEAST_IN_STRATUM.items():
            assert strata[language, stratum] >= least, (language, stratum)
        for label in LABELS[task]:
            assert labels[language, label] >= LEAST_OF_LABEL[task], (language, label)


@every_set
@pytest.mark.parametrize("language", LANGUAGES)
def test_boundary_and_abnormal_texts_are_of_every_kind(task, kind, language):
    rows = [row for row in read_rows(task, kind) if row["language"] == language]
    boundary = [row["text"] for row in rows if row["stratum"] == "boundary"]
    abnormal = [row["text"] for row in rows if row["stratum"] == "abnormal"]
    assert sum(len(text) <= 12 for text in boundary) >= 3
    assert max(map(len, boundary)) >= LONG[kind, language]
    assert sum(len(HAN.findall(t)) >= 2 and len(re.findall("[A-Za-z]{2,}", t)) >= 2 for t in boundary) >= 3
    assert sum(EMOJI.search(text) is not None for text in boundary) >= 3
    assert any(6 * len(re.findall(r"\d", text)) >= len(text) for text in boundary)
    assert sum(re.search(r"</?\w|&[#\w]+;|\[/?\w+\]|\{\{", text) is not None for text in abnormal) >= 4
    assert sum(re.search(r"(.)\1{3}|(.{2,8}?)\2{3}", text) is not None for text in abnormal) >= 5


@pytest.mark.parametrize("task", TASKS)
def test_normal_texts_are_recognized_as_their_language(task):
    for kind in SETS:
        wrong = [
            row["id"]
            for row in read_rows(task, kind)
            if row["stratum"] == "normal" and detect_language(row["text"]) != row["language"]
        ]
        assert not wrong


@pytest.mark.parametrize("task", TASKS)
def test_the_card_is_of_these_files(task):
    before, block, after = read_card(task)
    assert block == card_block(task), f"calibration/{task}/README.md is out of date. Write it anew: {REFRESH}"
    text = before + after
    for heading in ("How the texts were written", "How labels were decided", "Licence", "Limits"):
        assert f"\n## {heading}\n" in text


def test_there_is_nothing_but_the_sets_and_their_cards():
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()}
    files = {f"{task}/{name}" for task in TASKS for name in ("README.md", *(f"{kind}.jsonl" for kind in SETS))}
    texts = {f"{TRAINING}/{name}" for name in ("README.md", *(f"texts.{language}.jsonl" for language in LANGUAGES))}
    assert found == files | texts | {"README.md"}
