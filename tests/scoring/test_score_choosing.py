"""Which engine reads: real engines of a small model, with verdicts and speeds put into their manifests."""

import logging
from dataclasses import replace

import pytest

import workbench
from tests.engine.small_encoder import make_small_model
from workbench.engine.build import build
from workbench.engine.gate import Flips, GateResult, processor
from workbench.engine.gate.card import conversion
from workbench.engine.gate.result import DEFAULT_METRICS
from workbench.engine.training.cards import toml_document
from workbench.errors import ModelError
from workbench.runtime.manifest import read_manifest, write_manifest
from workbench.scoring import choosing
from workbench.scoring.api import open_scorer
from workbench.scoring.choosing import choose_engines
from workbench.tasks.labels import TASKS
from workbench.workspace import EntityPolicy, Policies, SentimentPolicy, TopicPolicy

TEXTS = ["good phone", "很差", "the price is bad"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """A model folder with an FP16 and an INT8 engine."""
    folder = make_small_model(tmp_path_factory.mktemp("chosen") / "small")
    return folder, {
        name: build(folder, precision=name, runtime="onnxruntime", progress=False) for name in ("fp16", "int8")
    }


def result(task, *, delta=0.0, half=0.2, ratio=2.0, budget=1.0, verdict=None, metric=None, machine=None):
    made = GateResult(
        task=task,
        metric=metric or DEFAULT_METRICS[task],
        n=5000,
        reference=90.0,
        candidate=90.0 + delta,
        delta=delta,
        interval=(delta - half, delta + half),
        bootstrap=(delta - half, delta + half),
        flips=Flips(20, 0.4),
        lost=10,
        gained=10,
        mcnemar_p=1.0,
        budget=budget,
        verdict="pass",
    )
    made = replace(made, verdict=verdict or made.verdict_at(budget))
    return made if ratio is None else made.with_speed(100 * ratio, 100, measured_on=machine or processor())


@pytest.fixture
def judge(engines):
    """Put results into an engine's manifest; they are gone after the test."""
    folder, built = engines

    def put(precision, *results):
        path = folder / "plans" / built[precision].engine_id
        gate = {item.task: item.to_dict() for item in results}
        write_manifest(path, replace(read_manifest(path), gate=gate))

    yield put
    for precision in built:
        put(precision)


def chosen(folder, policy=None, backend="auto", tasks=TASKS):
    picked = choose_engines(folder, tasks, policy=policy, backend=backend)
    return [choice.manifest.precision if choice.manifest else "model" for choice in picked]


def test_without_verdicts_the_model_itself_reads(engines):
    folder, _ = engines
    assert chosen(folder) == ["model"] * 3
    (first, *_) = choose_engines(folder, TASKS)
    assert "not judged" in first.why
    assert "workbench engines compare" in first.why


def test_the_fastest_that_passed_reads_unless_the_policy_forbids_it(engines, judge):
    folder, _ = engines
    judge("int8", *(result(task, ratio=4) for task in TASKS))
    assert chosen(folder) == ["int8"] * 3
    policy = Policies(entities=EntityPolicy(precisions=("fp16",)))
    assert chosen(folder, policy, tasks=("sentiment", "topics")) == ["int8", "int8"]
    assert chosen(folder, policy, tasks=("entities",)) == ["model"]


def test_tasks_share_a_pass_where_two_passes_take_longer(engines, judge):
    folder, _ = engines
    judge("int8", *(result(task, ratio=3) for task in ("sentiment", "topics")))
    judge("fp16", *(result(task, ratio=2, half=0.1) for task in TASKS))
    # INT8 + FP16: 1/3 + 1/2; FP16 for all: 1/2.
    assert chosen(folder) == ["fp16"] * 3
    judge("fp16", *(result(task, ratio=1.02, half=0.1) for task in TASKS))
    # INT8 + the model: 1/3 + 1; the model for all: 1.
    assert chosen(folder) == ["model"] * 3
    (first, *_) = choose_engines(folder, TASKS)
    assert "may read, but a pass of its own saves no time" in first.why
    assert chosen(folder, tasks=("sentiment", "topics")) == ["int8", "int8"]


def test_an_engine_that_failed_or_is_slower_or_was_not_timed_is_not_served(engines, judge):
    folder, _ = engines
    for bad in (
        result("sentiment", delta=-3.0),
        result("sentiment", half=1.5),
        result("sentiment", ratio=0.8),
        result("sentiment", ratio=None),
        result("sentiment", metric="macro_f1"),
        result("sentiment", verdict="unmeasured"),
    ):
        judge("int8", bad)
        assert chosen(folder, tasks=("sentiment",)) == ["model"]
    judge("int8", result("sentiment"))
    assert chosen(folder, tasks=("sentiment",)) == ["int8"]


def test_a_verdict_of_int8_counts_on_the_processor_it_was_made_on(engines, judge):
    folder, _ = engines
    judge("int8", result("sentiment", machine="Another CPU"))
    assert chosen(folder, tasks=("sentiment",)) == ["model"]
    (first,) = choose_engines(folder, ("sentiment",))
    assert f"judged on Another CPU, not on {processor()}; run: workbench engines compare" in first.why
    judge("fp16", result("sentiment", half=0.1, machine="Another CPU"))
    assert chosen(folder, tasks=("sentiment",)) == ["fp16"]


def test_the_policy_decides_budget_metric_precision_and_inconclusive(engines, judge):
    folder, _ = engines
    judge("int8", result("sentiment", delta=-0.6, half=0.3), result("topics", half=1.5))
    only = ("sentiment",)
    assert chosen(folder, tasks=only) == ["int8"]
    # The verdict is taken again at the policy's budget, whatever it was measured against.
    assert chosen(folder, Policies(sentiment=SentimentPolicy(budget=0.5)), tasks=only) == ["model"]
    assert chosen(folder, Policies(sentiment=SentimentPolicy(precisions=("fp16",))), tasks=only) == ["model"]
    assert chosen(folder, Policies(sentiment=SentimentPolicy(metric="macro_f1")), tasks=only) == ["model"]
    assert chosen(folder, tasks=("topics",)) == ["model"]
    assert chosen(folder, Policies(topics=TopicPolicy(allow_inconclusive=True)), tasks=("topics",)) == ["int8"]


@pytest.fixture
def card(engines):
    """Put what the card says of the INT8 engine into model.toml; it is gone after the test."""
    folder, built = engines
    file = folder / "model.toml"
    before = file.read_text(encoding="utf-8")

    def put(*sets, **other):
        manifest = read_manifest(folder / "plans" / built["int8"].engine_id)
        rows = {
            f"set{at}": {"task": task, "metric": DEFAULT_METRICS[task], "n": n, "delta": delta, "interval": interval}
            for at, (task, n, delta, interval) in enumerate(sets)
        }
        engine = {**conversion(manifest), **other, "sets": rows}
        file.write_text(before + "\n" + toml_document({"engines": [engine]}), encoding="utf-8")

    yield put
    file.write_text(before, encoding="utf-8")


def test_where_texts_are_few_the_card_may_decide(engines, judge, card):
    folder, _ = engines
    judge("int8", result("sentiment", half=1.5))
    only = ("sentiment",)
    assert chosen(folder, tasks=only) == ["model"]
    good = ("sentiment", 12_000, -0.1, [-0.2, 0.0])
    card(good, ("topics", 5000, -3.0, [-4.0, -2.0]), ("sentiment", 500, -2.0, [-5.0, 1.0]))
    assert chosen(folder, tasks=only) == ["int8"]
    (choice,) = choose_engines(folder, only)
    assert "too few texts to tell, the model card has -0.10 [-0.20, +0.00] on 12,000 texts, set0" in choice.why
    # At the policy's budget, by the policy's metric.
    assert chosen(folder, Policies(sentiment=SentimentPolicy(budget=0.15)), tasks=only) == ["model"]
    # Texts here that speak against it count for more.
    judge("int8", result("sentiment", delta=-1.2, half=1.5))
    assert chosen(folder, tasks=only) == ["model"]


@pytest.mark.parametrize(
    ("sets", "other"),
    [
        ([("sentiment", 2000, 0.0, [-0.1, 0.1])], {}),
        ([("topics", 5000, 0.0, [-0.1, 0.1])], {}),
        ([("sentiment", 9000, 0.0, [-0.1, 0.1]), ("sentiment", 4000, -1.1, [-1.5, -0.5])], {}),
        ([("sentiment", 9000, 0.0, [-0.1, 0.1])], {"graph_sha256": "other ranges"}),
        ([("sentiment", 9000, 0.0, [-0.1, 0.1])], {"reading_sha256": "other thresholds"}),
        ([("sentiment", 9000, 0.0, [-0.1, 0.1])], {"model_sha256": "another network"}),
        ([("sentiment", 9000, 0.0, [-0.1, 0.1])], {"runtime": "tensorrt"}),
        ([("sentiment", 9000, 0.0, "nonsense")], {}),
    ],
)
def test_a_card_of_something_else_decides_nothing(engines, judge, card, sets, other):
    folder, _ = engines
    judge("int8", result("sentiment", half=1.5))
    card(*sets, **other)
    assert chosen(folder, tasks=("sentiment",)) == ["model"]


def test_unmeasured_is_never_served_even_where_inconclusive_is(engines, judge):
    folder, _ = engines
    judge("int8", result("topics", verdict="unmeasured"))
    assert chosen(folder, Policies(topics=TopicPolicy(allow_inconclusive=True)), tasks=("topics",)) == ["model"]


def test_scores_carry_the_engine_that_read(engines, judge, caplog):
    folder, built = engines
    judge("int8", *(result(task, ratio=4) for task in ("sentiment", "topics")))
    judge("fp16", result("entities", ratio=4, half=0.1))
    models = dict.fromkeys(TASKS, folder)
    with caplog.at_level(logging.INFO, logger="workbench.scoring"), open_scorer(models=models) as scorer:
        frame = scorer.score(TEXTS)
        assert [session.precision for session in scorer.sessions] == ["int8", "fp16"]
        assert [choice.task for choice in scorer.choices] == list(TASKS)
    assert set(frame["precision"]) == {"int8+fp16"}
    assert set(frame["engine_id"]) == {f"{built['int8'].engine_id}+{built['fp16'].engine_id}"}
    assert f"the int8 engine {built['int8'].engine_id} reads: +0.00 points of accuracy" in caplog.text
    sentiment = workbench.score(TEXTS, tasks=("sentiment",), models=models)
    assert set(sentiment["precision"]) == {"int8"}


def test_a_damaged_engine_is_passed_over_and_the_reason_told(engines, judge):
    folder, built = engines
    judge("int8", result("sentiment", ratio=4))
    plan = folder / "plans" / built["int8"].engine_id / built["int8"].plan
    whole = plan.read_bytes()
    plan.write_bytes(whole[:100])
    try:
        (choice,) = choose_engines(folder, ("sentiment",))
        assert choice.manifest is None
        assert "truncated" in choice.why
        frame = workbench.score(TEXTS, tasks=("sentiment",), models={"sentiment": folder})
        assert set(frame["precision"]) == {"fp32"}
    finally:
        plan.write_bytes(whole)


def test_tensorrt_never_falls_back(engines, judge):
    folder, _ = engines
    judge("int8", result("sentiment", ratio=4))
    with pytest.raises(
        ModelError, match=r"No TensorRT engine of small may read for sentiment: none is built.*engines"
    ):
        workbench.score(TEXTS, tasks=("sentiment",), models={"sentiment": folder}, backend="tensorrt")


def test_an_engine_that_the_runtime_refuses_is_passed_over(engines, judge, monkeypatch, caplog):
    folder, built = engines
    judge("int8", result("sentiment", ratio=4))

    def refuse(path, manifest):
        raise ModelError(f"{path} is refused. Build it again.")

    monkeypatch.setattr(choosing, "open_engine", refuse)
    frame = workbench.score(TEXTS, tasks=("sentiment",), models={"sentiment": folder})
    assert set(frame["precision"]) == {"fp32"}
    assert f"{built['int8'].engine_id} is refused" in caplog.text


def test_files_are_looked_at_only_where_an_engine_may_read(engines, judge, monkeypatch):
    folder, _ = engines
    looked = []
    monkeypatch.setattr(choosing, "staleness", lambda item, **_: looked.append(item.precision) or ())
    assert chosen(folder) == ["model"] * 3
    assert looked == []
    judge("int8", result("topics", ratio=4))
    assert chosen(folder, tasks=("topics",)) == ["int8"]
    assert looked == ["int8"]
