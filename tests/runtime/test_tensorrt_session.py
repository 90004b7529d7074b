"""The TensorRT session where there is no GPU: its own work, with stand-ins for pycuda and TensorRT."""

import logging
import threading

import numpy as np
import pytest

from tests.runtime.stand_in_gpu import Driver, Library, Log
from tests.runtime.test_manifest import L4, engines, put  # noqa: F401 - fixtures
from workbench.errors import EngineError, ModelError
from workbench.runtime import cuda, manifest, trt_plan
from workbench.runtime.batching import PackedTexts, pad_batch
from workbench.runtime.manifest import Profile
from workbench.runtime.tensorrt import TensorRtSession

PROFILES = {
    "packed": (Profile((1, 1), (2, 32), (4, 64)), Profile((1, 1), (8, 128), (16, 256))),
    "padded": (Profile((1, 1), (4, 16), (8, 16)), Profile((1, 1), (4, 64), (8, 64))),
}
OUTPUTS = {"sentiment": (3, "FLOAT", False), "topics": (8, "FLOAT", False), "entities": (9, "FLOAT", True)}
SIZES = [3, 60, 17, 16, 5, 40, 9, 33] * 6


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(cuda, "_devices", {})
    monkeypatch.setattr(cuda, "_import_driver", lambda: made)
    monkeypatch.setattr(cuda.atexit, "register", lambda call: call)
    return made


@pytest.fixture
def session(driver, put, engines, monkeypatch):  # noqa: F811 - fixtures
    """Opens a session on a library's engine; all are closed after the test."""
    opened = []

    def make(layout="packed", *, outputs=OUTPUTS, batching=None, **options):
        library = Library(layout, PROFILES[layout], outputs, **options)
        monkeypatch.setattr(manifest, "this_host", lambda: L4)
        monkeypatch.setattr(trt_plan, "import_runtime", lambda name: library)
        monkeypatch.setattr(trt_plan, "library_logger", lambda name: Log())
        monkeypatch.setattr(trt_plan, "load_plugins", lambda name: None)
        folder, made = put(layout=layout, profiles=PROFILES[layout])
        opened.append(TensorRtSession(engines / "tiny", engine=folder, manifest=made, batching=batching))
        return opened[-1], library

    yield make
    for one in opened:
        one.close()


def texts_of(sizes):
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return PackedTexts(np.random.default_rng(len(sizes)).integers(4, 90, ends[-1]).astype(np.int32), ends)


def check(found, texts):
    places = np.concatenate([np.arange(size) + 1 for size in texts.lengths])
    values = texts.input_ids * places
    sums = np.add.reduceat(values, texts.cu_seqlens[:-1])
    np.testing.assert_array_equal(found["sentiment"], sums[:, None] + np.arange(3))
    np.testing.assert_array_equal(found["entities"], values[:, None] + np.arange(9))


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("slots", [1, 3])
def test_batches_of_all_shapes_answer_for_their_own_texts(session, layout, slots):
    one, library = session(layout, batching={"slots": slots, "max_texts": 5})
    for sizes in (SIZES, SIZES[:3], SIZES[:1], SIZES[::-1], SIZES[:3], [64] * 9):
        texts = texts_of(sizes)
        check(one.run_packed(texts, ["sentiment", "entities"]), texts)
    assert library.runs > 20


def test_a_context_is_told_only_what_changed(session):
    one, library = session("packed", batching={"slots": 1})
    texts = texts_of([5, 7, 9])
    check(one.run_packed(texts, ["sentiment", "entities"]), texts)
    library.told.clear()
    for _ in range(3):
        check(one.run_packed(texts, ["sentiment", "entities"]), texts)
    assert library.told == []
    check(one.run_packed(texts_of([5, 8]), ["sentiment", "entities"]), texts_of([5, 8]))
    assert {"input_ids", "cu_seqlens"} <= set(library.told)
    library.told.clear()
    library.bad = np.inf
    with pytest.raises(ModelError):
        one.run_packed(texts, ["sentiment"])
    library.bad = None
    library.told.clear()
    check(one.run_packed(texts, ["sentiment", "entities"]), texts)
    assert set(library.told) == {*library.inputs, *library.outputs}, "after an error nothing is taken for granted"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_answer(session, bad):
    one, library = session("packed")
    library.bad = bad
    with pytest.raises(ModelError, match=r"for topics that are infinite or not numbers.*workbench engines compare"):
        one.run_packed(texts_of([3]), ["topics"])


def test_a_profile_for_one_context_only(session, caplog):
    with caplog.at_level(logging.WARNING):
        one, _ = session("packed", shared=False, batching={"slots": 3})
    assert one.slots == 1
    assert "The engine runs 1 batches at once, not 3: profile 1 is taken. Build it again: work" in caplog.text
    check(one.run_packed(texts_of(SIZES), ["sentiment", "entities"]), texts_of(SIZES))


def test_an_output_of_another_type(session):
    with pytest.raises(EngineError, match=r"gives topics as float16, not as float32\. Build it again: workbench"):
        session(outputs={**OUTPUTS, "topics": (8, "HALF", False)})


def test_no_context(session):
    with pytest.raises(EngineError, match=r"makes no execution context: it does not say why\. See with nvidia-smi"):
        session(contexts=False)


def test_ids_of_padding_are_ids_too(session):
    one, library = session("padded")
    ids, bias = pad_batch([np.array([5, 6, 7], np.int32), np.array([8], np.int32)], 4, pad_id=0)
    assert one.run(ids, bias, ["sentiment"])["sentiment"][1].tolist() == [8, 9, 10]
    before, ids[1, 3] = library.runs, 10**6
    with pytest.raises(ModelError, match="1000000 is no token id"):
        one.run(ids, bias, ["sentiment"])
    assert library.runs == before
    with pytest.raises(ModelError, match="gives sentiment, topics, entities, not mood"):
        one.run_packed(texts_of([3]), ["mood"])


@pytest.mark.parametrize("again", [["stream.synchronize"], ["stream.synchronize"] * 2])
def test_ctrl_c_and_another_lose_no_slot(session, driver, again):
    one, _ = session("packed", batching={"slots": 2, "max_texts": 2})
    driver.interrupt += ["event.synchronize", *again]
    with pytest.raises(KeyboardInterrupt):
        one.run_packed(texts_of(SIZES), ["sentiment"])
    assert driver.interrupt == []
    found = []
    reader = threading.Thread(
        target=lambda: found.append(one.run_packed(texts_of(SIZES), ["sentiment", "entities"])), daemon=True
    )
    reader.start()
    reader.join(20)
    assert found, "a slot is missing, and the run waits for it"
    check(found[0], texts_of(SIZES))
    assert one._machine._pool.close(timeout=0)


def test_an_interrupt_after_a_push_leaves_no_context_behind(driver):
    device = cuda.open_device()
    driver.interrupt.append("push")
    with pytest.raises(KeyboardInterrupt), device.active():
        pass
    assert len(driver.stack) == 1
    device.release()
    assert driver.stack == []


def test_a_push_that_is_refused_counts_for_nothing(driver):
    device = cuda.open_device()
    driver.interrupt.append("refuse")
    with pytest.raises(driver.Error), device.active():
        pass
    with device.active(), device.active():
        assert len(driver.stack) == 2
    assert driver.stack == []
    assert device._local.depth == 0


def test_a_graph_that_does_not_run_names_a_command():
    with pytest.raises(ModelError, match=r"cuGraphLaunch failed with CUDA error 2\..*: workbench engines warm-up$"):
        cuda._check(2, "cuGraphLaunch")
