"""From weights to a model folder: what is measured, how it is calibrated, what is written."""

import hashlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.training.corpus import (
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    UNKNOWN,
    Example,
    Span,
    read_own,
    read_written,
)
from workbench.engine.training.measure import Measured, chosen_topics, evaluate, reader, score, spans
from workbench.engine.training.prepare import prepare
from workbench.engine.training.sets import DATA_SETS, data_set, hash_files
from workbench.engine.training.vocabulary import train_vocabulary
from workbench.errors import ModelError, ParameterError
from workbench.runtime.onnx import OnnxSession
from workbench.runtime.read import read_texts
from workbench.tasks.decode import choose_topics
from workbench.tasks.labels import ENTITY_TAGS, ENTITY_TYPES, TOPICS
from workbench.tasks.spec import MODEL_FILES, OutputSpec, load_spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.export

if os.environ.get("CI"):
    import onnx
    import torch
else:
    onnx = pytest.importorskip("onnx", reason="the extra export is not installed: pip install -e '.[export]'")
    torch = pytest.importorskip("torch", reason="the extra export is not installed: pip install -e '.[export]'")

from workbench.engine.training.batches import Arrays, Recipe  # noqa: E402
from workbench.engine.training.bundle import (  # noqa: E402
    bundle_from_checkpoint,
    bundle_model,
    load_checkpoint,
    write_bundle,
)
from workbench.engine.training.calibrate import (  # noqa: E402
    Calibration,
    calibrate,
    calibration_error,
    draw_rows,
    held_out_rows,
    spread,
    unseen_rows,
)
from workbench.engine.training.cards import find_limits, list_sets, toml_document  # noqa: E402
from workbench.engine.training.encoder import Encoder, EncoderConfig  # noqa: E402
from workbench.engine.training.exported import (  # noqa: E402
    check_graph,
    check_parity,
    is_batch_invariant,
    rounded_copy,
    write_graph,
)
from workbench.engine.training.loops import fine_tune, predict  # noqa: E402

torch.set_num_threads(1)  # the networks are so small that a second core only waits

ROOT = Path(__file__).resolve().parents[2]
GOOD = "good lovely great 很好 喜欢 wonderful happy".split()  # noqa: SIM905 - reads better
BAD = "bad awful broken 很差 讨厌 terrible sad".split()  # noqa: SIM905


def topics(**known):
    return tuple(known.get(topic.replace(" ", "_"), UNKNOWN) for topic in TOPICS)


