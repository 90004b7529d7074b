"""python -m tests.evaluate engines: real engines of a small model on small sets."""

import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.small_encoder import make_small_model
from tests.evaluate import engine_card, engines, model_sets
from tests.evaluate.__main__ import main
from tests.evaluate.engine_answers import Answers, decode, encode
from tests.evaluate.model_sets import LabelledSet, LabelledText, fingerprint, pack, unpack
from tests.evaluate.models import BUNDLED
from workbench.engine.build import build
from workbench.engine.gate.card import DECIDING, find_evidence
from workbench.runtime.manifest import file_sha256, find_plans, read_manifest
from workbench.runtime.session import reading_digest
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TOPICS
from workbench.tasks.spec import load_spec

WORDS = ("good phone", "bad price", "很好", "slow delivery", "the screen broke", "...", "质量很差", "I like it")


def make_set(name, task, labels, *, n=40, **more):
    gold = {
        "sentiment": lambda at: labels[at % len(labels)],
        "topics": lambda at: (labels[at % len(labels)],),
        "entities": lambda at: ((0, 4, labels[at % len(labels)]),) if at % 3 else (),
    }[task]
    texts = tuple(LabelledText(f"{WORDS[at % len(WORDS)]} {at}", gold(at)) for at in range(n))
    return LabelledSet(name, task, "test", texts, tuple(labels), "0" * 64, **more)


