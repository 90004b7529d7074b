"""The host side of the GPU session: batches, buffers, slots, and what is said where a library is missing."""

import os
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.test_manifest import engines, put  # noqa: F401 - fixtures
from workbench.errors import EngineError, ModelError
from workbench.runtime import cuda, host, open_session
from workbench.runtime.batching import PADDING_BIAS, PackedTexts, pad_batch
from workbench.runtime.device_batches import UNREAD, GivenBatch, PackedBatch, check_texts, lay_out, pack_rows
from workbench.runtime.device_plan import (
    Batching,
    buffer_bytes,
    choose_batching,
    fallbacks,
    few_shapes,
    few_texts,
    pick_profile,
    plan_packed,
    plan_padded,
    single_text,
    small_batches,
)
from workbench.runtime.host import runtime_version
from workbench.runtime.manifest import Profile
from workbench.runtime.slot_pool import SlotPool
from workbench.runtime.slots import BusyClock
from workbench.runtime.trt_plan import library_logger

LONGEST, PAD = 48, 3
PACKED = (Profile((1, 1), (8, 64), (24, 256)),)
LONG = (Profile((1, 1), (4, 80), (8, 600)), Profile((1, 1), (30, 1500), (64, 4000)))
PADDED = (Profile((1, 1), (8, 32), (16, 32)), Profile((1, 1), (4, 48), (6, 48)))
INPUTS = {
    "packed": dict.fromkeys(("input_ids", "position_ids", "cu_seqlens", "segment_ids", UNREAD), np.int32),
    "padded": {"input_ids": np.int32, "attention_bias": np.float32},
}
OUTPUTS = {"sentiment": ("classes", 3, np.float32), "entities": ("tags", 2, np.float32)}
lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=60)
mixed = st.lists(st.one_of(st.integers(1, 70), st.integers(1, 512)), min_size=1, max_size=90)
layouts = st.sampled_from(["packed", "padded"])


def texts_of(sizes):
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    random = np.random.default_rng(len(sizes))
    return PackedTexts(random.integers(4, 900, ends[-1]).astype(np.int32), ends)


def settings_of(layout, **changes):
    profiles = PACKED if layout == "packed" else PADDED
    return profiles, choose_batching(changes, layout=layout, profiles=profiles, longest=LONGEST)


def plan(layout, texts, batching, profiles):
    if layout == "packed":
        return list(plan_packed(texts, batching, profiles))
    return list(plan_padded(texts, batching, profiles, longest=LONGEST, pad_id=PAD))


def network(views):
    """Each token's id times its place, and their sum over a text: wrong wherever an input is wrong."""
    ids = views["input_ids"].astype(np.float64)
    if "attention_bias" in views:
        own = views["attention_bias"][:, 0, 0] == 0
        assert (views["input_ids"][~own] == PAD).all()
        values = ids * (np.arange(ids.shape[1]) + 1) * own
        sums = values.sum(1)
    else:
        values = ids * (views["position_ids"] + 1)
        sums = np.bincount(views["segment_ids"], values, len(views["cu_seqlens"]) - 1)
        np.testing.assert_allclose(sums, np.add.reduceat(values, views["cu_seqlens"][:-1]))
        assert len(views[UNREAD]) >= np.diff(views["cu_seqlens"]).max()
    return {"sentiment": sums[:, None] + np.arange(3), "entities": values[..., None] + np.arange(2)}