def made_examples():
    """Texts of sets with real names and made-up words, in all three splits."""
    random = np.random.default_rng(0)
    made = []
    for number in range(960):
        good = number % 2
        split = ("train", "train", "train", "train", "dev", "test")[number // 6 % 6]
        text = f"{' '.join(random.choice(GOOD if good else BAD, 6))} Acme {number}"
        label = POSITIVE if good else NEGATIVE
        brand = (Span(text.index("Acme"), text.index("Acme") + 4, "brand"),)
        named = tuple(int(topic == ("price" if good else "bug")) for topic in TOPICS)
        if number % 3 == 0:
            made.append(Example(text, "en_amazon", split, sentiment=label, two_class=True))
        elif number % 3 == 1:
            made.append(
                Example(text, "zh_ecommerce", split, entities=brand, entity_types=("product", "brand", "model"))
            )
        elif split != "dev":
            made.append(Example(text, "own_topics_en", split, topics=named))
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Arrays on disk, their tokenizer, and a network of two layers that has learned a little."""
    folder = tmp_path_factory.mktemp("world")
    made = made_examples()
    tokenizer = train_vocabulary([e.text for e in made], size=400, least_chinese=1)
    prepare(made, ["a text without labels", "没有标签的文本"], tokenizer, folder / "arrays.npz")
    tokenizer.save(str(folder / "tokenizer.json"))
    arrays = Arrays(folder / "arrays.npz")
    torch.manual_seed(0)
    model = Encoder(EncoderConfig(tokenizer.get_vocab_size(), width=128, layers=2, inner=128, positions=64))
    train = np.setdiff1d(arrays.where(split="train"), held_out_rows(arrays))
    fine_tune(model, arrays, train, Recipe(steps=25, token_budget=1024, learning_rate=3e-3, average=0.8), weights={})
    torch.save({name: value.half() for name, value in model.state_dict().items()}, folder / "weights.pt")
    return folder, arrays, tokenizer, model.eval()


@pytest.fixture(scope="module")
def bundle(world, tmp_path_factory):
    _, arrays, tokenizer, model = world
    held_out = held_out_rows(arrays)
    return bundle_model(
        tmp_path_factory.mktemp("engines") / "made",
        model,
        tokenizer,
        arrays,
        name="made",
        version="3",
        trained=np.setdiff1d(arrays.where(split="train"), held_out),
        held_out=held_out,
        training={"date": "2026-11-22", "steps": 25, "recipe": {"seed": 7}},
    )


def arrays_of(examples, folder):
    tokenizer = train_vocabulary([e.text for e in examples] * 4, size=400, least_chinese=1)
    prepare(examples, ["nothing known"], tokenizer, folder / "few.npz")
    return Arrays(folder / "few.npz")


# --- measuring ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(ENTITY_TYPES)), max_size=6))
def test_spans_are_read_back_from_their_tags(parts):
    tags, wanted = [], set()
    for gap, length, kind in parts:
        tags += [0] * gap
        wanted.add((len(tags), len(tags) + length, kind))
        tags += [ENTITY_TAGS.index(f"B-{kind}")] + [ENTITY_TAGS.index(f"I-{kind}")] * (length - 1)
    assert spans(tags) == wanted


def test_an_inside_tag_alone_begins_a_span_and_an_ignored_token_is_outside():
    product, brand = ENTITY_TAGS.index("I-product"), ENTITY_TAGS.index("I-brand")
    assert spans([-100, product, product, brand, -100]) == {(1, 3, "product"), (3, 4, "brand")}


@given(
    st.lists(st.floats(-6, 6, width=32), min_size=8, max_size=8),
    st.lists(st.floats(0.01, 0.99), min_size=8, max_size=8),
)
def test_chosen_topics_are_those_a_user_gets(logits, thresholds):
    spec = OutputSpec("topics", "labels", TOPICS, thresholds=tuple(thresholds))
    row = np.array([logits], np.float32)
    probabilities = 1 / (1 + np.exp(-row[0].astype(np.float64)))
    if np.abs(probabilities - thresholds).min() > 1e-6:  # on the edge, rounding decides
        named = {topic for topic, chosen in zip(TOPICS, chosen_topics(row, thresholds)[0], strict=True) if chosen}
        assert named == set(choose_topics(probabilities.astype(np.float32), spec))


def test_a_two_class_set_passes_over_neutral_and_stars_are_measured_twice(tmp_path):
    arrays = arrays_of(
        [
            Example("a good one", "en_amazon", "test", sentiment=POSITIVE, two_class=True),
            Example("a bad one", "en_amazon", "test", sentiment=NEGATIVE, two_class=True),
            Example("three stars", "en_clothing", "test", sentiment=NEUTRAL),
            Example("five stars", "en_clothing", "test", sentiment=POSITIVE),
        ],
        tmp_path,
    )
    two = score(
        {"sentiment": np.array([[0, 9, 1], [0, 9, 1]], np.float32), "topics": np.zeros((2, 8))},
        arrays,
        np.array([0, 1]),
        source="en_amazon",
    )
    assert (two.values, two.counts) == ({"accuracy": 0.5}, {"accuracy": 2})
    stars = score({"sentiment": np.array([[3, 2, 1], [0, 9, 1]], np.float32)}, arrays, [2, 3], source="en_clothing")
    assert stars.values == {"accuracy": 0.0, "accuracy_without_neutral": 1.0}
    assert stars.counts == {"accuracy": 2, "accuracy_without_neutral": 1}


def test_app_reviews_choose_among_their_four_classes_only(tmp_path):
    names = ("bug", "feature request", "usability", "other")
    made = [Example(f"app {n}", "app_reviews", "test", app_class=TOPICS.index(n)) for n in names]
    arrays = arrays_of(made, tmp_path)
    logits = np.full((4, 8), -9.0, np.float32)
    logits[:, TOPICS.index("price")] = 9  # not one of the four
    for row, name in enumerate(("bug", "feature request", "usability", "bug")):
        logits[row, TOPICS.index(name)] = 1
    found = score({"sentiment": np.zeros((4, 3)), "topics": logits}, arrays, np.arange(4), source="app_reviews")
    assert found.values["accuracy_of_four"] == 0.75
    assert found.values["f1_bug"] == pytest.approx(2 / 3)
    assert found.values["f1_other"] == 0


def test_topics_count_where_they_are_known_and_word_lists_do_not(tmp_path):
    made = [
        Example("price here", "own_topics_en", "test", topics=topics(price=1, bug=0)),
        Example("bug here", "own_topics_en", "test", topics=topics(price=0, bug=1)),
        Example("便宜", "zh_shopping", "test", topics=topics(price=1)),
    ]
    arrays = arrays_of(made, tmp_path)
    logits = np.full((3, 8), -9.0, np.float32)
    logits[:, TOPICS.index("price")] = 2
    logits[:, TOPICS.index("service")] = 2  # unknown in both texts
    predictions = {"sentiment": np.zeros((3, 3)), "topics": logits}
    two = {name: logits[:2] for name, logits in predictions.items()}
    own = score(two, arrays, np.array([0, 1]), source="own_topics_en")
    assert own.values == pytest.approx({"macro_f1": 1 / 3, "f1_price": 2 / 3, "f1_bug": 0})
    assert own.counts == {"macro_f1": 2, "f1_price": 1, "f1_bug": 1}
    one = {name: logits[2:] for name, logits in predictions.items()}
    assert score(one, arrays, np.array([2]), source="zh_shopping").values == {}


def test_entities_count_whole_spans_of_the_types_a_set_annotates(tmp_path):
    text = "Acme lamp by Bolt"
    made = [
        Example(
            text,
            "zh_ecommerce",
            "test",
            entities=(Span(0, 4, "brand"), Span(5, 9, "product")),
            entity_types=("product", "brand", "model"),
        )
    ]
    tokenizer = train_vocabulary([text] * 9, size=400, least_chinese=1)
    prepare(made, [], tokenizer, tmp_path / "one.npz")
    arrays = Arrays(tmp_path / "one.npz")
    tokens = tokenizer.encode(text).tokens
    assert tokens == ["[CLS]", "Acme", "lamp", "by", "Bolt", "[SEP]"]
    said = [
        "B-model",
        "B-brand",
        "B-brand",
        "O",
        "B-company",
        "B-model",
    ]  # company is not annotated, marks are no text
    logits = np.eye(len(ENTITY_TAGS), dtype=np.float32)[[ENTITY_TAGS.index(tag) for tag in said]]
    predictions = {"sentiment": np.zeros((1, 3)), "topics": np.zeros((1, 8)), "entities": [logits]}
    found = score(predictions, arrays, np.array([0]), source="zh_ecommerce")
    assert found.values == pytest.approx(
        {"f1_product": 0, "f1_brand": 2 / 3, "f1_model": 0, "f1_product_brand": 0.5, "f1_micro": 0.5}
    )
    assert found.counts["f1_product_brand"] == 2


def test_a_measured_set_as_rows_and_as_a_table_of_the_card():
    item = Measured("en_amazon", "en", "test", {"accuracy": 0.91234}, {"accuracy": 2115})
    assert item.as_rows() == [
        {"source": "en_amazon", "language": "en", "split": "test", "metric": "accuracy", "value": 0.91234, "n": 2115}
    ]
    assert item.as_table() == {"language": "en", "split": "test", "accuracy": {"value": 0.9123, "n": 2115}}


# --- rows, temperatures, thresholds ------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(0, 40), st.integers(0, 3))
def test_spread_draws_evenly_and_the_same_again(strata, limit, seed):
    drawn = spread(strata, limit, seed=seed)
    assert drawn == sorted(set(drawn)) == spread(strata, limit, seed=seed)
    assert len(drawn) == min(limit, len(strata))
    taken = {name: sum(strata[index] == name for index in drawn) for name in set(strata)}
    for name, count in taken.items():
        if count < strata.count(name):  # one that could have given more gave no less than any other, but for one
            assert count >= max(taken.values()) - 1


def test_held_out_rows_are_dev_parts_and_a_share_of_our_own(world):
    _, arrays, *_ = world
    rows = held_out_rows(arrays, own_share=0.5)
    assert (rows == held_out_rows(arrays, own_share=0.5)).all()
    dev, own = arrays.where(split="dev"), arrays.where(split="train", source="own_topics_en")
    assert np.isin(dev, rows).all()
    assert len(np.intersect1d(rows, own)) == round(len(own) / 2)
    assert len(rows) == len(dev) + round(len(own) / 2)
    assert not np.isin(arrays.where(split="test"), rows).any()


def test_rows_that_were_trained_on_are_refused_and_their_doubles_left_out(tmp_path):
    made = [
        Example("很好", "zh_shopping", "train", sentiment=POSITIVE, two_class=True),
        Example("很好", "zh_shopping", "dev", sentiment=POSITIVE, two_class=True),
        Example("好用", "zh_shopping", "dev", sentiment=POSITIVE, two_class=True),
    ]
    arrays = arrays_of(made, tmp_path)
    assert unseen_rows(arrays, np.array([1, 2]), np.array([0])).tolist() == [2]
    with pytest.raises(ParameterError, match=r"1 of 2 rows .* trained on \(zh_shopping\)"):
        unseen_rows(arrays, np.array([0, 2]), np.array([0]))


def sure_network(arrays, rows, temperature, seed=0):
    """Logits that are ``temperature`` times too sure: labels are drawn from the softmax of logits / temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (len(rows), 3)).astype(np.float32)
    two = arrays.two_class[rows]
    for place, row in enumerate(rows):
        shares = np.exp(logits[place])
        shares[1] = 0 if two[place] else shares[1]
        arrays.sentiment[row] = random.choice(3, p=shares / shares.sum())
    return {"sentiment": logits * temperature, "topics": np.zeros((len(rows), 8), np.float32)}


