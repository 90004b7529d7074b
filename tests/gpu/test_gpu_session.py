"""The TensorRT session on a real GPU: what it answers, in which order, what it leaves behind.

Fresh engines in the bundled model's folder are used where there are any; what is missing is built here, from a small
encoder (padded) or, in the packed layout where the installed TensorRT builds it, from the bundled model.
"""

import gc
import hashlib
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.small_encoder import make_small_model
from workbench.engine.build import build
from workbench.engine.compare import compare_engines
from workbench.errors import EngineError, ModelError
from workbench.runtime import open_engine, open_session
from workbench.runtime.batching import PackedTexts, pad_batch
from workbench.runtime.cuda import open_device
from workbench.runtime.manifest import engine_id_of, find_plans, read_manifest, staleness, write_manifest
from workbench.runtime.onnx import OnnxSession
from workbench.runtime.read import read_texts
from workbench.runtime.tensorrt import TensorRtSession
from workbench.tasks.labels import TASKS

pytestmark = pytest.mark.gpu

HOME = Path(__file__).parents[2]
LAYOUTS = ("padded", "packed") if "layout" in inspect.signature(build).parameters else ("padded",)
PRECISIONS = ("fp32", "fp16", "int8")
# Mean difference of logits from FP32's on random tokens, of their spread; unrelated ones differ by more than 1.
CLOSE = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.3}
MOST_LOST = 5.0  # points that an INT8 engine may lose on a task: the gate keeps it from reading long before


@pytest.fixture(scope="session")
def fresh():
    """The bundled model's engines that can run here, in the order in which a session would choose them."""
    home, order = HOME / "engines", {"fp16": 0, "fp32": 1, "mixed": 2, "int8": 3}
    found = [
        (path, item)
        for path, item in find_plans(home, "reviews")
        if item.runtime == "tensorrt" and not staleness(item, engines=home)
    ]
    newest = sorted(found, key=lambda item: item[1].built_at, reverse=True)
    return sorted(newest, key=lambda item: (order.get(item[1].precision, 4), item[1].layout != "packed"))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    return make_small_model(tmp_path_factory.mktemp("engines") / "small")


@pytest.fixture(scope="session")
def engine(fresh, small):
    """The folder of an engine: a fresh one of the bundled model, or one of the small model, built once."""
    made = {}

    def get(precision="fp16", layout=None):
        for path, item in fresh:
            if item.precision == precision and layout in (None, item.layout):
                return path
        if precision not in made:
            manifest = build(small, precision=precision, runtime="tensorrt", tactic_sources="none", progress=False)
            made[precision] = small / "plans" / manifest.engine_id
        return made[precision]

    return get


@pytest.fixture(scope="session")
def padded(engine, fresh):
    """A padded engine of any precision."""
    found = [item.precision for _, item in fresh if item.layout == "padded"]
    return engine(found[0] if found else "fp32", "padded")  # 8.6 builds no padded FP16


@pytest.fixture(scope="session")
def packed(fresh, tmp_path_factory):
    """A packed FP16 engine of the bundled model: the one in its folder, or built here."""
    if "packed" not in LAYOUTS:
        pytest.skip("this version builds no packed engines")
    found = [path for path, item in fresh if (item.layout, item.precision) == ("packed", "fp16")]
    if found:
        return found[0]
    folder = tmp_path_factory.mktemp("bundled") / "reviews"
    shutil.copytree(HOME / "engines" / "reviews", folder, ignore=shutil.ignore_patterns("plans"))
    try:
        manifest = build(
            folder, precision="fp16", runtime="tensorrt", tactic_sources="none", layout="packed", progress=False
        )
    except EngineError as error:
        pytest.skip(f"no packed engine can be built here: {error}")
    return folder / "plans" / manifest.engine_id


