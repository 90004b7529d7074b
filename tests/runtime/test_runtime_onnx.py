import logging
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.runtime.test_manifest import DECIDING, make
from tests.runtime.tiny_model import TOML, make_network, make_tiny_model, make_tokenizer
from workbench.errors import EngineError, ModelError
from workbench.runtime import Session, open_engine, open_session
from workbench.runtime import onnx as backend
from workbench.runtime.batching import PackedTexts
from workbench.runtime.manifest import file_sha256, write_manifest
from workbench.runtime.onnx import OnnxSession, usable_cores
from workbench.runtime.session import reading_digest
from workbench.tasks.spec import load_spec

BIAS = np.zeros((1, 1, 1, 4), np.float32)
IDS = np.array([[2, 10, 11, 3]], np.int32)


@pytest.fixture
def folder(tmp_path):
    return make_tiny_model(tmp_path / "tiny")


def test_a_session_says_what_it_is(tiny):
    with open_session(tiny) as session:
        assert isinstance(session, Session)
        assert (session.backend, session.precision, session.slots) == ("onnxruntime", "fp32", usable_cores())
        assert session.spec.title == "tiny 1"
        assert len(session.engine_id) == 16
        int(session.engine_id, 16)
    with open_session(tiny, threads=1) as session:
        assert session.slots == 1


def test_run_gives_the_outputs_asked_for(tiny):
    with open_session(tiny) as session:
        found = session.run(IDS, BIAS, ("entities", "sentiment"))
    assert {name: value.shape for name, value in found.items()} == {"entities": (1, 4, 9), "sentiment": (1, 3)}


def test_padding_changes_nothing(tiny):
    with open_session(tiny) as session:
        alone = session.run(IDS, BIAS, ("sentiment",))["sentiment"]
        ids = np.concatenate([IDS, np.zeros((1, 4), np.int32)], axis=1)
        bias = np.concatenate([BIAS, np.full((1, 1, 1, 4), -1e4, np.float32)], axis=-1)
        assert session.run(ids, bias, ("sentiment",))["sentiment"] == pytest.approx(alone, abs=1e-6)


def test_many_threads_get_the_same(tiny):
    with open_session(tiny) as session, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: session.run(IDS, BIAS, ("topics",))["topics"].tolist(), range(64)))
    assert all(value == found[0] for value in found)


def test_a_closed_session_says_so(tiny):
    session = open_session(tiny)
    session.close()
    session.close()
    with pytest.raises(ModelError, match="is closed"):
        session.run(IDS, BIAS, ("sentiment",))


def test_the_engine_id_is_of_what_decides_scores(folder, tiny):
    def id_of(place):
        with open_session(place) as session:
            return session.engine_id

    first = id_of(folder)
    assert id_of(tiny) == first, "the folder's name decides nothing"
    (folder / "model.toml").write_text(TOML + '\n[limits]\nnote = "a card may grow"\n')
    assert id_of(folder) == first
    (folder / "model.toml").write_text(TOML.replace("zh = 2.0", "zh = 2.5"))
    changed = id_of(folder)
    assert changed != first
    make_tiny_model(folder, seed=1)
    assert id_of(folder) not in (first, changed)


def test_backends(tiny, caplog):
    with caplog.at_level(logging.INFO), open_session(tiny):
        assert "Backend auto: onnxruntime on the CPU, because" in caplog.text
    with pytest.raises(ModelError, match="Use backend onnxruntime"):
        open_session(tiny, backend="tensorrt")
    with pytest.raises(ModelError, match=r"No backend is named 'cuda'\. Use one of: auto, onnxruntime, tensorrt"):
        open_session(tiny, backend="cuda")


