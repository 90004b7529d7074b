"""A warm-up finds the fastest way to batch, and its manifest keeps it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.test_manifest import engines, make, put  # noqa: F401 - fixtures
from workbench.errors import EngineError
from workbench.runtime import tensorrt, warmup
from workbench.runtime.manifest import Profile, read_manifest, write_manifest
from workbench.runtime.onnx import OnnxSession
from workbench.runtime.warmup import Options, choose_batching, options_of, random_texts, warm_up

LENGTHS = [4, 9, 20, 40]
OPTIONS = Options((256, 512, 1024), max_texts=64, longest=48)


class Engine:
    """The tiny model on a clock of its own, with a rate that is known for each way of batching."""

    def __init__(self, session, clock, *, rate, single_ms=0.0):
        self._session, self._clock, self._rate, self._single = session, clock, rate, single_ms / 1000

    def __getattr__(self, name):
        return getattr(self._session, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run_packed(self, texts, outputs):
        assert int(texts.lengths.max()) <= OPTIONS.longest
        if len(texts) == 1:
            assert texts.lengths[0] == 14  # the usual one of LENGTHS
            self._clock.now += self._single
        else:
            self._clock.now += len(texts.input_ids) / self._rate


@pytest.fixture(scope="module")
def session(tiny):
    with OnnxSession(tiny, threads=1) as opened:
        yield opened


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(warmup, "perf_counter", made)
    return made


def choose(session, clock, rates, *, graph_ms=1.0, options=OPTIONS):
    """``rates``: thousand tokens a second by (budget, slots), for others 300; and the ways that were opened."""
    opened = []

    def open_with(batching):
        opened.append(dict(batching))
        rate = rates.get((batching["token_budget"], batching["slots"]), 300) * 1000
        return Engine(session, clock, rate=rate, single_ms=graph_ms if batching["graphs"] else 3.0)

    return choose_batching(open_with, LENGTHS, options=options, seconds=0.3, progress=False), opened


def test_the_fastest_budget_and_number_of_slots_are_found(session, clock):
    found, opened = choose(session, clock, {(512, 2): 500, (512, 3): 700, (1024, 3): 900})
    measured = found.pop("measured")
    assert found == {"token_budget": 512, "max_texts": 64, "slots": 3, "graphs": True}
    # Budgets with two slots, the best one with other numbers of slots, then single texts, without graphs and with.
    ways = [(item["token_budget"], item["slots"]) for item in opened]
    assert ways == [(256, 2), (512, 2), (1024, 2), (512, 1), (512, 3), (512, 3), (512, 3)]
    assert [item["graphs"] for item in opened] == [False] * 6 + [True]
    assert measured["tokens_per_s"] == pytest.approx(700_000, rel=1e-3)
    assert measured["texts_per_s"] == pytest.approx(measured["tokens_per_s"] / np.mean(LENGTHS), rel=0.2)
    assert [(item["token_budget"], item["slots"]) for item in measured["trials"]] == ways[:5]
    assert (measured["single_ms"], measured["single_graph_ms"]) == (3.0, 1.0)
    assert measured["on"]
    assert measured["at"].endswith("+00:00")


def test_of_equals_the_smallest_is_taken_and_graphs_only_where_they_pay(session, clock):
    rates = {(256, 2): 495, (512, 2): 489, (1024, 2): 500, (256, 1): 480, (256, 3): 502}
    options = replace(OPTIONS, token_budgets=(1024, 512, 256))
    found, _ = choose(session, clock, rates, graph_ms=2.9, options=options)
    assert (found["token_budget"], found["slots"], found["graphs"]) == (256, 2, False)
    rates[256, 1] = 493
    rates[256, 2] = 489
    found, _ = choose(session, clock, rates, graph_ms=2.8, options=options)
    assert (found["token_budget"], found["slots"], found["graphs"]) == (1024, 2, True)
    rates[512, 2] = 491
    found, _ = choose(session, clock, rates, options=options)
    assert (found["token_budget"], found["slots"]) == (512, 2)


def test_what_is_not_asked_is_not_tried(session, clock):
    options = Options((256,), max_texts=8, longest=48, slots=(1,), graphs=False)
    found, opened = choose(session, clock, {}, options=options)
    assert len(opened) == 1
    assert (found["token_budget"], found["slots"], found["graphs"]) == (256, 1, False)
    assert "single_ms" not in found["measured"]


def test_a_real_session_is_measured(tiny):
    options = Options((64, 256), max_texts=256, longest=64, slots=(1,), graphs=False)
    found = choose_batching(
        lambda batching: OnnxSession(tiny, threads=1, token_budget=batching["token_budget"]),
        LENGTHS,
        options=options,
        seconds=0.2,
        progress=False,
    )
    assert found["token_budget"] in options.token_budgets
    assert all(trial["tokens_per_s"] > 0 for trial in found["measured"]["trials"])
    with pytest.raises(EngineError, match=r"no texts to warm up with.*git checkout -- calibration"):
        choose_batching(lambda _: None, [], options=options)


def test_what_is_tried_fits_the_profiles():
    packed = make(layout="packed", profiles=(Profile((1, 1), (64, 4096), (512, 16384)),))
    assert options_of(packed, max_tokens=512) == Options((16384, 8192, 4096, 2048, 1024), 512, 512)
    padded = make(profiles=(Profile((1, 1), (32, 32), (256, 64)), Profile((1, 1), (32, 256), (32, 512))))
    assert options_of(padded, max_tokens=512) == Options((16384, 8192, 4096, 2048, 1024), 256, 512)
    small = make(profiles=(Profile((1, 1), (8, 32), (16, 32)),))
    assert options_of(small, max_tokens=512) == Options((512,), 16, 32)
    long = make(layout="packed", profiles=(Profile((1, 1), (8, 512), (16, 6144)),))
    assert options_of(long, max_tokens=2048) == Options((6144, 3072), 16, 2048)


@given(
    lengths=st.lists(st.integers(1, 99), min_size=1, max_size=20),
    tokens=st.integers(1, 3000),
    longest=st.integers(1, 64),
)
def test_random_texts_have_the_lengths_they_should(lengths, tokens, longest):
    texts = random_texts(lengths, tokens=tokens, longest=longest, vocabulary=50)
    assert set(texts.lengths.tolist()) <= {min(length, longest) for length in lengths}
    assert tokens <= len(texts.input_ids) == texts.cu_seqlens[-1] < tokens + longest
    assert 0 <= texts.input_ids.min() <= texts.input_ids.max() < 50
    assert texts.input_ids.dtype == texts.cu_seqlens.dtype == np.int32
    again = random_texts(lengths, tokens=tokens, longest=longest, vocabulary=50)
    assert np.array_equal(again.input_ids, texts.input_ids)


def test_the_manifest_keeps_it_and_the_id_stays(put, session, clock, monkeypatch):  # noqa: F811
    folder, manifest = put(profiles=(Profile((1, 1), (8, 32), (64, 48)),), gate={"sentiment": {"verdict": "pass"}})
    asked = []

    def open_engine(model, *, engine, manifest, batching):
        asked.append((model, engine, manifest.engine_id))
        if len(asked) == 2:  # a comparison ends meanwhile
            write_manifest(folder, replace(read_manifest(folder), gate={"topics": {"verdict": "fail"}}))
        return Engine(session, clock, rate=400_000, single_ms=1)

    monkeypatch.setattr(tensorrt, "TensorRtSession", open_engine)
    warmed = warm_up(folder, LENGTHS, seconds=0.1, progress=False)
    assert read_manifest(folder) == warmed
    assert warmed.engine_id == manifest.engine_id
    assert warmed.gate == {"topics": {"verdict": "fail"}}
    assert warmed.batching["token_budget"] == 64 * 48 // 2  # the smallest, for all are equally fast
    assert warmed.batching["max_texts"] == 64
    assert set(asked) == {(folder.parent.parent, folder, manifest.engine_id)}


def test_an_engine_that_needs_none_or_cannot_run_is_left_as_it_is(put):  # noqa: F811
    folder, manifest = put(runtime="onnxruntime", gpu=None, compute_capability=None, plan="model.onnx")
    with pytest.raises(EngineError, match="needs no warm-up"):
        warm_up(folder, LENGTHS)
    folder, manifest = put()
    with pytest.raises(EngineError, match=r"[Bb]uild|Install"):
        warm_up(folder, LENGTHS, progress=False)
    assert read_manifest(folder) == manifest
