import hashlib
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.tiny_model import TOML, make_tiny_model
from workbench.errors import EngineError
from workbench.runtime import manifest as module
from workbench.runtime import session
from workbench.runtime.host import RUNTIMES, Host, this_host
from workbench.runtime.manifest import (
    Manifest,
    Profile,
    engine_id_of,
    file_sha256,
    find_plans,
    read_manifest,
    read_plan,
    rebuild_command,
    staleness,
    verify_plan,
    write_manifest,
)
from workbench.runtime.session import reading_digest
from workbench.tasks.spec import load_spec

L4 = Host("NVIDIA L4", "8.9", "550.54.15", "12.4", {"tensorrt": "8.6.0", "onnxruntime": "1.23.0"})
CPU = Host(versions={"onnxruntime": "1.23.0", "tensorrt": "8.6.0"})
PLAN = b"ftrt" + bytes(range(256)) * 8
DECIDING = {
    "model_sha256": "a" * 64,
    "reading_sha256": "b" * 64,
    "graph_sha256": "c" * 64,
    "precision": "fp16",
    "recipe": (),
    "layout": "padded",
    "profiles": (Profile((1, 1), (8, 32), (16, 64)),),
    "calibration": None,
    "options": {},
    "version_compatible": False,
    "runtime": "tensorrt",
    "runtime_version": "8.6.0",
    "gpu": "NVIDIA L4",
    "compute_capability": "8.9",
}
OTHERS = {
    "model_sha256": "d" * 64,
    "reading_sha256": "d" * 64,
    "graph_sha256": "d" * 64,
    "precision": "fp32",
    "recipe": ("layer0.ffn2",),
    "layout": "packed",
    "profiles": (Profile((1, 1), (8, 32), (16, 128)),),
    "calibration": {"method": "entropy", "data_sha256": "e", "n": 128, "ranges_sha256": "f"},
    "options": {"workspace_gb": 8},
    "version_compatible": True,
    "runtime": "tensorrt-rtx",
    "runtime_version": "8.6.1",
    "gpu": None,
    "compute_capability": "8.0",
}


def make(**changes):
    deciding = {**DECIDING, **{key: value for key, value in changes.items() if key in DECIDING}}
    rest = {key: value for key, value in changes.items() if key not in DECIDING}
    values = {
        "model": "tiny",
        "model_version": "1",
        "plan": "engine.plan",
        "plan_sha256": hashlib.sha256(PLAN).hexdigest(),
        "plan_bytes": len(PLAN),
        "built_at": "2026-11-22T22:00:00+00:00",
        "build_s": 3.5,
        "verified": "inspector",
        "driver": "550.54.15",
        "cuda_version": "12.4",
        **rest,
    }
    return Manifest(**deciding, engine_id=engine_id_of(**deciding), **values)


@pytest.fixture
def engines(tmp_path):
    make_tiny_model(tmp_path / "engines" / "tiny")
    return tmp_path / "engines"


@pytest.fixture
def put(engines):
    """Writes an engine of the tiny model as it is and gives folder and manifest."""

    def write(data=PLAN, **changes):
        spec = load_spec(engines / "tiny")
        own = {"model_sha256": file_sha256(spec.onnx), "reading_sha256": reading_digest(spec)}
        manifest = make(**{**own, **changes})
        folder = engines / "tiny" / "plans" / manifest.engine_id
        folder.mkdir(parents=True)
        (folder / manifest.plan).write_bytes(data)
        write_manifest(folder, manifest)
        return folder, manifest

    return write


def test_the_id_is_of_everything_that_decides():
    first = engine_id_of(**DECIDING)
    assert len(first) == 16
    int(first, 16)
    others = {engine_id_of(**{**DECIDING, key: value}) for key, value in OTHERS.items()}
    assert len(others | {first}) == len(DECIDING) + 1
    assert OTHERS.keys() == DECIDING.keys()


texts = st.text(max_size=30)
shapes = st.tuples(st.integers(1, 999), st.integers(1, 512))