def test_temperature_is_found_by_language_and_lowers_the_error(tmp_path):
    made = [Example(f"text {n}", "en_clothing", "dev", sentiment=NEUTRAL) for n in range(1500)]
    made += [Example(f"文本 {n}", "zh_shopping", "dev", sentiment=POSITIVE, two_class=True) for n in range(1500)]
    arrays = arrays_of(made, tmp_path)
    rows = np.arange(3000)
    predictions = sure_network(arrays, rows, 1.0)
    predictions["sentiment"][:1500] *= 2.5
    predictions["sentiment"][1500:] *= 0.6
    found = calibrate(predictions, arrays, rows)
    assert found.temperatures["en"] == pytest.approx(2.5, rel=0.1)
    assert found.temperatures["zh"] == pytest.approx(0.6, rel=0.1)
    assert found.temperature == pytest.approx(np.sqrt(2.5 * 0.6), rel=0.1)
    for fit in found.languages:
        assert fit.texts == 1500
        assert fit.ece_after < fit.ece_before
        assert fit.nll_after < fit.nll_before
        assert fit.ece_after < 0.04


def test_few_texts_of_a_language_give_no_temperature(tmp_path):
    made = [Example(f"text {n}", "en_amazon", "dev", sentiment=n % 2 * 2, two_class=True) for n in range(20)]
    arrays = arrays_of(made, tmp_path)
    found = calibrate({"sentiment": np.ones((20, 3)), "topics": np.zeros((20, 8))}, arrays, np.arange(20))
    assert (found.temperature, found.temperatures, found.languages) == (1.0, {}, ())
    assert found.thresholds == (0.5,) * 8