def test_a_damaged_network(folder):
    data = (folder / "model.onnx").read_bytes()
    for damaged in (b"", b"not a network", data[: len(data) // 2]):
        (folder / "model.onnx").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded: .*Get the folder back"):
            OnnxSession(folder)


def test_an_output_that_is_not_there(folder):
    network = make_network(make_tokenizer().get_vocab_size())
    del network.graph.output[1]
    onnx.save(network, folder / "model.onnx")
    with pytest.raises(
        ModelError, match=r"has no output topics, which model\.toml names; it has entities, sentiment"
    ):
        OnnxSession(folder)


def test_labels_that_do_not_match_the_output(folder):
    (folder / "model.toml").write_text(TOML.replace('"neutral", ', ""))
    with pytest.raises(ModelError, match=r"Output sentiment .* is float32 \[1, 3\] .* 2 labels .* float32 \[1, 2\]"):
        OnnxSession(folder)


def test_inputs_of_another_kind(folder):
    network = make_network(make_tokenizer().get_vocab_size())
    network.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    )
    onnx.save(network, folder / "model.onnx")
    with pytest.raises(ModelError, match=r"takes input_ids tensor\(int64\).*export the model"):
        OnnxSession(folder)


def test_a_tokenizer_of_another_model(folder):
    onnx.save(make_network(20), folder / "model.onnx")
    with pytest.raises(ModelError, match=r"does not go with tokenizer\.json, which has \d+ tokens"):
        OnnxSession(folder)


def test_a_pad_id_outside_the_vocabulary(folder):
    (folder / "model.toml").write_text(TOML.replace("pad_id = 0", "pad_id = 99999"))
    with pytest.raises(ModelError, match=r"pad_id 99999 .* is not in tokenizer\.json"):
        OnnxSession(folder)


def test_more_tokens_than_the_network_has_places(folder):
    with open_session(folder) as session, pytest.raises(ModelError, match=r"a batch of 1 x 80 tokens.*max_tokens"):
        session.run(np.ones((1, 80), np.int32), np.zeros((1, 1, 1, 80), np.float32), ("sentiment",))


def packed(rows):
    lengths = [len(row) for row in rows]
    return PackedTexts(np.concatenate(rows).astype(np.int32), np.cumsum([0, *lengths], dtype=np.int32))


ROWS = st.lists(st.lists(st.integers(5, 40), min_size=1, max_size=62).map(lambda ids: [2, *ids, 3]), min_size=1)


@given(ROWS, st.integers(8, 600), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_packed_texts_get_their_own_logits_in_their_order(tiny, rows, budget, threads):
    outputs = ("topics", "sentiment", "entities")
    told = []
    with OnnxSession(tiny, threads=threads, token_budget=budget) as session:
        found = session.run_packed(packed(rows), outputs, done=told.append)
        assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(outputs, np.float32)
        assert [found[name].shape for name in outputs] == [(len(rows), 8), (len(rows), 3), (sum(map(len, rows)), 9)]
        assert sum(told) == len(rows)
        start = 0
        for place, row in enumerate(rows):
            bias = np.zeros((1, 1, 1, len(row)), np.float32)
            alone = session.run(np.array([row], np.int32), bias, outputs)
            assert found["sentiment"][place] == pytest.approx(alone["sentiment"][0], abs=1e-5)
            assert found["topics"][place] == pytest.approx(alone["topics"][0], abs=1e-5)
            assert found["entities"][start : start + len(row)] == pytest.approx(alone["entities"][0], abs=1e-5)
            start += len(row)


def test_no_packed_texts(tiny):
    nothing = PackedTexts(np.empty(0, np.int32), np.zeros(1, np.int32))
    with open_session(tiny) as session:
        found = session.run_packed(nothing, ("sentiment", "entities"))
    assert {name: value.shape for name, value in found.items()} == {"sentiment": (0, 3), "entities": (0, 9)}


def test_packed_texts_from_many_threads(tiny):
    texts = packed([[2, 10 + place % 7, 11, 3] * (1 + place % 5) for place in range(60)])
    with open_session(tiny, threads=2) as session, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: session.run_packed(texts, ("topics",))["topics"].tobytes(), range(12)))
    assert len(set(found)) == 1


def test_a_run_is_ended_by_who_is_told_of_it(tiny):
    class EnoughError(Exception):
        pass

    def done(count):
        told.append(count)
        raise EnoughError

    told: list[int] = []
    texts = packed([[2, 10, 11, 3] * 16] * 400)
    with OnnxSession(tiny, threads=1, token_budget=64) as session:
        with pytest.raises(EnoughError):
            session.run_packed(texts, ("topics",), done=done)
        assert len(told) == 1
        assert len(session.run_packed(packed([[2, 10, 3]]), ("topics",))["topics"]) == 1