@given(
    st.builds(
        make,
        recipe=st.lists(texts, max_size=3).map(tuple),
        profiles=st.lists(st.builds(Profile, shapes, shapes, shapes), max_size=2).map(tuple),
        options=st.dictionaries(texts, st.one_of(texts, st.integers(), st.floats(allow_nan=False)), max_size=3),
        gpu=st.none() | texts,
        build_s=st.floats(0, 1e6),
        gate=st.dictionaries(texts, st.dictionaries(texts, st.lists(st.floats(allow_nan=False))), max_size=2),
    )
)
def test_a_manifest_comes_back_as_it_was(tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("plans") / manifest.engine_id
    folder.mkdir()
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(EngineError, match=r"has no manifest\.json.*workbench engines build"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b'{"schema": 99}'])
def test_a_damaged_manifest(put, data):
    folder, _ = put()
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(EngineError, match=r"manifest\.json is (damaged|not of a form).*workbench engines"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plan_sha256", "0" * 64),
        ("precision", "fp32"),
        ("gate", {"sentiment": {"verdict": "pass"}}),
        ("verified", "x"),
    ],
)
def test_a_manifest_changed_by_hand(put, key, value):
    folder, _ = put()
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(EngineError, match="was changed after it was written"):
        read_manifest(folder)


def test_an_engine_under_another_name(put):
    folder, manifest = put()
    other = folder.rename(folder.with_name("0" * 16))
    with pytest.raises(EngineError, match=f"is of the engine {manifest.engine_id}.*renamed"):
        read_manifest(other)


def test_a_bad_engine_hides_no_good_one(put, engines, caplog):
    good, manifest = put()
    bad, _ = put(precision="fp32")
    (bad / "manifest.json").write_text("{")
    assert find_plans(engines, "tiny") == [(good, manifest)]
    assert str(bad) in caplog.text
    assert find_plans(engines, "nobody") == []


def test_a_sound_plan_is_read(put):
    folder, manifest = put()
    assert read_plan(folder, manifest, here=L4) == PLAN
    verify_plan(folder, manifest, here=L4)


def test_a_missing_plan(put):
    folder, manifest = put()
    (folder / "engine.plan").unlink()
    with pytest.raises(EngineError, match=r"is missing\. Build it again: workbench engines build --model tiny"):
        verify_plan(folder, manifest, here=L4)


@pytest.mark.parametrize("length", [0, 1, 100, len(PLAN) - 1])
def test_a_truncated_plan(put, length):
    folder, manifest = put(PLAN[:length])
    with pytest.raises(EngineError, match=f"is truncated: {length} of {len(PLAN)} bytes.*workbench engines build"):
        verify_plan(folder, manifest, here=L4)


@given(st.integers(0, len(PLAN) - 1), st.integers(1, 255))
def test_a_plan_with_one_other_byte(tmp_path_factory, place, change):
    folder = tmp_path_factory.mktemp("plans")
    data = bytearray(PLAN)
    data[place] ^= change
    (folder / "engine.plan").write_bytes(bytes(data))
    with pytest.raises(EngineError, match="is damaged or was changed: its SHA-256 is not the manifest's"):
        verify_plan(folder, make(), here=L4)


def test_a_plan_that_grew(put):
    folder, manifest = put(PLAN + b"more")
    with pytest.raises(EngineError, match="is damaged or was changed"):
        verify_plan(folder, manifest, here=L4)


@pytest.mark.parametrize("name", ["../engine.plan", "/etc/passwd", "a/b", ".."])
def test_a_plan_elsewhere(put, name):
    folder, manifest = put()
    with pytest.raises(EngineError, match="names a plan outside its folder"):
        verify_plan(folder, replace(manifest, plan=name), here=L4)


def test_a_plan_that_is_a_link(put, tmp_path):
    folder, manifest = put()
    (tmp_path / "elsewhere").write_bytes(PLAN)
    (folder / "engine.plan").unlink()
    (folder / "engine.plan").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="outside its folder"):
        verify_plan(folder, manifest, here=L4)


def test_a_plan_for_another_gpu(put):
    folder, manifest = put()
    with pytest.raises(
        EngineError,
        match=r"for a GPU of compute capability 8\.9 \(NVIDIA L4\); here is H100 .*Build one for this GPU: workbench",
    ):
        verify_plan(folder, manifest, here=replace(L4, gpu="H100", compute_capability="9.0"))
    with pytest.raises(EngineError, match=r"here is no GPU.*--runtime onnxruntime$"):
        verify_plan(folder, manifest, here=CPU)