@pytest.fixture(params=["padded", "packed"])
def any_layout(request):
    """An engine's folder in each layout."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def judged(fresh):
    """Every fresh engine of the bundled model, judged on the validation texts."""
    if not fresh:
        return ()
    found = compare_engines(
        HOME / "engines" / "reviews",
        engines=[item.engine_id for _, item in fresh],
        validation={task: HOME / "calibration" / task / "validation.jsonl" for task in TASKS},
        speed=False,
        store=False,
        progress=False,
    )
    return found.engines


def model_of(path):
    return path.resolve().parent.parent


def texts_of(sizes, vocabulary, seed=0):
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    random = np.random.default_rng(seed)
    return PackedTexts(random.integers(5, vocabulary, ends[-1]).astype(np.int32), ends)


def random_texts(count, session, seed=0):
    sizes = np.random.default_rng(seed).integers(1, session.spec.max_tokens + 1, count)
    return texts_of(sizes, session.encoder.vocabulary_size, seed)


def reference(session, texts):
    """What onnxruntime gives in FP32, a text at a time."""
    outputs = list(session.spec.outputs)
    parts = {name: [] for name in outputs}
    with OnnxSession(session.spec.folder) as model:
        for start, end in zip(texts.cu_seqlens[:-1], texts.cu_seqlens[1:], strict=True):
            row = texts.input_ids[start:end]
            values = model.run(*pad_batch([row], len(row), pad_id=session.spec.pad_id), outputs)
            for name in outputs:
                parts[name].append(values[name][0] if session.spec.outputs[name].kind == "tags" else values[name])
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def validation_texts(limit=None):
    texts = [
        json.loads(line)["text"]
        for task in ("sentiment", "topics", "entities")
        for line in (HOME / "calibration" / task / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return texts[:limit]


@pytest.fixture(scope="module")
def expected():
    """FP32's logits for random texts, once for each model."""
    known = {}

    def get(session, texts):
        if session.spec.folder not in known:
            known[session.spec.folder] = reference(session, texts)
        return known[session.spec.folder]

    return get


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_in_each_precision(engine, expected, precision):
    with open_engine(engine(precision)) as session:
        assert (session.backend, session.precision) == ("tensorrt", precision)
        assert session.engine_id == engine(precision).name
        texts = random_texts(60, session)
        values = session.run_packed(texts, list(session.spec.outputs))
        for name, wanted in expected(session, texts).items():
            assert values[name].shape == wanted.shape
            assert values[name].dtype == np.float32
            assert np.abs(values[name] - wanted).mean() <= CLOSE[precision] * wanted.std()


@pytest.mark.parametrize("number", range(6))
def test_the_bundled_engines_are_as_good_as_fp32(judged, number):
    if number >= len(judged):
        pytest.skip(f"the bundled model has {len(judged)} engines for this GPU")
    row = judged[number]
    for task, result in row.gate.items():
        said = f"{row.precision} {row.name} {task}: {result.summary()} {row.reason}"
        assert result.verdict != "unmeasured", said
        if row.precision in ("fp32", "fp16"):
            assert result.verdict != "fail", said
        else:
            assert result.delta > -MOST_LOST, said


def test_a_packed_engine_agrees_with_fp32(packed):
    texts = validation_texts(400)
    with OnnxSession(model_of(packed)) as model:
        wanted = read_texts(model, texts, ("sentiment",))
    with open_engine(packed) as session:
        given = read_texts(session, texts, ("sentiment",))
    assert np.nanmax(np.abs(given.p_sentiment - wanted.p_sentiment)) < 0.1
    changed = sum(ours != theirs for ours, theirs in zip(given.sentiment, wanted.sentiment, strict=True))
    assert changed <= 0.01 * len(texts)


def test_order_and_count_under_random_lengths(any_layout):
    with TensorRtSession(model_of(any_layout), engine=any_layout, batching={"slots": 3}) as session:
        longest, outputs = session.spec.max_tokens, list(session.spec.outputs)
        alone = {}

        def of_one(size, seed):
            if (size, seed) not in alone:
                one = texts_of([size], session.encoder.vocabulary_size, seed)
                alone[size, seed] = one.input_ids, session.run_packed(one, outputs)
            return alone[size, seed]

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.tuples(st.integers(1, longest), st.integers(0, 3)), min_size=1, max_size=300))
        def check(kinds):
            ones = [of_one(*kind) for kind in kinds]
            ends = np.concatenate([[0], np.cumsum([size for size, _ in kinds])]).astype(np.int32)
            texts = PackedTexts(np.concatenate([ids for ids, _ in ones]), ends)
            seen = []
            values = session.run_packed(texts, outputs, done=seen.append)
            assert sum(seen) == len(kinds)
            for name in outputs:
                expected = np.concatenate([own[name] for _, own in ones])
                assert values[name].shape == expected.shape
                assert np.abs(values[name] - expected).max() < 0.1 * max(1.0, float(expected.std()))

        check()