def test_calibration_error_is_how_far_sureness_is_from_being_right():
    assert calibration_error(np.full(10, 0.9), np.array([True] * 9 + [False])) == pytest.approx(0, abs=1e-9)
    assert calibration_error(np.full(10, 1.0), np.zeros(10, bool)) == pytest.approx(1)


def test_thresholds_move_with_evidence_and_stay_in_bounds(tmp_path):
    def known(number, source):
        many, few = number % 4 == 0, number < 4
        return Example(
            f"text {number} {source}",
            source,
            "dev",
            topics=topics(price=int(many), bug=int(few), delivery=0, service=1),
        )

    made = [known(n, "own_topics_en") for n in range(400)]
    made += [Example(f"便宜 {n}", "zh_shopping", "dev", topics=topics(usability=1)) for n in range(300)]
    made += [Example(f"慢 {n}", "zh_shopping", "dev", topics=topics(usability=0)) for n in range(300)]
    arrays = arrays_of(made, tmp_path)
    logits = np.full((1000, 8), 3.0, np.float32)  # too sure of everything
    price, bug, usability = (TOPICS.index(name) for name in ("price", "bug", "usability"))
    logits[arrays.topics[:1000, price] == 1, price] = 5.0
    logits[arrays.topics[:1000, bug] == 1, bug] = 5.0
    logits[arrays.topics[:1000, usability] == 1, usability] = 5.0
    found = calibrate({"sentiment": np.zeros((1000, 3)), "topics": logits}, arrays, np.arange(1000))
    by_topic = {fit.topic: fit for fit in found.topics}
    assert by_topic["price"].best > 0.95
    assert by_topic["price"].threshold == 0.8  # the highest there is
    assert 0.5 < by_topic["bug"].threshold < 0.6  # four texts are little evidence
    assert by_topic["delivery"].threshold == by_topic["service"].threshold == 0.5  # nothing to choose by
    assert by_topic["usability"].texts == 0  # word lists do not count
    assert found.thresholds == tuple(by_topic[topic].threshold for topic in TOPICS)