def test_a_plan_of_another_version(put):
    folder, manifest = put()
    newer = replace(L4, versions={"tensorrt": "8.6.1"})
    with pytest.raises(
        EngineError, match=r"built with tensorrt 8\.6\.0, here is 8\.6\.1\. Build it again here: work"
    ):
        verify_plan(folder, manifest, here=newer)
    with pytest.raises(EngineError, match="which is not installed here"):
        verify_plan(folder, manifest, here=replace(L4, versions={}))


@pytest.mark.parametrize(
    ("then", "now", "works"),
    [("8.6.0", "8.6.1", True), ("8.6.1", "8.6.0", False), ("8.6.0", "10.0.1", False), ("10.0.1", "10.13.0", True)],
)
def test_version_compatible_plans(put, then, now, works):
    folder, manifest = put(version_compatible=True, runtime_version=then)
    here = replace(L4, versions={"tensorrt": now})
    if works:
        verify_plan(folder, manifest, here=here)
    else:
        with pytest.raises(EngineError, match="here is"):
            verify_plan(folder, manifest, here=here)


def test_a_fresh_engine(put, engines):
    _, manifest = put()
    assert staleness(manifest, engines=engines, here=L4) == ()


def test_a_new_model_makes_stale(put, engines):
    _, manifest = put()
    make_tiny_model(engines / "tiny", seed=5)
    assert staleness(manifest, engines=engines, here=L4) == ("model.onnx changed",)


def test_a_new_threshold_makes_stale_and_a_note_does_not(put, engines):
    _, manifest = put()
    toml = engines / "tiny" / "model.toml"
    toml.write_text(TOML + '\n[limits]\nnote = "a card may grow"\n')
    assert staleness(manifest, engines=engines, here=L4) == ()
    toml.write_text(TOML.replace("zh = 2.0", "zh = 2.5"))
    assert staleness(manifest, engines=engines, here=L4) == (
        "the tokenizer, or how outputs are read (model.toml), changed",
    )


def test_a_model_that_is_gone(put, engines):
    _, manifest = put()
    (engines / "tiny" / "model.onnx").unlink()
    assert "has no model.onnx" in staleness(manifest, engines=engines, here=L4)[0]


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (replace(L4, driver="560.1"), "built under driver 550.54.15, here is 560.1"),
        (replace(L4, gpu="NVIDIA L40S"), "built for NVIDIA L4 (8.9), here is NVIDIA L40S"),
        (replace(L4, versions={"tensorrt": "10.0.1"}), "built with tensorrt 8.6.0, here is 10.0.1"),
        (CPU, "built for NVIDIA L4 (8.9), here is no GPU"),
    ],
)
def test_a_new_machine_makes_stale(put, engines, here, reason):
    _, manifest = put()
    [found] = staleness(manifest, engines=engines, here=here)
    assert found.startswith(reason)


def test_built_for_a_gpu_elsewhere_is_not_stale_here(put, engines):
    _, manifest = put(gpu=None, driver=None, runtime="tensorrt-rtx", runtime_version="1.7")
    here = replace(CPU, versions={"tensorrt-rtx": "1.7"})
    assert staleness(manifest, engines=engines, here=here) == ()
    assert staleness(manifest, engines=engines, here=replace(L4, versions=here.versions)) == ()


def test_new_calibration_data_makes_stale(put, engines):
    data = {"method": "entropy", "data_sha256": "e" * 64, "n": 512, "ranges_sha256": "f" * 64}
    _, manifest = put(precision="int8", calibration=data)
    assert staleness(manifest, engines=engines, here=L4, calibration_sha256="e" * 64) == ()
    assert staleness(manifest, engines=engines, here=L4) == ()
    assert staleness(manifest, engines=engines, here=L4, calibration_sha256="0" * 64) == (
        "the calibration data changed",
    )


def test_a_damaged_plan_is_stale(put, engines):
    _, manifest = put(PLAN[:-1])
    assert "is truncated" in staleness(manifest, engines=engines, here=L4)[0]