def compute(layout, batches, texts, batching, *, longest=LONGEST):
    """What a slot does, without a GPU."""
    result = {"sentiment": np.full((len(texts), 3), np.nan, np.float32)}
    result["entities"] = np.full((len(texts.input_ids), 2), np.nan, np.float32)
    room = buffer_bytes(batching, longest=longest, inputs=INPUTS[layout], outputs=OUTPUTS)
    buffer = np.full(room[0], 255, np.uint8)
    for batch in batches:
        regions, _ = lay_out({name: (batch.shapes[name], kind) for name, kind in INPUTS[layout].items()})
        assert all(region.offset % 256 == 0 for region in regions.values())
        views = {name: region.view(buffer) for name, region in regions.items()}  # raises where the buffer ends
        batch.fill(views)
        given = network(views)
        outputs, _ = lay_out(
            {
                name: ((*(batch.places if kind == "tags" else (batch.rows,)), width), dtype)
                for name, (kind, width, dtype) in OUTPUTS.items()
            }
        )
        assert max(region.end for region in outputs.values()) <= room[1]
        for name, region in outputs.items():
            assert given[name].shape == region.shape
            batch.place(given[name].astype(np.float32), result[name], tags=name == "entities")
    return result


def check(result, texts):
    places = np.concatenate([np.arange(size) + 1 for size in texts.lengths])
    values = texts.input_ids * places.astype(np.float64)
    sums = np.add.reduceat(values, texts.cu_seqlens[:-1])
    np.testing.assert_allclose(result["sentiment"], sums[:, None] + np.arange(3), rtol=1e-6)
    np.testing.assert_allclose(result["entities"], values[:, None] + np.arange(2), rtol=1e-6)


@given(lengths, layouts, st.integers(1, 400), st.integers(1, 40))
def test_every_text_comes_back_in_its_place(sizes, layout, budget, most):
    texts = texts_of(sizes)
    profiles, batching = settings_of(layout, token_budget=budget, max_texts=most)
    batches = plan(layout, texts, batching, profiles)
    for batch in batches:
        places = int(np.prod(batch.places))
        assert places <= batching.token_budget
        assert batch.texts <= batching.max_texts
        shape = (batch.rows, batch.places[-1])
        assert profiles[batch.profile].fits(*shape)
    assert sum(batch.texts for batch in batches) == len(texts)
    assert sum(batch.tokens for batch in batches) == len(texts.input_ids)
    check(compute(layout, batches, texts, batching), texts)


@given(mixed, st.integers(512, 5000), st.integers(1, 80))
def test_packed_texts_of_mixed_lengths_come_back_in_their_places(sizes, budget, most):
    texts = texts_of(sizes)
    batching = choose_batching(
        {"token_budget": budget, "max_texts": most}, layout="packed", profiles=LONG, longest=512
    )
    batches = list(plan_packed(texts, batching, LONG))
    for batch in batches:
        assert batch.tokens == batch.places[0] <= batching.token_budget
        assert batch.texts == batch.rows <= batching.max_texts
        assert LONG[batch.profile].fits(batch.rows, batch.tokens)
    told = [batch.shapes[UNREAD][0] for batch in batches]
    assert max(told) == max(sizes)
    check(compute("packed", batches, texts, batching, longest=512), texts)


def keys_of(length):
    return next(keys for keys in (64, 96, 128, 256, 384, 512) if length <= keys)


def work(batches):
    """Tokens times the keys of the kernel that each batch takes, and what the batches themselves cost."""
    return sum(batch.tokens * keys_of(batch.shapes[UNREAD][0]) for batch in batches) + 1_500_000 * len(batches)