def test_drawn_rows_come_from_all_sources(world):
    _, arrays, *_ = world
    rows = draw_rows(arrays, arrays.where(split="train"), 30)
    counts = np.bincount(arrays.source[rows])
    assert len(rows) == 30
    assert counts[counts > 2].min() >= counts.max() - 1


# --- sets and cards ----------------------------------------------------------------------------------------------


def test_every_source_of_our_own_texts_is_known_with_its_files():
    texts = [*read_own(ROOT / "calibration"), *read_written(ROOT / "calibration")]
    sources = {example.source for example in texts}
    for source in sources:
        item = data_set(source)
        assert item.own
        assert item.name == source
        assert all((ROOT / "calibration" / name).is_file() for name in item.files)
    assert {name for name, item in DATA_SETS.items() if item.own} == sources


@pytest.mark.data
@pytest.mark.slow
def test_every_source_of_the_data_folder_is_known_with_its_files():
    from workbench.engine.training.corpus import read_examples

    folder = os.environ.get("WORKBENCH_DATA")
    if not folder:
        pytest.skip("needs labelled texts: set WORKBENCH_DATA to the folder that has text/*.parquet")
    by_source = {}
    for example in read_examples(Path(folder)):
        by_source.setdefault(example.source, set()).add(example.split)
    made = ("unlabelled", "segments", "composed")
    hashes = hash_files([*by_source, *made], data=Path(folder), calibration=None)
    assert set(hashes) == {*by_source, *made}
    for source, splits in by_source.items():
        assert not data_set(source).evaluation_only or splits == {"test"}
    readme = (Path(folder) / "README.md").read_text(encoding="utf-8")
    for item in DATA_SETS.values():
        if not item.own and item.name not in ("app_reviews", "unlabelled", "segments", "composed"):
            assert item.origin in readme
        assert "CC BY 4.0" not in item.licence or "CC BY 4.0" in readme


def test_what_may_not_be_trained_on_or_is_not_known_is_refused(tmp_path):
    made = [
        Example("good", "en_amazon", "train", sentiment=POSITIVE, two_class=True),
        Example("bad", "zh_takeaway", "test", sentiment=NEGATIVE, two_class=True),
    ]
    arrays = arrays_of(made, tmp_path)
    by_name = {item["name"]: item for item in list_sets(arrays, np.array([0]))}
    assert (by_name["en_amazon"]["rows"], by_name["en_amazon"]["use"]) == (1, "pre-training, fine-tuning")
    assert (by_name["zh_takeaway"]["rows"], by_name["zh_takeaway"]["use"]) == (0, "evaluation only")
    assert by_name["zh_takeaway"]["rows_measured"] == 1
    with pytest.raises(ModelError, match="zh_takeaway were trained on, which is for evaluation only"):
        list_sets(arrays, np.array([0, 1]))
    strange = arrays_of([Example("good", "a_set_from_somewhere", "train", sentiment=POSITIVE)], tmp_path)
    with pytest.raises(ModelError, match=r"a_set_from_somewhere.*Add an entry"):
        list_sets(strange, np.array([0]))


def test_limits_name_what_was_measured_low():
    low = Measured(
        "en_wnut17", "en", "test", {"f1_micro": 0.06, "f1_product": 0.05}, {"f1_micro": 1, "f1_product": 1}
    )
    high = Measured("zh_shopping", "zh", "test", {"accuracy": 0.94}, {"accuracy": 1})
    assert find_limits([low, high])[-1].startswith("Entities (F1) measured below 0.6")
    assert find_limits([low, high])[-1].endswith(": en wnut17 0.06.")
    assert find_limits([high]) == find_limits([])


PLAIN = st.one_of(st.text(max_size=8), st.integers(-9, 9), st.booleans(), st.floats(-9, 9), st.lists(st.integers()))
NAMES = st.text(min_size=1, max_size=6)
DOCUMENTS = st.dictionaries(
    NAMES,
    PLAIN
    | st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN, min_size=1)))
    | st.lists(st.dictionaries(NAMES, PLAIN, min_size=1), min_size=1, max_size=3),
    max_size=5,
)


@given(DOCUMENTS)
def test_a_card_is_read_back_as_it_was_written(document):
    assert tomllib.loads(toml_document(document)) == document
    assert tomllib.loads(toml_document({**document, "not said": None})) == document