SETS = [
    make_set("two", "sentiment", ("negative", "positive")),
    make_set("three", "sentiment", SENTIMENTS),
    make_set("one_topic", "topics", ("bug", "other"), single=True),
    make_set("own_topics", "topics", TOPICS),
    make_set("names", "entities", ("product", "brand")),
    make_set("firms", "entities", ("company",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = make_small_model(tmp_path_factory.mktemp("judged") / "small")
    for precision in ("fp16", "int8"):
        build(made, precision=precision, runtime="onnxruntime", progress=False)
    return made


@pytest.fixture(scope="module")
def read(folder, tmp_path_factory):
    kept = tmp_path_factory.mktemp("answers")
    return *engines.read_engines(folder, SETS, keep=kept, progress=False), kept


def test_both_engines_are_judged_on_every_set(read):
    reference, found, _ = read
    judged = engines.judge_engines(reference, found, SETS)
    assert [each.about["precision"] for each in judged] == ["fp16", "int8"]
    for each in judged:
        assert list(each.results) == [item.name for item in SETS] + ["all entities"]
        assert each.results["all entities"].n == 80
        assert each.results["one_topic"].metric == "accuracy"
        assert each.results["own_topics"].metric == "macro_f1"
    assert {item.budget for item in judged[0].results.values()} == {0.3}
    assert {item.budget for item in judged[1].results.values()} == {1.0}
    text = engines.report(judged)
    assert text.count("| sentiment | two (test) | 40 | accuracy |") == 2
    assert "### INT8 (percentile-99.99), onnxruntime" in text
    assert "Budget 0.3 points: held by every estimate; no set has 3,000 texts or more." in text
    fp16 = judged[0]
    large = {name: replace(item, n=3000, verdict="pass") for name, item in fp16.results.items()}
    assert "passed on every set of 3,000 texts or more." in engines.report([replace(fp16, results=large)])
    large["two"] = replace(large["two"], verdict="inconclusive")
    assert "without a pass on two of 3,000 texts or more." in engines.report([replace(fp16, results=large)])


def test_the_sets_labels_alone_can_be_answers(read):
    reference, *_ = read
    assert set(reference.sets["two"]) <= {"negative", "positive", None}
    assert {topic for answer in reference.sets["one_topic"] for topic in answer or ()} <= {"bug", "other"}
    assert all(len(answer) == 1 for answer in reference.sets["one_topic"] if answer is not None)


def test_together_types_that_a_set_does_not_annotate_count_for_nobody(read):
    reference, found, _ = read
    firms = SETS[-1]
    # One wrong company in a set of companies; a product there is neither right nor wrong.
    sets = {"firms": [text.label for text in firms.texts], "names": [text.label for text in SETS[-2].texts]}
    right = Answers(reference.about, sets, {n: reference.prints[n] for n in sets})
    worse = [*sets["firms"]]
    worse[1] = (*worse[1], (6, 9, "product"))
    same = Answers(found[0].about, {**sets, "firms": worse}, right.prints)
    (judged,) = engines.judge_engines(right, [same], SETS)
    assert judged.results["all entities"].delta == 0
    worse[1] = ((0, 3, "company"),)
    (judged,) = engines.judge_engines(right, [replace(same, sets={**sets, "firms": worse})], SETS)
    assert judged.results["all entities"].delta < 0


def test_answers_are_kept_and_judged_elsewhere(folder, read, tmp_path, capsys, monkeypatch):
    reference, found, kept = read
    file = tmp_path / "sets.parquet"
    pack(SETS, file)
    assert main(["engines", "--sets", str(file), "--answers", str(kept), "--only-judge"]) == 0
    judged = capsys.readouterr().out
    assert judged.strip() == engines.report(engines.judge_engines(reference, found, SETS)).strip()
    # What is kept is not read again.
    monkeypatch.setattr(engines, "read_engine", lambda *_, **__: pytest.fail("read again"))
    again = engines.read_engines(folder, SETS, keep=kept, precisions=["int8"], progress=False)
    assert again[0].sets["two"] == reference.sets["two"]
    assert [answers.about["precision"] for answers in again[1]] == ["int8"]


def test_answers_by_other_thresholds_are_read_again(folder, read, tmp_path, monkeypatch):
    reference, found, kept = read
    own = shutil.copytree(kept, tmp_path / "kept")
    file = folder / "model.toml"
    before = file.read_text(encoding="utf-8")
    again = []
    monkeypatch.setattr(
        engines, "read_engine", lambda *args, inner=engines.read_engine, **how: again.append(1) or inner(*args, **how)
    )
    try:
        file.write_text(before.replace("zh = 2.0", "zh = 2.5"), encoding="utf-8")
        assert reading_digest(load_spec(folder)) != reference.about["reading_sha256"]
        with pytest.warns(UserWarning, match="is left out"):  # the engines are of the old thresholds
            other, _ = engines.read_engines(folder, SETS, keep=own, progress=False)
    finally:
        file.write_text(before, encoding="utf-8")
    assert again == [1]
    assert other.about["reading_sha256"] != reference.about["reading_sha256"]
    with pytest.raises(ValueError, match="other thresholds"):
        engines.judge_engines(other, found, SETS)


def test_answers_to_other_texts_are_refused(read, tmp_path, capsys):
    reference, found, kept = read
    other = [replace(SETS[0], texts=SETS[0].texts[::-1]), *SETS[1:]]
    with pytest.raises(ValueError, match="belong to other texts"):
        engines.judge_engines(reference, found, other)
    stranger = Answers({**found[0].about, "model_sha256": "another"}, found[0].sets, found[0].prints)
    with pytest.raises(ValueError, match="of another model"):
        engines.judge_engines(reference, [stranger], SETS)
    (tmp_path / "odd.npz").write_bytes(b"odd")
    file = tmp_path / "sets.parquet"
    pack(SETS, file)
    assert main(["engines", "--sets", str(file), "--answers", str(tmp_path), "--only-judge"]) == 2
    assert "odd.npz" in capsys.readouterr().err
    assert main(["engines", "--sets", str(tmp_path / "odd.npz"), "--answers", str(kept)]) == 2
    assert main(["engines", "--sets", str(file), "--only-read"]) == 2
    assert main(["engines"]) == 2


def test_the_card_keeps_what_was_measured_elsewhere(folder, read, tmp_path):
    reference, found, _ = read
    judged = engines.judge_engines(reference, found, SETS)
    file = folder / "model.toml"
    before, digest = file.read_text(encoding="utf-8"), reading_digest(load_spec(folder))
    try:
        engine_card.update_card(folder, judged)
        once = file.read_text(encoding="utf-8")
        assert once.startswith(before.rstrip("\n") + "\n\n[[engines]]")
        assert reading_digest(load_spec(folder)) == digest
        gpu = replace(judged[0], about={**judged[0].about, "runtime": "tensorrt", "target": "sm_90"})
        engine_card.update_card(folder, [gpu])
        engine_card.update_card(folder, judged)
        tables = load_spec(folder).card["engines"]
        assert [(t["runtime"], t["precision"]) for t in tables] == [
            ("onnxruntime", "fp16"),
            ("onnxruntime", "int8"),
            ("tensorrt", "fp16"),
        ]
        assert tables[1]["sets"]["all entities"]["n"] == 80
        assert tables[1]["sets"]["two"]["data_sha256"] == "0" * 12
        file.write_text(file.read_text(encoding="utf-8") + "\n[more]\nx = 1\n", encoding="utf-8")
        with pytest.raises(ValueError, match="would be lost"):
            engine_card.update_card(folder, judged)
    finally:
        file.write_text(before, encoding="utf-8")


def test_the_scorer_finds_what_the_card_says(folder, read):
    reference, found, _ = read
    judged = engines.judge_engines(reference, found, SETS)
    results = {"two": replace(judged[1].results["two"], n=5000, delta=-0.1, interval=(-0.3, 0.1))}
    table = engine_card.card_tables([replace(judged[1], results=results)])
    plans = dict(find_plans(folder.parent, folder.name))
    manifest = next(read_manifest(path) for path in plans if read_manifest(path).precision == "int8")
    evidence = find_evidence({"engines": table}, manifest, "sentiment", metric="accuracy", budget=1.0)
    assert (evidence.name, evidence.n, evidence.delta) == ("two", 5000, -0.1)
    other = next(read_manifest(path) for path in plans if read_manifest(path).precision == "fp16")
    assert find_evidence({"engines": table}, other, "sentiment", metric="accuracy", budget=1.0) is None


def test_sets_travel_in_one_file(tmp_path):
    pack(SETS, tmp_path / "sets.parquet")
    again = unpack(tmp_path / "sets.parquet")
    assert [fingerprint(each) for each in again] == [fingerprint(each) for each in SETS]
    assert again == SETS
    with pytest.raises(ValueError, match="no file of packed sets"):
        unpack(__file__)


spans = st.tuples(st.integers(0, 9), st.integers(10, 99), st.sampled_from(ENTITY_TYPES))


@given(
    st.lists(st.none() | st.sampled_from(SENTIMENTS)),
    st.lists(st.none() | st.lists(st.sampled_from(TOPICS), unique=True)),
    st.lists(st.lists(spans, max_size=4)),
)
def test_answers_survive_their_codes(sentiments, topics, entities):
    assert decode("sentiment", encode("sentiment", sentiments), len(sentiments)) == sentiments
    back = decode("topics", encode("topics", topics), len(topics))
    assert [a if a is None else set(a) for a in back] == [a if a is None else set(a) for a in topics]
    assert decode("entities", encode("entities", entities), len(entities)) == [tuple(each) for each in entities]


def test_sets_have_names_of_their_own():
    names = [item.name for item in (*model_sets.PUBLIC, *model_sets.GATE_ONLY)]
    assert len(set(names)) == len(names)


def test_the_bundled_models_card_is_of_the_bundled_model():
    bundled = load_spec(BUNDLED)
    tables = bundled.card["engines"]
    assert {table["model_sha256"] for table in tables} == {file_sha256(bundled.onnx)}
    assert {table["reading_sha256"] for table in tables} == {reading_digest(bundled)}
    for table in tables:
        large = [item for item in table["sets"].values() if item["n"] >= DECIDING]
        assert {item["task"] for item in large} == set(bundled.outputs)
        assert all(item["delta"] >= -table["budget"] for item in table["sets"].values())
        assert {item["verdict"] for item in large} == {"pass"}