@given(
    st.lists(st.tuples(st.sampled_from([5, 40, 64, 65, 90, 120, 200, 300, 500]), st.integers(1, 400)), max_size=8),
    st.integers(0, 9),
)
@settings(max_examples=40)
def test_texts_are_grouped_by_the_kernel_they_need_where_that_pays(kinds, seed):
    profiles = (Profile((1, 1), (100, 8000), (4096, 32768)),)
    batching = choose_batching(None, layout="packed", profiles=profiles, longest=512)
    sizes = [size for size, count in kinds for _ in range(count)]
    np.random.default_rng(seed).shuffle(sizes)
    texts = texts_of(sizes)
    batches = list(plan_packed(texts, batching, profiles))
    assert sum(batch.texts for batch in batches) == len(sizes)
    # Never dearer than every kernel on its own, nor than all texts without a thought for kernels; but whole texts do
    # not fill every batch to the last token, so that there may be one more than was reckoned with.
    apart = [
        batch
        for keys in {keys_of(size) for size in sizes}
        for batch in plan_packed(texts_of([size for size in sizes if keys_of(size) == keys]), batching, profiles)
    ]
    together = -(-sum(sizes) // 32768)
    assert work(batches) <= work(apart) + 1_500_000
    assert work(batches) <= sum(sizes) * keys_of(max(sizes, default=1)) + 1_500_000 * (together + 1)


def test_a_few_long_texts_do_not_slow_down_the_others():
    profiles = (Profile((1, 1), (100, 8000), (4096, 32768)),)
    batching = choose_batching(None, layout="packed", profiles=profiles, longest=512)
    batches = list(plan_packed(texts_of([50, 30, 400, 60, 20] * 300 + [80] * 3), batching, profiles))
    # The texts of 400 tokens in equal parts; the three of 80 are not worth a batch and go with them.
    assert [batch.shapes[UNREAD][0] for batch in batches] == [400, 400, 400, 400, 60, 60]
    assert [batch.texts for batch in batches[:4]] == [76, 75, 75, 77]
    few = list(plan_packed(texts_of([50, 30, 400, 60, 20]), batching, profiles))
    assert len(few) == 1
    assert few[0].shapes["input_ids"] == (560,)


@given(st.integers(1, 128), layouts)
def test_a_single_text_gets_one_of_few_shapes(size, layout):
    texts = texts_of([size])
    profiles = {"packed": (Profile((1, 1), (1, 40), (4, 256)),), "padded": (Profile((1, 1), (4, 60), (8, 128)),)}[
        layout
    ]
    batching = choose_batching(None, layout=layout, profiles=profiles, longest=128)
    batch = single_text(texts, batching, profiles, layout=layout, longest=128, pad_id=PAD)
    if layout == "packed":
        assert batch.key[1:] in ((2, 64, 64), (2, 96, 64), (2, 128, 96), (2, 160, 128))
        assert keys_of(batch.shapes[UNREAD][0]) == keys_of(size)
    else:
        assert batch.key[1:] in ((1, 32), (1, 64), (1, 96), (1, 128))
    check(compute(layout, [batch], texts, batching, longest=128), texts)


GRAPHS = (Profile((1, 1), (8, 400), (64, 2048)), Profile((1, 1), (600, 30000), (4096, 32768)))


@given(st.lists(st.one_of(st.integers(1, 60), st.integers(1, 512)), min_size=1, max_size=64))
def test_a_few_texts_get_one_of_few_shapes(sizes):
    texts = texts_of(sizes)
    batching = choose_batching(None, layout="packed", profiles=GRAPHS, longest=512)
    shapes = few_shapes(batching, GRAPHS, longest=512)
    batch = few_texts(texts, shapes, pad_id=PAD)
    if sum(sizes) > 3000:
        assert batch is None or sum(sizes) < 4096
    else:
        assert batch.key in {(shape.profile, shape.rows, shape.tokens, shape.longest) for shape in shapes}
    if batch is not None:
        assert batch.texts == len(sizes)
        assert GRAPHS[batch.profile].fits(batch.rows, batch.places[0])
        check(compute("packed", [batch], texts, batching, longest=512), texts)


def test_many_texts_and_many_tokens_are_not_few():
    batching = choose_batching(None, layout="packed", profiles=GRAPHS, longest=512)
    shapes = few_shapes(batching, GRAPHS, longest=512)
    for sizes in ([2] * 65, [512] * 9, []):
        assert few_texts(texts_of(sizes), shapes, pad_id=PAD) is None
    small = (Profile((1, 1), (2, 60), (4, 128)),)
    narrow = choose_batching(None, layout="packed", profiles=small, longest=128)
    assert {shape.rows for shape in few_shapes(narrow, small, longest=128)} == {4}, "no more than it takes at once"


@pytest.mark.parametrize("longest", [16, 32, 48, 64, 96, 128, 256, 500, 512])
@pytest.mark.parametrize("most", [2, 8, 64, 4096])
def test_every_shape_of_few_can_be_recorded(longest, most):
    batching = choose_batching({"max_texts": most}, layout="packed", profiles=GRAPHS, longest=longest)
    shapes = few_shapes(batching, GRAPHS, longest=longest)
    recorded = {batch.key for batch in small_batches(batching, GRAPHS, layout="packed", longest=longest, pad_id=PAD)}
    assert {(shape.profile, shape.rows, shape.tokens, shape.longest) for shape in shapes} <= recorded
    assert shapes or most * longest < 256
    assert all(shape.rows <= most and shape.longest <= longest for shape in shapes)


def test_what_is_prepared_are_the_shapes_that_come():
    batching = choose_batching(None, layout="packed", profiles=GRAPHS, longest=512)
    options = {"longest": 512, "pad_id": PAD}
    made = small_batches(batching, GRAPHS, layout="packed", **options)
    keys = [batch.key for batch in made]
    assert len(set(keys)) == len(keys) <= 64
    assert small_batches(batching, GRAPHS, layout="padded", **options) == []
    for size in range(1, 513):
        assert single_text(texts_of([size]), batching, GRAPHS, layout="packed", **options).key in keys
    shapes = few_shapes(batching, GRAPHS, longest=512)
    chance, padding = np.random.default_rng(5), []
    for _ in range(500):
        sizes = np.minimum(chance.geometric(1 / 50, chance.integers(2, 40)), 512)
        batch = few_texts(texts_of(sizes), shapes, pad_id=PAD)
        assert batch is not None
        assert batch.key in keys
        padding.append(batch.places[0] / sizes.sum() - 1)
    assert np.median(padding) < 0.35


@given(lengths)
def test_padded_rows_are_packed_and_cut(sizes):
    texts = texts_of(sizes)
    rows = [texts.input_ids[start:end] for start, end in zip(texts.cu_seqlens, texts.cu_seqlens[1:], strict=False)]
    ids, bias = pad_batch(rows, LONGEST, pad_id=PAD)
    packed, own = pack_rows(ids, bias)
    assert (packed.input_ids == texts.input_ids).all()
    assert (packed.cu_seqlens == texts.cu_seqlens).all()
    assert (own.sum(1) == sizes).all()
    half = GivenBatch(ids, bias, 0, max(1, len(sizes) // 2), profile=0)
    assert half.tokens == sum(sizes[: half.texts])
    result = np.zeros((len(sizes), 3), np.float32)
    half.place(np.ones((half.rows, 3), np.float32), result, tags=False)
    assert result.sum() == 3 * half.rows


def test_batches_are_about_equal():
    profiles, batching = settings_of("packed", token_budget=250)
    batches = plan("packed", texts_of([20] * 31), batching, profiles)
    assert [batch.tokens for batch in batches] == [220, 200, 200]


def test_the_padded_length_depends_on_the_text_alone():
    alone, among = texts_of([17]), texts_of([17, 5, 40, 18, 33])
    profiles, batching = settings_of("padded")
    [first] = plan("padded", alone, batching, profiles)
    others = plan("padded", among, batching, profiles)
    assert first.places[1] == 32
    assert [batch.places for batch in others] == [(2, 48), (2, 32), (1, 16)]


def test_the_profile_for_the_nearest_shape_is_picked():
    assert pick_profile(PADDED, 6, 20) == 0
    assert pick_profile(PADDED, 6, 40) == 1
    assert pick_profile(PADDED, 7, 40) is None
    largest = ((1, 55), (8, 1024)), ((74, 4096), (128, 8192)), ((297, 16384), (4096, 32768))
    packed = [Profile((1, 1), opt, most) for opt, most in largest]
    asked = (1, 60), (1, 512), (4, 300), (40, 2000), (100, 5000), (100, 8000), (500, 8000), (20, 9000), (600, 32768)
    assert [pick_profile(packed, *shape) for shape in asked] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert pick_profile(packed, 600, 32769) is None


def test_batching_stays_within_what_the_engine_takes():
    assert settings_of("packed")[1] == Batching(256, 24)
    assert settings_of("padded")[1] == Batching(512, 16)
    given = {"token_budget": 10, "max_texts": 9000, "slots": 3, "graphs": True, "measured_at": "2026-11-23"}
    assert settings_of("packed", **given)[1] == Batching(LONGEST, 24, 3, True)
    with pytest.raises(EngineError, match="whole numbers"):
        settings_of("packed", token_budget="many")


def test_short_memory_takes_slots_first_then_tokens():
    steps = list(fallbacks(Batching(400, 8, 3), longest=90))
    tried = [(step.slots, step.token_budget) for step in steps]
    assert tried == [(3, 400), (2, 400), (1, 400), (1, 200), (1, 100), (1, 90)]


def test_texts_an_engine_cannot_read():
    with pytest.raises(ModelError, match=r"Text 1 has 49 tokens, and the engine reads at most 48\. Split"):
        check_texts(texts_of([3, 49]), longest=LONGEST, vocabulary=1000)
    empty = PackedTexts(np.array([5], np.int32), np.array([0, 1, 1], np.int32))
    with pytest.raises(ModelError, match="Text 1 has no tokens"):
        check_texts(empty, longest=LONGEST, vocabulary=1000)
    wild = PackedTexts(np.array([5, 1000], np.int32), np.array([0, 2], np.int32))
    with pytest.raises(ModelError, match="1000 is no token id: the model has 1000"):
        check_texts(wild, longest=LONGEST, vocabulary=1000)
    check_texts(PackedTexts(np.zeros(0, np.int32), np.zeros(1, np.int32)), longest=LONGEST, vocabulary=1000)


def test_masked_places_are_those_that_padding_gives():
    _, bias = pad_batch([np.array([1, 2], np.int32)], 4, pad_id=0)
    assert bias[0, 0, 0].tolist() == [0, 0, PADDING_BIAS, PADDING_BIAS]


def test_slots_go_to_whoever_waits_longest():
    pool = SlotPool(["a"], closed="closed")
    me, order, threads = object(), [], []
    assert pool.take(me) == "a"

    def ask(name):
        owner = object()
        slot = pool.take(owner)
        order.append(name)
        assert pool.held(owner) == [slot]
        pool.give(slot)

    for name in range(5):
        threads.append(threading.Thread(target=ask, args=(name,)))
        threads[-1].start()
        time.sleep(0.02)
    assert pool.take(object(), wait=False) is None
    pool.give("a")
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4]
    assert pool.take(me, wait=False) == "a"
    assert pool.take(object(), wait=False) is None


def test_a_closed_pool_wakes_those_who_wait():
    pool, me, said = SlotPool([1, 2], closed="The session is closed."), object(), []
    held = [pool.take(me), pool.take(me)]

    def ask():
        with pytest.raises(ModelError, match="The session is closed"):
            pool.take(object())
        said.append("closed")

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.02)
    assert not pool.close(timeout=0.01)
    thread.join(5)
    assert said == ["closed"]
    for slot in held:
        pool.give(slot)
    assert pool.close(timeout=1)
    with pytest.raises(ModelError, match="closed"):
        pool.take(me)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 3))