# --- the folder --------------------------------------------------------------------------------------------------


def test_the_folder_is_read_by_the_runtime_and_says_what_it_is(bundle, world):
    from workbench.report.model_cards import card_from_spec
    from workbench.scoring import score as score_texts

    _, arrays, _, model = world
    spec = load_spec(bundle.folder)
    assert (spec.title, spec.max_tokens, spec.pad_id) == ("made 3", 64, 0)
    assert {path.name for path in bundle.folder.iterdir()} == set(MODEL_FILES)
    assert spec.outputs["topics"].thresholds == bundle.calibration.thresholds
    assert dict(spec.outputs["sentiment"].temperatures) == dict(bundle.calibration.temperatures)
    assert "en" in bundle.calibration.temperatures
    card = spec.card
    assert (card["training"]["steps"], card["training"]["recipe"]["seed"]) == (25, 7)
    used = {"guess", "guess_bias"}
    count = sum(p.numel() for name, p in model.named_parameters() if name.split(".")[0] not in used)
    assert card["network"]["parameters"] == count
    assert card["network"]["bytes"] == (bundle.folder / "model.onnx").stat().st_size
    assert card["network"]["bytes"] < 2.1 * count + 40_000
    assert {item["name"] for item in card["training"]["sets"]} == set(arrays.sources)
    assert card["metrics"]["en_amazon"]["accuracy"]["value"] >= 0.9
    shown = card_from_spec(spec)
    assert {(row["set"], row["metric"]) for row in shown.metrics} == {
        (r["source"], r["metric"]) for r in bundle.rows()
    }
    assert len(shown.limits) >= 4
    frame = score_texts(["good lovely great", "awful broken sad"], models=dict.fromkeys(spec.outputs, bundle.folder))
    assert frame["sentiment"].to_list() == ["positive", "negative"]
    assert frame["model"].unique().to_list() == ["made 3"]