def test_a_patch_release_of_onnxruntime_changes_nothing(put, engines):
    _, manifest = put(runtime="onnxruntime", runtime_version="1.23.4", gpu=None, compute_capability=None)
    assert staleness(manifest, engines=engines, here=CPU) == ()
    newer = replace(CPU, versions={"onnxruntime": "1.24.0"})
    assert staleness(manifest, engines=engines, here=newer) == ("built with onnxruntime 1.23.4, here is 1.24.0",)


def test_the_command_says_everything():
    assert rebuild_command(make()) == ("workbench engines build --model tiny --precision fp16 --runtime tensorrt")
    data = {"method": "percentile-99.9", "data_sha256": "e", "n": 512, "ranges_sha256": "f"}
    mixed = make(
        precision="mixed",
        recipe=("layer0.ffn2", "layer1.output"),
        calibration=data,
        gpu=None,
        runtime="tensorrt-rtx",
        options={"workspace_gb": 8, "profile": "1x1:8x32:16x64"},
    )
    assert rebuild_command(mixed) == (
        "workbench engines build --model tiny --precision int8 --runtime tensorrt-rtx --target sm_89 "
        "--keep layer0.ffn2,layer1.output --method percentile-99.9 --workspace-gb 8 --profile 1x1:8x32:16x64"
    )
    assert rebuild_command(make(version_compatible=True)).endswith("--version-compatible")


def test_a_profile_knows_what_fits():
    profile = Profile((2, 4), (8, 32), (16, 64))
    assert profile.fits(2, 4)
    assert profile.fits(16, 64)
    assert not any(profile.fits(*shape) for shape in ((1, 4), (2, 3), (17, 64), (16, 65)))


def test_this_host_says_what_is_installed():
    here = this_host()
    assert here.versions.keys() <= set(RUNTIMES)
    assert here.versions["onnxruntime"][0].isdigit()
    assert (here.gpu is None) == (here.compute_capability is None)


def test_a_plan_for_another_gpu_of_the_same_kind(put):
    folder, manifest = put()
    with pytest.raises(EngineError, match=r"\(NVIDIA L4\); here is NVIDIA L40 .*Build one for this GPU: workbench"):
        read_plan(folder, manifest, here=replace(L4, gpu="NVIDIA L40"))


def test_an_engine_that_came_along_with_a_copied_model(put, engines):
    folder, manifest = put()
    engines.joinpath("tiny").rename(engines / "other")
    moved = engines / "other" / "plans" / manifest.engine_id
    with pytest.raises(
        EngineError, match=r"of the model tiny, .*copied or renamed\. .*workbench engines build --model other --prec"
    ):
        read_manifest(moved)
    assert find_plans(engines, "other") == []
    (engines / "tiny").symlink_to(engines / "other")
    with pytest.raises(EngineError, match="copied or renamed"):
        read_manifest(folder)


@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_that_is_a_link(put, engines, tmp_path, whole):
    folder, manifest = put()
    linked = folder.parent if whole else folder
    linked.rename(tmp_path / linked.name)
    linked.symlink_to(tmp_path / linked.name)
    with pytest.raises(EngineError, match=r"is a link, or lies behind one.*Build it again: workbench engines build"):
        read_plan(folder, manifest, here=L4)
    assert "is a link" in staleness(manifest, engines=engines, here=L4)[0]


def test_files_are_hashed_once_until_they_change(put, engines, monkeypatch):
    folder, manifest = put()
    assert staleness(manifest, engines=engines, here=L4) == ()
    hashed = session._sha256.cache_info().misses
    assert staleness(manifest, engines=engines, here=L4) == ()
    assert session._sha256.cache_info().misses == hashed
    (folder / "engine.plan").write_bytes(PLAN[:-1] + b"?")
    os.utime(folder / "engine.plan", ns=(1, 1))
    assert "damaged or was changed" in staleness(manifest, engines=engines, here=L4)[0]
    monkeypatch.setattr(module, "file_sha256", lambda path: manifest.plan_sha256)
    with pytest.raises(EngineError, match="damaged or was changed"):  # what is handed over is hashed itself
        read_plan(folder, manifest, here=L4)