def test_packed_texts_of_a_closed_session(tiny):
    session = open_session(tiny)
    session.run_packed(packed([[2, 10, 3], [2, 11, 12, 10, 3]]), ("topics",))
    session.close()
    with pytest.raises(ModelError, match="is closed"):
        session.run_packed(packed([[2, 10, 3]]), ("topics",))


def test_packed_texts_of_a_session_that_is_closed_meanwhile(tiny):
    texts = packed([[2, 10, 11, 3] * 16] * 400)
    session = OnnxSession(tiny, threads=1, token_budget=64)
    with pytest.raises(ModelError, match="is closed"):
        session.run_packed(texts, ("topics",), done=lambda _: session.close())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_no_batches_behind(tiny, error, monkeypatch):
    submit, futures = ThreadPoolExecutor.submit, []

    def interrupted(pool, *args):
        if len(futures) == 200:
            raise error
        futures.append(submit(pool, *args))
        return futures[-1]

    with OnnxSession(tiny, threads=1, token_budget=64) as session:
        monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
        with pytest.raises(error):
            session.run_packed(packed([[2, 10, 11, 3] * 16] * 400), ("topics",))
        assert sum(future.cancelled() for future in futures) > 100


def test_an_output_that_nobody_knows(tiny):
    with open_session(tiny) as session:
        with pytest.raises(ModelError, match=r"gives sentiment, topics, entities, not mood\. Ask for one of these"):
            session.run_packed(packed([[2, 3]]), ("mood",))
        with pytest.raises(ModelError, match="not mood"):
            session.run(IDS, BIAS, ("mood",))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_answer(folder, bad):
    network = make_network(make_tokenizer().get_vocab_size())
    table = next(item for item in network.graph.initializer if item.name == "tokens_table")
    values = onnx.numpy_helper.to_array(table).copy()
    values[10] = bad
    table.CopyFrom(onnx.numpy_helper.from_array(values, "tokens_table"))
    onnx.save(network, folder / "model.onnx")
    with open_session(folder) as session:
        session.run_packed(packed([[2, 11, 3]]), ("sentiment",))
        with pytest.raises(ModelError, match=r"model\.onnx gave .* sentiment that are infinite or not numbers"):
            session.run_packed(packed([[2, 10, 3], [2, 11, 3]]), ("sentiment",))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
)
def test_a_container_may_have_less_than_it_sees(tmp_path, monkeypatch, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(backend, "_CGROUPS", tmp_path)
    monkeypatch.setattr(backend.os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert usable_cores() == (64 if cores is None else -(-cores // 1))


def test_an_engine_that_does_not_fit_is_named_and_not_the_model(folder):
    spec = load_spec(folder)
    deciding = {
        **DECIDING,
        "model_sha256": file_sha256(spec.onnx),
        "reading_sha256": reading_digest(spec),
        "runtime": "onnxruntime",
        "runtime_version": onnxruntime.__version__,
        "gpu": None,
        "compute_capability": None,
    }
    for data, said in (
        (b"no network", "cannot be loaded"),
        (make_network(20).SerializeToString(), "does not go with"),
        (make_network(9999, positions=8).SerializeToString(), "could not run a batch of 1 x 9 tokens"),
    ):
        manifest = make(plan="model.onnx", plan_sha256=sha256(data).hexdigest(), plan_bytes=len(data), **deciding)
        engine = folder / "plans" / manifest.engine_id
        engine.mkdir(parents=True, exist_ok=True)
        (engine / "model.onnx").write_bytes(data)
        write_manifest(engine, manifest)
        error = ModelError if "run" in said else EngineError
        with pytest.raises(error, match=rf"plans/\w+/model\.onnx {said}.*Build it again: workbench engines build"):
            open_engine(engine).run(np.full((1, 9), 5, np.int32), np.zeros((1, 1, 1, 9), np.float32), ("sentiment",))