def test_what_was_measured_is_what_the_folder_answers(bundle, world):
    _, arrays, _, model = world
    rows = arrays.where(split="test")
    with OnnxSession(bundle.folder) as session:
        got = reader(session, arrays)(rows)
        again = evaluate(reader(session, arrays), arrays, thresholds=bundle.calibration.thresholds)
        few = evaluate(reader(session, arrays), arrays, sources=["en_amazon"], most=7)
    want = predict(rounded_copy(model), arrays, rows)
    np.testing.assert_allclose(got["sentiment"], want["sentiment"], atol=1e-4)
    np.testing.assert_allclose(got["topics"], want["topics"], atol=1e-4)
    for one, other in zip(got["entities"], want["entities"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert tuple(again) == bundle.measured
    assert few[0].counts == {"accuracy": 7}


def test_padding_and_neighbours_change_nothing(bundle):
    random = np.random.default_rng(5)
    with OnnxSession(bundle.folder) as session:
        for lengths in ([9], [4, 30, 1], random.integers(1, 64, 17).tolist()):
            ids = np.zeros((len(lengths), 64), np.int32)
            bias = np.full((len(lengths), 1, 1, 64), -1e4, np.float32)
            for row, length in enumerate(lengths):
                ids[row, :length] = random.integers(5, 100, length)
                bias[row, ..., :length] = 0
            together = session.run(ids, bias, ("sentiment", "topics", "entities"))
            for row, length in enumerate(lengths):
                alone = session.run(ids[row : row + 1, :length], bias[row : row + 1, ..., :length], tuple(together))
                np.testing.assert_allclose(together["sentiment"][row], alone["sentiment"][0], atol=1e-4)
                np.testing.assert_allclose(together["topics"][row], alone["topics"][0], atol=1e-4)
                np.testing.assert_allclose(together["entities"][row, :length], alone["entities"][0], atol=1e-4)


def test_the_very_same_bits_alone_and_among_others(bundle):
    """The card says so, so the runtime runs a lone text once only."""
    assert load_spec(bundle.folder).card["network"]["batch_invariant"] is True
    random = np.random.default_rng(9)
    texts = [" ".join([*random.choice([*GOOD, *BAD], random.integers(1, 40)), str(n)]) for n in range(300)]
    with OnnxSession(bundle.folder, threads=2) as session:
        whole = read_texts(session, texts)
        for size, several in ((1, texts[:60]), (7, texts)):
            parts = [read_texts(session, several[at : at + size]) for at in range(0, len(several), size)]
            for name in ("p_sentiment", "p_topics"):
                assert np.concatenate([getattr(part, name) for part in parts]).tobytes() == (
                    getattr(whole, name)[: len(several)].tobytes()
                )
            assert [entities for part in parts for entities in part.entities] == whole.entities[: len(several)]


def test_a_graph_whose_bits_depend_on_the_batch_is_told(tmp_path):
    torch.manual_seed(1)
    model = rounded_copy(Encoder(EncoderConfig(60, width=64, layers=1, inner=64, positions=64)))
    path = tmp_path / "model.onnx"
    write_graph(model, path)
    assert is_batch_invariant(path, model)
    # What the largest of all texts' logits is depends on the neighbours.
    graph = onnx.load(path)
    node = next(node for node in graph.graph.node if "topics" in node.output)
    node.output[0] = "own_topics"
    graph.graph.node.append(onnx.helper.make_node("ReduceMax", ["own_topics"], ["all"], axes=[0], keepdims=1))
    graph.graph.node.append(onnx.helper.make_node("Sub", ["own_topics", "all"], ["topics"]))
    onnx.save(graph, path)
    assert not is_batch_invariant(path, model)


def test_the_graph_is_plain_and_its_matrices_are_halves(bundle):
    graph = onnx.load(bundle.folder / "model.onnx")
    assert {(entry.domain, entry.version) for entry in graph.opset_import} == {("", 17)}
    kinds = {item.name: item.data_type for item in graph.graph.initializer if len(item.dims) == 2}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT16}
    assert "layers.1.attention.query.weight_fp16" in kinds
    vectors = {item.data_type for item in graph.graph.initializer if len(item.dims) == 1}
    assert vectors <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    operators = {node.op_type for node in graph.graph.node}
    assert {"LayerNormalization", "Erf", "Softmax", "Gemm"} <= operators
    assert not operators & {"If", "Loop", "Where", "Range", "Expand", "ConstantOfShape"}
    gathers = [node for node in graph.graph.node if node.op_type == "Gather" and "input_ids" in node.input]
    assert len(gathers) == 1  # the ids go to the table as they are, int32
    assert sum(node.op_type == "Shape" for node in graph.graph.node) <= 2


def test_the_same_weights_give_the_same_bytes(world, tmp_path):
    _, _, tokenizer, model = world
    made = []
    for name in ("one", "two"):
        write_bundle(tmp_path / name, model, tokenizer, name="made", version="1", card={"limits": ["few texts"]})
        made.append([hashlib.sha256((tmp_path / name / file).read_bytes()).hexdigest() for file in MODEL_FILES])
    assert made[0] == made[1]
    assert (tmp_path / "one" / "model.onnx").stat().st_mode & 0o044


def test_an_existing_folder_is_kept_unless_it_is_to_be_replaced(world, tmp_path):
    _, _, tokenizer, model = world
    target = tmp_path / "made"
    target.mkdir()
    (target / "model.toml").write_text("old")
    (target / "made.plan").write_text("built")
    with pytest.raises(ModelError, match="exists and is not empty"):
        write_bundle(target, model, tokenizer, name="made", version="1")
    assert (target / "model.toml").read_text() == "old"
    write_bundle(target, model, tokenizer, name="made", version="1", replace=True)
    assert load_spec(target).title == "made 1"
    assert (target / "made.plan").read_text() == "built"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_appears_whole_or_not_at_all(world, tmp_path):
    _, arrays, tokenizer, model = world
    with pytest.raises(ModelError, match="outputs is written by the bundle itself"):
        write_bundle(tmp_path / "made", model, tokenizer, name="made", version="1", card={"outputs": {}})
    small = Encoder(EncoderConfig(60, width=64, layers=1, inner=64, positions=16))
    with pytest.raises(ModelError, match="do not belong together"):
        write_bundle(tmp_path / "made", small, tokenizer, name="made", version="1")
    with pytest.raises(ParameterError, match="trained on"):
        bundle_model(
            tmp_path / "made",
            model,
            tokenizer,
            arrays,
            name="made",
            version="1",
            trained=arrays.where(split="train"),
            held_out=held_out_rows(arrays, own_share=0.5),
            training={},
        )
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_halves_or_are_a_teachers_are_refused(tmp_path):
    config = {"vocabulary": 60, "width": 64, "layers": 1, "inner": 64, "positions": 16}
    model = Encoder(EncoderConfig(**config))
    with torch.no_grad():
        model.pool.weight[0, 0] = 1e6
    with pytest.raises(ModelError, match=re.escape("pool.weight is beyond FP16's range")):
        rounded_copy(model)
    with pytest.raises(ModelError, match="is a teacher"):
        rounded_copy(Encoder(EncoderConfig(**config, pre_norm=True)))


def test_a_graph_that_is_not_the_network_is_found_out(tmp_path):
    torch.manual_seed(1)
    model = rounded_copy(Encoder(EncoderConfig(60, width=64, layers=1, inner=64, positions=16)))
    path = tmp_path / "model.onnx"
    write_graph(model, path)
    check_graph(path)
    assert check_parity(path, model) <= 1e-4
    with torch.no_grad():
        model.entities.bias[3] += 2e-3
    with pytest.raises(ModelError, match=r"differs from torch by 0\.002"):
        check_parity(path, model)
    graph = onnx.load(path)
    graph.graph.output[0].name = "mood"
    graph.graph.node[[node.output[0] for node in graph.graph.node].index("sentiment")].output[0] = "mood"
    onnx.save(graph, path)
    with pytest.raises(ModelError, match="sentiment is missing"):
        check_graph(path)


def test_files_of_another_machine_become_the_same_folder(world, tmp_path):
    folder, arrays, _, model = world
    made = bundle_from_checkpoint(
        folder / "weights.pt",
        folder / "tokenizer.json",
        folder / "arrays.npz",
        tmp_path / "made",
        name="made",
        training={"date": "2026-11-22"},
        metrics={"en_amazon": {"accuracy": {"value": 0.9, "n": 10}}},
        limits=["Made for a test."],
        calibration_texts=ROOT / "calibration",
    )
    spec = load_spec(made.folder)
    assert spec.card["metrics"] == {"en_amazon": {"accuracy": {"value": 0.9, "n": 10}}}
    assert spec.card["limits"] == ["Made for a test."]
    assert made.measured == ()
    own = next(item for item in spec.card["training"]["sets"] if item["name"] == "own_topics_en")
    assert own["rows"] == len(arrays.where(split="train", source="own_topics_en"))
    files = [(ROOT / "calibration" / name).read_bytes() for name in own["files"]]
    assert own["sha256"] == [hashlib.sha256(content).hexdigest() for content in files]
    loaded = load_checkpoint(folder / "weights.pt")
    assert loaded.config == EncoderConfig(model.config.vocabulary, 128, 2, 128, 64)
    tables = made.calibration
    assert tables != Calibration()


def test_the_command_takes_rows_that_were_left_out_and_limits_to_add(world, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from workbench.engine.training.__main__ import app

    monkeypatch.setenv("WORKBENCH_HOME", str(ROOT))
    folder, arrays, *_ = world
    dev = arrays.where(split="dev")
    own = arrays.where(split="train", source="own_topics_en")[:7]
    held, trained = np.sort(np.concatenate([dev, own])), np.setdiff1d(arrays.where(split="train"), own)
    np.save(tmp_path / "held.npy", held)
    np.save(tmp_path / "trained.npy", trained)
    (tmp_path / "more.json").write_text('["The figures flatter a little."]')
    files = [str(folder / name) for name in ("weights.pt", "tokenizer.json", "arrays.npz")]
    rows = ["--held-out", str(tmp_path / "held.npy"), "--trained", str(tmp_path / "trained.npy")]
    more = ["--more-limits", str(tmp_path / "more.json"), "--test-rows", "20"]
    done = CliRunner().invoke(app, ["bundle", *files, str(tmp_path / "made"), *rows, *more])
    assert done.exit_code == 0, done.output
    card = load_spec(tmp_path / "made").card
    assert sum(item["rows"] for item in card["training"]["sets"]) == len(trained)
    assert card["limits"][-1] == "The figures flatter a little."
    assert len(card["limits"]) > 4  # added to what was found
    assert max(fit["texts"] for fit in card["calibration"]["topics"]) == len(own)
    np.save(tmp_path / "held.npy", held.astype(float))
    failed = CliRunner().invoke(app, ["bundle", *files, str(tmp_path / "again"), *rows])
    assert failed.exit_code == 1
    assert "is no list of row numbers" in failed.output


def test_files_that_are_not_there_or_not_weights_are_told(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is not a file of weights"):
        load_checkpoint(tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not there"):
        bundle_from_checkpoint(
            tmp_path / "weights.pt", tmp_path / "tokenizer.json", tmp_path / "a.npz", tmp_path / "out", training={}
        )
