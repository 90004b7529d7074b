import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.evaluate import floors, models
from tests.evaluate.__main__ import main
from tests.evaluate.model_sets import LabelledSet, LabelledText, own_sets, public_sets, read_file, take
from tests.runtime.tiny_model import make_tiny_model
from workbench.runtime import open_session
from workbench.runtime.read import Reading, read_texts
from workbench.tasks.decode import Entity
from workbench.tasks.labels import SENTIMENTS, TOPICS

TEXTS = ["good phone", "bad price", "很好", "质量很差", "the price", "the phone good", "快", "不好", "物流慢", "屏"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def labelled(task, texts, labels, **more):
    return LabelledSet("mine", task, "all", tuple(texts), tuple(labels), "0123456789abcdef", **more)


class TestSentiment:
    READING = Reading(
        ("sentiment",),
        sentiment=["neutral", "positive", "negative", None],
        p_sentiment=np.array(
            [[0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [np.nan, np.nan, np.nan]], np.float32
        ),
    )

    def test_two_classes_take_the_larger_of_both(self):
        texts = [LabelledText("", label) for label in ("positive", "positive", "positive", "negative")]
        metrics, tables = models._sentiment(
            labelled("sentiment", texts, ("negative", "positive"), bar=0.5), [self.READING]
        )
        # neutral 0.6 is left out: positive 0.3 beats negative 0.1; the unread text is wrong.
        assert (metrics["accuracy"], metrics["n"], metrics["unread"], metrics["classes"]) == (0.5, 4, 1, 2)
        assert (metrics["bar"], metrics["met"]) == (0.5, True)
        assert tables["confusion"] == {
            "negative": {"negative": 0, "positive": 0, "none": 1},
            "positive": {"negative": 1, "positive": 2, "none": 0},
        }
        # Confidences of the three that were read: 0.75 and 0.75 (right), 0.8889 (wrong), in two bins.
        assert metrics["ece"] == pytest.approx((2 * 0.25 + 0.8889) / 3, abs=1e-4)

    def test_three_classes_by_slice(self):
        texts = [
            LabelledText("", "neutral", "en", "normal"),
            LabelledText("", "neutral", "en", "boundary"),
            LabelledText("", "negative", "zh", "normal"),
            LabelledText("", "negative", "zh", "normal"),
        ]
        metrics, tables = models._sentiment(labelled("sentiment", texts, SENTIMENTS), [self.READING])
        assert metrics["accuracy"] == 0.5
        assert (metrics["accuracy_en"], metrics["accuracy_zh"], metrics["n_zh"]) == (0.5, 0.5, 2)
        assert (metrics["accuracy_normal"], metrics["accuracy_boundary"]) == (0.6667, 0.0)
        assert metrics["accuracy_en_boundary"] == 0
        assert tables["confusion_en"]["neutral"] == {"negative": 0, "neutral": 1, "positive": 1}
        shown = models.report(
            {
                "model": {"name": "m", "version": "1", "engine_id": "e", "backend": "b", "precision": "p"},
                "sample": None,
                "texts": 4,
                "seconds": 1.0,
                "texts_per_s": 4.0,
                "metrics": {"mine": metrics},
                "tables": {"mine": tables},
            }
        )
        assert "| en, boundary | 1 | 0.000 | 0 / 0 / 0 | 0 / 0 / 1 | 0 / 0 / 0 |" in shown
        assert "counted as wrong or as without answer: mine 1." in shown


class TestTopics:
    def test_one_of_four(self):
        names = ("bug", "feature request", "usability", "other")
        table = np.zeros((3, len(TOPICS)), np.float32)
        table[0, [TOPICS.index("price"), TOPICS.index("bug")]] = 0.9, 0.3  # price is not one of the four
        table[1, TOPICS.index("other")] = 0.2
        table[2, [TOPICS.index("usability"), TOPICS.index("feature request")]] = 0.5, 0.4
        reading = Reading(("topics",), p_topics=table, topic_names=TOPICS, topics=[("price",), ("other",), ("bug",)])
        texts = [LabelledText("", (label,)) for label in ("bug", "other", "feature request")]
        metrics, tables = models._topics(labelled("topics", texts, names, single=True, bar=0.76), [reading])
        assert (metrics["accuracy"], metrics["met"]) == (0.6667, False)
        assert (metrics["bug_f1"], metrics["feature_request_f1"]) == (1.0, 0.0)
        assert tables["confusion"]["feature request"]["usability"] == 1

    def test_several(self):
        reading = Reading(("topics",), topics=[("price", "bug"), ("service",), None])
        texts = [
            LabelledText("", ("price",), "en", "normal"),
            LabelledText("", ("price", "service"), "zh", "normal"),
            LabelledText("", ("service",), "zh", "abnormal"),
        ]
        metrics, tables = models._topics(labelled("topics", texts, TOPICS), [reading])
        # price: 1 hit, 1 missed; service: 1 hit, 1 missed; bug: 1 wrong. Micro 4 / (4 + 1 + 2).
        assert metrics["micro_f1"] == pytest.approx(4 / 7, abs=1e-4)
        assert metrics["macro_f1"] == pytest.approx(2 / 3, abs=1e-4)
        assert (metrics["exact"], metrics["unread"]) == (0.0, 1)
        assert (metrics["price_precision"], metrics["price_recall"], metrics["price_n"]) == (1.0, 0.5, 2)
        assert (metrics["micro_f1_en"], metrics["micro_f1_abnormal"]) == (0.6667, 0.0)
        assert tables["pairs"]["price"] == dict.fromkeys(TOPICS, 0) | {"price": 1, "bug": 1, "service": 1}


def test_entities_of_other_types_do_not_count():
    def entity(start, end, label):
        return Entity(start, end, label, "x", 0.9)

    reading = Reading(
        ("entities",),
        entities=[[entity(0, 2, "brand"), entity(3, 5, "model"), entity(6, 8, "company")], None],
    )
    texts = [
        LabelledText("", ((0, 2, "brand"), (3, 5, "model"), (9, 12, "product"))),
        LabelledText("", ((0, 1, "product"),)),
    ]
    metrics, _ = models._entities(
        labelled("entities", texts, ("product", "brand", "model"), headline=("product", "brand")), [reading]
    )
    # product and brand: 1 hit, nothing wrong, 2 missed.
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (1.0, 0.3333, 0.5)
    assert (metrics["brand_f1"], metrics["model_f1"], metrics["product_f1"], metrics["product_n"]) == (1, 1, 0, 2)
    assert "company_f1" not in metrics
    assert metrics["types"] == "product+brand"


def test_a_whole_run_on_the_models_own_answers(tiny):
    with open_session(tiny) as session:
        reading = read_texts(session, TEXTS)
    sentiment = [LabelledText(text, label) for text, label in zip(TEXTS, reading.sentiment, strict=True)]
    sentiment.append(LabelledText(TEXTS[0], "positive" if reading.sentiment[0] == "negative" else "negative"))
    topics = [LabelledText(text, label) for text, label in zip(TEXTS, reading.topics, strict=True)]
    entities = [
        LabelledText(text, tuple((e.start, e.end, e.label) for e in found))
        for text, found in zip(TEXTS, reading.entities, strict=True)
    ]
    types = ("product", "brand", "company", "model")
    measured = models.measure_sets(
        tiny,
        [
            labelled("sentiment", sentiment, SENTIMENTS),
            LabelledSet("t", "topics", "all", tuple(topics), TOPICS, "f" * 64),
            LabelledSet("e", "entities", "all", tuple(entities), types, "f" * 64, headline=types),
        ],
        progress=False,
    )
    assert measured["metrics"]["mine"]["accuracy"] == round(10 / 11, 4)
    assert measured["metrics"]["t"]["micro_f1"] == measured["metrics"]["t"]["exact"] == 1
    assert measured["metrics"]["e"]["f1"] == 1
    assert measured["texts"] == 31
    assert measured["metrics"]["e"]["sha256"] == "f" * 12
    for metrics in measured["metrics"].values():
        assert all(isinstance(value, (str, int, float)) for value in metrics.values())
        assert metrics["headline"] in metrics
    assert json.loads(json.dumps(measured)) == measured
    assert "| e | all | 10 | F1 of product, brand, company, model | 1.000 | 1.000 to 1.000 |" in models.report(
        measured
    )


def test_floors_are_headlines_of_public_sets(tmp_path):
    metrics = {
        "zh_shopping": {"headline": "accuracy", "accuracy": 0.94, "ece": 0.02},
        "en_wnut17": {"headline": "f1", "f1": 0.2, "precision": 0.5},
        "own_topics": {"headline": "micro_f1", "micro_f1": 0.5},
    }
    found = models.floors_of({"sample": None, "metrics": metrics}, tmp_path)
    assert {name: floor.scores for name, floor in found.items()} == {
        "models/zh_shopping": {"accuracy": 0.94},
        "models/en_wnut17": {"f1": 0.2},
    }
    assert found["models/en_wnut17"].data == tmp_path / "text" / "entities_en_wnut17_dev.parquet"
    (quick, _) = models.floors_of({"sample": 250, "metrics": metrics}, tmp_path)
    assert quick == "models-sample/zh_shopping"
    (message,) = floors.find_falls(quick, found["models/zh_shopping"], file=tmp_path / "floors.json")
    assert "tests.evaluate models --data FOLDER --update-floors" in message


def test_take_is_the_same_whatever_the_order():
    texts = [LabelledText(str(number), "positive") for number in range(50)]
    some = take(labelled("sentiment", texts, SENTIMENTS), 7)
    assert len(some.texts) == 7
    assert some.texts == take(labelled("sentiment", texts[::-1], SENTIMENTS), 7).texts
    assert take(labelled("sentiment", texts, SENTIMENTS), None).texts == tuple(texts)


def test_the_projects_own_sets():
    sets = {each.name: each for each in own_sets()}
    assert set(sets) == {"own_sentiment", "own_topics", "own_entities"}
    for each in sets.values():
        assert len(each.texts) >= 400
        assert {text.language for text in each.texts} == {"en", "zh"}
        assert {text.stratum for text in each.texts} == {"normal", "boundary", "abnormal"}
    for text in sets["own_entities"].texts:
        for start, end, label in text.label:
            assert 0 <= start < end <= len(text.text)
            assert label in sets["own_entities"].labels


def test_own_sets_in_parts(tmp_path):
    (tmp_path / "topics").mkdir()
    for language in ("en", "zh"):
        row = {"id": "x", "language": language, "stratum": "normal", "text": "t", "labels": ["bug"]}
        (tmp_path / "topics" / f"validation.{language}.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = own_sets(tmp_path)
    assert [text.language for text in found.texts] == ["en", "zh"]


class TestOwnFile:
    def test_sentiment_in_csv_is_two_class_without_neutral(self, tmp_path):
        file = tmp_path / "mine.csv"
        pl.DataFrame({"comment": ["good", None], "mood": ["positive", "negative"]}).write_csv(file)
        found = read_file(file, "sentiment", text_column="comment", label_column="mood")
        assert found.labels == ("negative", "positive")
        assert [text.text for text in found.texts] == ["good", ""]

    def test_topics_and_entities(self, tmp_path):
        csv = tmp_path / "topics.csv"
        csv.write_text('text,labels\n"late, broken","delivery, bug"\nnothing,\n')
        assert [text.label for text in read_file(csv, "topics").texts] == [("delivery", "bug"), ()]
        parquet = tmp_path / "names.parquet"
        pl.DataFrame({"text": ["a Slate"], "entities": [[{"start": 2, "end": 7, "label": "product"}]]}).write_parquet(
            parquet
        )
        found = read_file(parquet, "entities")
        assert found.texts[0].label == ((2, 7, "product"),)
        assert found.headline == ("product",)

    def test_mistakes(self, tmp_path):
        file = tmp_path / "mine.csv"
        file.write_text("text,label\ngood,great\n")
        with pytest.raises(ValueError, match="label 'great'; sentiment knows negative, neutral, positive"):
            read_file(file, "sentiment")
        with pytest.raises(ValueError, match="no column 'review'; it has text, label"):
            read_file(file, "sentiment", text_column="review")
        with pytest.raises(ValueError, match="is none of"):
            read_file(tmp_path / "mine.txt", "sentiment")
        file.write_text("text,label\n")
        with pytest.raises(ValueError, match="has no rows"):
            read_file(file, "sentiment")


class TestCommand:
    def test_validation_file(self, tiny, tmp_path, capsys):
        file = tmp_path / "mine.jsonl"
        file.write_text('{"text": "good phone", "label": "positive"}\n{"text": "bad", "label": "negative"}\n')
        assert main(["models", "--model", str(tiny), "--validation", str(file), "--json"]) == 0
        measured = json.loads(capsys.readouterr().out)
        assert measured["metrics"]["mine"]["n"] == 2
        assert main(["models", "--model", str(tiny), "--validation", str(file)]) == 0
        assert "| mine | mine.jsonl | 2 | accuracy |" in capsys.readouterr().out
        assert main(["models", "--model", str(tiny), "--validation", str(file), "--update-floors"]) == 2
        assert "leave --validation and --sample out" in capsys.readouterr().err

    def test_mistakes(self, tiny, tmp_path, capsys):
        assert main(["models", "--model", str(tiny)]) == 2
        assert "--data FOLDER" in capsys.readouterr().err
        assert main(["models", "--model", str(tiny), "--data", str(tmp_path)]) == 2
        assert "is missing. Give the folder that has it: --data FOLDER" in capsys.readouterr().err
        (tmp_path / "empty.csv").write_text("text,label\n")
        assert main(["models", "--model", str(tiny), "--validation", str(tmp_path / "empty.csv")]) == 2
        assert "has no rows" in capsys.readouterr().err
        file = tmp_path / "mine.csv"
        file.write_text("text,label\ngood,positive\n")
        assert main(["models", "--model", str(tmp_path), "--validation", str(file)]) == 2
        assert "model.onnx" in capsys.readouterr().err


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("WORKBENCH_DATA")
    if not folder:
        pytest.skip("needs labelled texts: set WORKBENCH_DATA to the folder that has text/*.parquet")
    return Path(folder).resolve(strict=True)


@pytest.mark.data
def test_public_sets(data):
    sets = {each.name: each for each in public_sets(data)}
    assert {name: len(each.texts) for name, each in sets.items()} == {
        "zh_shopping": 6216,
        "zh_takeaway": 11987,
        "en_amazon": 2115,
        "en_clothing_no_3_stars": 2639,
        "en_clothing": 3037,
        "en_sentences": 2960,
        "app_reviews": 730,
        "zh_ecommerce": 543,
        "zh_hphc": 494,
        "en_wnut17": 1009,
        "en_broad_twitter": 2000,
    }
    for each in sets.values():
        used = {label for text in each.texts for label in _labels(each, text)}
        assert used == set(each.labels), each.name


def _labels(each, text):
    if each.task == "sentiment":
        return [text.label]
    return text.label if each.task == "topics" else [span[2] for span in text.label]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not (models.BUNDLED / "model.onnx").is_file(), reason="no engines/reviews/model.onnx yet")
def test_the_bundled_model_does_not_fall(data):
    measured = models.measure_sets(models.BUNDLED, public_sets(data), models.FLOOR_SAMPLE, progress=False)
    falls = [
        fall for name, floor in models.floors_of(measured, data).items() for fall in floors.find_falls(name, floor)
    ]
    assert falls == []