def test_a_padded_batch_on_either_layout(any_layout):
    with open_engine(any_layout) as session:
        texts = random_texts(70, session, seed=4)
        rows = [texts.input_ids[a:b] for a, b in zip(texts.cu_seqlens[:-1], texts.cu_seqlens[1:], strict=True)]
        width = int(texts.lengths.max())
        outputs = list(session.spec.outputs)
        padded = session.run(*pad_batch(rows, width, pad_id=session.spec.pad_id), outputs)
        packed_values = session.run_packed(texts, outputs)
        own = np.arange(width) < texts.lengths[:, None]
        for name in outputs:
            tags = session.spec.outputs[name].kind == "tags"
            values = padded[name][own] if tags else padded[name]
            assert np.abs(values - packed_values[name]).max() < 0.1 * max(1.0, float(values.std()))


def test_single_texts_as_graphs_give_the_same(any_layout, caplog):
    model = model_of(any_layout)
    with (
        TensorRtSession(model, engine=any_layout, batching={"graphs": True, "slots": 2}) as session,
        TensorRtSession(model, engine=any_layout, batching={"graphs": False}) as plain,
    ):
        outputs = list(session.spec.outputs)
        for size in (3, 20, 31, 32, 33, 60, 20, 3, session.spec.max_tokens, 20):
            text = texts_of([size], session.encoder.vocabulary_size, size)
            expected = plain.run_packed(text, outputs)
            for _ in range(3):
                values = session.run_packed(text, outputs)
                for name in outputs:
                    assert np.abs(values[name] - expected[name]).max() < 0.1 * max(1.0, float(expected[name].std()))
        assert "without CUDA graphs" not in caplog.text
        # Other shapes in between must not disturb what was recorded.
        many = random_texts(100, session)
        before = plain.run_packed(many, outputs)
        after = session.run_packed(many, outputs)
        assert all(np.abs(before[name] - after[name]).max() < 0.1 for name in outputs)


def test_few_texts_as_graphs_give_the_same(any_layout, caplog):
    model = model_of(any_layout)
    with (
        TensorRtSession(model, engine=any_layout, batching={"graphs": True, "slots": 2}) as session,
        TensorRtSession(model, engine=any_layout, batching={"graphs": False}) as plain,
    ):
        outputs = list(session.spec.outputs)
        slots = session._machine._slots
        session.prepare(outputs)
        counts = [len(slot._graphs) for slot in slots]
        few = session._machine.few
        assert bool(few) == (session.manifest.layout == "packed")
        assert len(slots) == 2
        assert all(count > len(few) for count in counts) if few else not any(counts[1:])
        session.prepare(outputs[::-1])  # what is there is not made again
        assert [len(slot._graphs) for slot in slots] == counts
        chance = np.random.default_rng(8)
        for count in (2, 3, 5, 9, 17, 40, 64, 65, 1, 2):
            sizes = np.minimum(chance.geometric(1 / 20, count), session.spec.max_tokens)
            texts = texts_of(sizes, session.encoder.vocabulary_size, count)
            expected = plain.run_packed(texts, outputs)
            with ThreadPoolExecutor(3) as pool:  # so that every slot has its turn
                found = list(pool.map(session.run_packed, [texts] * 6, [outputs] * 6))
            for name in outputs:
                near = 0.1 * max(1.0, float(expected[name].std()))
                assert all(np.abs(values[name] - expected[name]).max() < near for values in found)
        assert "without CUDA graphs" not in caplog.text
        with pytest.raises(ModelError, match="nonsense"):
            session.prepare(["nonsense"])


