"""Scattered requests and the warm-up on a real GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.small_encoder import make_small_model
from workbench.bench.micro import measure_micro
from workbench.engine.build import build
from workbench.runtime import open_engine
from workbench.runtime.manifest import read_manifest
from workbench.runtime.micro import MicroBatcher
from workbench.runtime.read import read_texts
from workbench.runtime.warmup import options_of, warm_up
from workbench.tasks.spec import load_spec

pytestmark = pytest.mark.gpu

TEXTS = [
    f"{words} {number}"
    for number in range(60)
    for words in ("good phone", "the price is bad, and the screen is bad too", "很好，物流快", "the battery, " * 30)
]
LENGTHS = [6, 9, 14, 30, 60]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An engine of a small model; of one so small 8.6 makes no FP16 kernels, and the builder refuses it."""
    model = make_small_model(tmp_path_factory.mktemp("engines") / "small")
    manifest = build(model, precision="fp32", runtime="tensorrt", tactic_sources="none", progress=False)
    return model / "plans" / manifest.engine_id


def test_64_threads_get_the_answers_of_their_own_texts(engine):
    with open_engine(engine) as session:
        reading = read_texts(session, TEXTS)
        with MicroBatcher(session, max_wait_ms=1, max_batch=32) as batcher:
            with ThreadPoolExecutor(64) as pool:
                answers = list(pool.map(batcher.read, TEXTS))
            assert batcher.stats().mean_batch > 1
    # A batch of another shape may differ in its last bits, and so may a label that stands on the edge.
    same = [
        answer.sentiment == reading.sentiment[at] and answer.topics == reading.topics[at]
        for at, answer in enumerate(answers)
    ]
    assert sum(same) >= 0.98 * len(TEXTS)
    assert [answer.language for answer in answers] == reading.language
    for at, answer in enumerate(answers):
        near = pytest.approx(reading.p_sentiment[at].tolist(), abs=0.02)
        assert list(answer.p_sentiment.values()) == near


def test_a_thousand_requests_a_second_are_answered(engine):
    with open_engine(engine) as session:
        found = measure_micro(session, TEXTS, threads=64, seconds=2, tasks=["sentiment"])
    assert found.requests_per_s >= 1000, found.summary()


def test_a_warm_up_is_kept_and_used(engine):
    before = read_manifest(engine)
    warmed = warm_up(engine, LENGTHS, seconds=2, progress=False)
    options = options_of(before, max_tokens=load_spec(engine.parent.parent).max_tokens)
    assert warmed.engine_id == before.engine_id
    assert read_manifest(engine) == warmed
    assert warmed.batching["token_budget"] in options.token_budgets
    assert warmed.batching["slots"] in options.slots
    assert all(trial["tokens_per_s"] > 0 for trial in warmed.batching["measured"]["trials"])
    with open_engine(engine) as session:
        for name in ("token_budget", "max_texts", "slots", "graphs"):
            assert getattr(session.batching, name) == warmed.batching[name]
        assert all(read_texts(session, TEXTS).sentiment)