def test_slots_are_never_lost_nor_given_twice(counts, slots):
    pool, inside, lock = SlotPool(list(range(slots)), closed="closed"), set(), threading.Lock()

    def work(count):
        owner = object()
        for _ in range(count):
            slot = pool.take(owner)
            with lock:
                assert slot not in inside
                inside.add(slot)
            with lock:
                inside.remove(slot)
            pool.give(slot)

    threads = [threading.Thread(target=work, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert pool.close(timeout=1)


class Moment:
    """A time on the device, as an event tells it."""

    def __init__(self, at):
        self.at = at

    def time_since(self, other):
        return self.at - other.at


def test_busy_time_counts_no_moment_twice():
    clock = BusyClock()
    for start, end in ((0, 100), (50, 150), (150, 250), (160, 200), (400, 500)):
        clock.add(Moment(start), Moment(end))
    assert clock.seconds == pytest.approx(0.35)


def test_without_pycuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setattr(cuda, "_devices", {})
    with pytest.raises(EngineError, match=r"pycuda cannot be loaded: .*pip install pycuda .*backend onnxruntime"):
        cuda.open_device()


@pytest.mark.skipif(runtime_version("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt():
    with pytest.raises(EngineError, match=r"tensorrt is not installed .*Install it: pip install tensorrt"):
        library_logger("tensorrt")


def test_an_engine_of_another_machine_is_not_run(put, engines):  # noqa: F811 - fixtures
    wanted = r"none is built\. Build one on this machine: workbench engines build --model tiny"
    with pytest.raises(ModelError, match=wanted):
        open_session(engines / "tiny", backend="tensorrt")
    _, manifest = put(gpu="Some other GPU", compute_capability="5.0")
    wanted = rf"every one is stale or of another GPU \(fp16 {manifest.engine_id}: built"
    with pytest.raises(ModelError, match=wanted):
        open_session(engines / "tiny", backend="tensorrt")


@given(st.lists(st.integers(1, 70), min_size=1, max_size=90), st.integers(64, 300), st.integers(1, 40))
def test_profiles_of_which_none_lies_in_another(sizes, budget, most):
    profiles = (Profile((1, 1), (40, 60), (64, 80)), Profile((1, 1), (2, 200), (4, 300)))
    given = {"token_budget": budget, "max_texts": most}
    batching = choose_batching(given, layout="packed", profiles=profiles, longest=70)
    assert (batching.token_budget, batching.max_texts) == (max(budget, 70), min(most, 4))
    texts = texts_of(sizes)
    check(compute("packed", list(plan_packed(texts, batching, profiles)), texts, batching, longest=70), texts)


def test_a_batch_reckons_in_the_types_of_its_arrays():
    texts = texts_of([5] * 9000)  # more than is counted beforehand
    members = np.arange(0, 9000, 1)[::-1]
    batch = PackedBatch(texts, members, profile=0)
    assert batch._ends.dtype == batch._lengths.dtype == np.int32
    assert batch.shapes["input_ids"] == (45_000,)
    views = {name: np.full(batch.shapes[name], -1, np.int32) for name in INPUTS["packed"] if name != UNREAD}
    batch.fill(views)
    assert views["input_ids"].tolist() == texts.input_ids.reshape(-1, 5)[::-1].reshape(-1).tolist()
    assert views["position_ids"].tolist() == [*range(5)] * 9000
    assert views["segment_ids"].tolist() == np.repeat(np.arange(9000), 5).tolist()
    assert views["cu_seqlens"].tolist() == [*range(0, 45_001, 5)]


def test_kernels_are_loaded_lazily_before_cuda_starts(monkeypatch):
    said = []

    class Library:
        def __getattr__(self, name):
            def call(*_):
                said.append((name, os.environ.get("CUDA_MODULE_LOADING")))
                return 1

            return call

    monkeypatch.setattr(host.ctypes, "CDLL", lambda name: Library())
    monkeypatch.delenv("CUDA_MODULE_LOADING", raising=False)
    assert host._gpu.__wrapped__() == {}
    monkeypatch.setenv("CUDA_MODULE_LOADING", "EAGER")
    host._gpu.__wrapped__()
    assert said == [("cuInit", "LAZY"), ("cuInit", "EAGER")]