def test_ten_thousand_batches_take_no_more_memory(engine):
    device = open_device()
    with TensorRtSession(model_of(engine()), engine=engine(), batching={"slots": 3, "max_texts": 1}) as session:
        outputs = list(session.spec.outputs)
        texts = texts_of(np.arange(1000) % 40 + 1, session.encoder.vocabulary_size)

        def taken():
            gc.collect()
            with device.active():
                free, _ = device.memory()
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            return free, pages * resource.getpagesize()

        session.run_packed(texts, outputs)
        free, host = taken()
        before = session.stats()["batches"]
        for _ in range(10):
            session.run_packed(texts, outputs)
        free_after, host_after = taken()
        assert session.stats()["batches"] - before == 10_000
        assert free - free_after <= 2 << 20
        assert host_after - host <= 16 << 20


def test_two_sessions_in_two_threads_and_one_in_four(engine, fresh):
    problems = []
    another = fresh[-1][0] if fresh else engine()
    with open_engine(engine()) as first, open_engine(another) as second:
        texts = random_texts(150, first, 8)
        outputs = list(first.spec.outputs)
        wanted = {id(session): session.run_packed(texts, outputs) for session in (first, second)}

        def work(session):
            try:
                for _ in range(20):
                    values = session.run_packed(texts, outputs)
                    for name in outputs:
                        np.testing.assert_array_equal(values[name], wanted[id(session)][name])
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(item,)) for item in (first, second, first, first)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        stats = first.stats()
        assert stats["texts"] == 1 + 150 + 3 * 20 * 150
        assert stats["busy_s"] > 0


def test_memory_is_reported_and_given_back(engine):
    device = open_device()

    def free():
        with device.active():
            return device.memory()[0]

    with open_engine(engine()):
        pass  # what a first session leaves loaded stays: kernels, the library's own
    before = free()
    session = open_engine(engine())
    memory = session.memory
    assert memory["activations"] >= 256 * session.slots
    assert memory["device"] == sum(memory[name] for name in ("engine", "contexts", "activations", "buffers"))
    session.close()
    session.close()
    assert before - free() <= 4 << 20
    with pytest.raises(ModelError, match="is closed"):
        session.run_packed(texts_of([3], 50), ["sentiment"])


def test_short_memory_lowers_the_slots_or_says_so(engine, caplog):
    device = open_device()
    with open_engine(engine()) as session:
        wanted = session.memory
    with device.active():
        kept = device.allocate(device.memory()[0] - wanted["device"] - (24 << 20))
    try:
        with TensorRtSession(model_of(engine()), engine=engine(), batching={"slots": 8}) as session:
            assert session.slots == 8 or "Trying again" in caplog.text
            session.run_packed(random_texts(50, session), ["sentiment"])
    except (EngineError, ModelError) as error:
        assert "memory" in str(error).lower() or "no room" in str(error)  # noqa: PT017 - either way is right
    finally:
        with device.active():
            kept.free()
    with open_engine(engine()) as session:
        session.run_packed(random_texts(50, session), ["sentiment"])


def test_texts_that_it_cannot_read(engine):
    with open_engine(engine()) as session:
        most = session.spec.max_tokens
        with pytest.raises(ModelError, match=f"Text 0 has {most + 1} tokens"):
            session.run_packed(texts_of([most + 1], 50), ["sentiment"])
        with pytest.raises(ModelError, match="is no token id"):
            session.run_packed(PackedTexts(np.array([10**6], np.int32), np.array([0, 1], np.int32)), ["sentiment"])
        with pytest.raises(ModelError, match="not mood"):
            session.run_packed(texts_of([3], 50), ["mood"])
        none = session.run_packed(PackedTexts(np.zeros(0, np.int32), np.zeros(1, np.int32)), ["topics"])
        assert none["topics"].shape == (0, len(session.spec.outputs["topics"].labels))
        session.run_packed(texts_of([3], 50), ["sentiment"])  # and goes on


def altered(path, folder, data=None, **changes):
    """A copy of an engine with another manifest, sealed again, in its own model folder."""
    model = folder / model_of(path).name
    shutil.copytree(model_of(path), model, ignore=shutil.ignore_patterns("plans"))
    manifest = read_manifest(path)
    changed = replace(manifest, **changes)
    deciding = inspect.signature(engine_id_of).parameters
    named = {item.name: getattr(changed, item.name) for item in fields(changed) if item.name in deciding}
    data = (path / manifest.plan).read_bytes() if data is None else data
    changed = replace(
        changed,
        engine_id=engine_id_of(**named),
        plan_bytes=len(data),
        plan_sha256=hashlib.sha256(data).hexdigest(),
    )
    target = model / "plans" / changed.engine_id
    target.mkdir(parents=True)
    (target / changed.plan).write_bytes(data)
    write_manifest(target, changed)
    return target


def test_an_engine_of_another_gpu(engine, tmp_path):
    target = altered(engine(), tmp_path, compute_capability="5.0", gpu="Some other GPU")
    with pytest.raises(EngineError, match=r"built for a GPU of compute capability 5\.0 .*workbench engines build"):
        open_engine(target)
    with pytest.raises(ModelError, match="every one is stale or of another GPU"):
        open_session(target.parent.parent, backend="tensorrt")


def test_a_plan_that_is_none(engine, tmp_path):
    target = altered(engine(), tmp_path, data=b"this was never a plan" * 500)
    with pytest.raises(EngineError, match=r"cannot load the engine .*workbench engines build"):
        open_engine(target)
    plan = target / "engine.plan"
    plan.write_bytes(plan.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match="damaged or was changed"):
        open_engine(target)


def test_the_newest_fresh_engine_stands_for_the_model(engine):
    with open_session(model_of(engine()), backend="tensorrt") as session:
        assert session.engine_id == engine("fp16").name


SCRIPT = """
import sys, threading, time
import numpy as np
from workbench.runtime import open_engine
from workbench.runtime.batching import PackedTexts
session = open_engine(sys.argv[1])
sizes = np.full(20000, 20)
texts = PackedTexts(np.full(sizes.sum(), 7, np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
session.run_packed(texts, ["sentiment"])
"""
ENDINGS = {
    "an exception in a batch": (
        "def stop(count):\n    raise ValueError('stopped on purpose')\n"
        "session.run_packed(texts, ['sentiment'], done=stop)",
        1,
        "stopped on purpose",
    ),
    "no close": ("print('over')", 0, ""),
    "a thread still at work": (
        "def work():\n    while True:\n        session.run_packed(texts, ['sentiment'])\n"
        "threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.5)",
        0,
        "",
    ),
    "sys.exit in a run": (
        "session.run_packed(texts, ['sentiment'], done=lambda count: sys.exit(3))",
        3,
        "",
    ),
}


def python(code, path, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code, str(path)],
        cwd=HOME,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def endings(engine):
    """A process for each ending, all at once: most of their time goes into starting."""
    started = {ending: python(code, engine()) for ending, (code, _, _) in ENDINGS.items()}
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_process_ends_cleanly(endings, ending):
    _, status, said = ENDINGS[ending]
    _, errors = endings[ending].communicate(timeout=60)
    assert endings[ending].returncode == status, errors
    assert said in errors
    assert "context stack" not in errors
    assert "clean-up operation failed" not in errors


def test_a_run_that_was_interrupted_twice_loses_no_slot(engine):
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nprint('ready', flush=True)\n"
        "for _ in range(2):\n    try:\n        while True:\n            session.run_packed(texts, ['sentiment'])\n"
        "    except KeyboardInterrupt:\n        print('stopped', flush=True)\n"
        "for _ in range(20):\n    session.run_packed(texts, ['sentiment'])\nprint('done', flush=True)"
    )
    process = python(code, engine())
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            time.sleep(0.4)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "stopped\n"
        found, errors = process.communicate(timeout=60)
        assert (found, process.returncode) == ("done\n", 0), errors
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_cleanly(engine):
    # A job in the background is started with the signal ignored; Python must see it.
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nprint('ready', flush=True)\n"
        "while True:\n    session.run_packed(texts, ['sentiment'])"
    )
    waits = (0.05, 0.31, 0.77)
    processes = [python(code, engine()) for _ in waits]
    try:
        for wait, process in zip(waits, processes, strict=True):
            assert process.stdout.readline() == "ready\n"
            time.sleep(wait)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert process.returncode in (130, -signal.SIGINT), errors
            assert "KeyboardInterrupt" in errors
            assert "context stack" not in errors
            assert "clean-up operation failed" not in errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
