"""Real engines: by onnxruntime and by TensorRT-RTX, which builds for GPUs that are not here."""

import hashlib
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tests.engine.small_encoder import POSITIONS, make_small_model
from tests.runtime.test_manifest import L4, PLAN, make
from tests.runtime.tiny_model import TOML, make_tiny_model
from workbench.engine.build import build, parse_profile
from workbench.engine.build.builder import _existing
from workbench.engine.build.graph import convert
from workbench.engine.build.trt import BuildOptions, build_plan, check_header, int8_form, targets
from workbench.engine.graphs import check_graph, layer_groups
from workbench.errors import CalibrationError, EngineError, ModelError
from workbench.runtime import open_engine, open_session
from workbench.runtime.host import import_runtime, runtime_version
from workbench.runtime.manifest import (
    Profile,
    file_sha256,
    find_plans,
    read_manifest,
    rebuild_command,
    staleness,
    verify_plan,
    write_manifest,
)
from workbench.runtime.read import read_texts
from workbench.runtime.session import reading_digest
from workbench.settings import settings
from workbench.tasks.spec import load_spec

HAS_RTX = runtime_version("tensorrt-rtx") is not None
needs_rtx = pytest.mark.skipif(
    not HAS_RTX and os.environ.get("CI") != "true",  # there, a missing package is an error
    reason="the extra engines is not installed: pip install -e '.[engines]'",
)
TEXTS = ["good price", "质量很好", "bad phone, very slow", "the price is good 👍"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    home = tmp_path_factory.mktemp("engines")
    make_small_model(home / "small")
    return home


@pytest.fixture(scope="module")
def made(engines):
    """One engine of each precision and runtime, built once."""
    kept = {}

    def get(precision, runtime="onnxruntime", target=None, **options):
        key = (precision, runtime, target, *sorted(options.items()))
        if key not in kept:
            kept[key] = build(
                engines / "small", precision=precision, runtime=runtime, target=target, progress=False, **options
            )
        return kept[key], engines / "small" / "plans" / kept[key].engine_id

    return get


@pytest.fixture
def own(engines, tmp_path):
    """A copy of the model folder, with the ranges and timings kept so far."""
    plans = engines / "small" / "plans"
    shutil.copytree(engines / "small", tmp_path / "small", ignore=shutil.ignore_patterns("plans"))
    if (plans / "cache").is_dir():
        shutil.copytree(plans / "cache", tmp_path / "small" / "plans" / "cache")
    return tmp_path / "small"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_for_the_cpu_runs(made, engines, precision):
    manifest, folder = made(precision)
    assert read_manifest(folder) == manifest
    assert (manifest.precision, manifest.runtime, manifest.target) == (precision, "onnxruntime", "cpu")
    assert (manifest.verified, manifest.plan, manifest.gpu) == ("executed", "model.onnx", None)
    assert manifest.plan_sha256 == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert manifest.plan_sha256 == manifest.graph_sha256
    assert manifest.plan_bytes == (folder / "model.onnx").stat().st_size
    assert (manifest.calibration is None) == (precision != "int8")
    assert staleness(manifest, engines=engines) == ()
    check_graph(onnx.load(folder / "model.onnx"), precision)
    with open_engine(folder) as session, open_session(engines / "small") as reference:
        assert (session.precision, session.engine_id) == (precision, manifest.engine_id)
        assert session.engine_id != reference.engine_id
        mine, theirs = read_texts(session, TEXTS), read_texts(reference, TEXTS)
    difference = np.abs(mine.p_sentiment - theirs.p_sentiment).max()
    assert difference <= {"fp32": 0, "fp16": 0.01, "int8": 0.3}[precision]
    assert (difference == 0) == (precision == "fp32")


def test_int8_says_what_it_was_calibrated_with(made):
    manifest, _ = made("int8")
    assert manifest.calibration["method"] == "percentile-99.99"
    assert manifest.calibration["n"] > 1000
    assert {len(manifest.calibration[key]) for key in ("data_sha256", "ranges_sha256")} == {64}


def test_groups_kept_back_make_it_mixed(made):
    manifest, folder = made("int8", keep=("layer1.ffn2", "layer0.attention"))
    assert (manifest.precision, manifest.recipe) == ("mixed", ("layer0.attention", "layer1.ffn2"))
    check_graph(onnx.load(folder / "model.onnx"), "mixed")
    with open_engine(folder) as session:
        assert session.precision == "mixed"
    assert "--precision int8 --runtime onnxruntime --keep layer0.attention,layer1.ffn2" in rebuild_command(manifest)


def test_kept_ranges_save_time(own):
    shutil.rmtree(own / "plans" / "cache", ignore_errors=True)
    times, made = [], []
    for force in (False, True):
        started = time.process_time()
        made.append(build(own, precision="int8", runtime="onnxruntime", force=force, progress=False))
        times.append(time.process_time() - started)
    assert [item.cached for item in made] == [False, True]
    assert made[0].engine_id == made[1].engine_id
    assert made[0].plan_sha256 == made[1].plan_sha256
    # The bundled model saves far more; this one is so small that converting it counts, and on a busy machine the
    # threads' waiting for each other counts as well.
    assert times[1] < 0.8 * times[0]


def test_what_is_built_is_not_built_again(made, engines):
    manifest, folder = made("fp16")
    before = (folder / "model.onnx").stat().st_mtime_ns
    assert build(engines / "small", precision="fp16", runtime="onnxruntime", progress=False) == manifest
    assert (folder / "model.onnx").stat().st_mtime_ns == before


def test_an_engine_of_another_driver_is_built_again(tmp_path):
    """The driver is not in the id; the command that `workbench engines check` prints must build all the same."""
    spec = load_spec(make_tiny_model(tmp_path / "engines" / "tiny"))
    manifest = make(model_sha256=file_sha256(spec.onnx), reading_sha256=reading_digest(spec))
    folder = spec.folder / "plans" / manifest.engine_id
    folder.mkdir(parents=True)
    (folder / manifest.plan).write_bytes(PLAN)
    write_manifest(folder, manifest)
    assert _existing(folder, L4) == manifest
    assert _existing(folder, replace(L4, driver="580.65.06")) is None
    (folder / manifest.plan).write_bytes(PLAN[:-1])
    assert _existing(folder, L4) is None


def test_a_damaged_engine_is_built_again(own):
    first = build(own, precision="fp32", runtime="onnxruntime", progress=False)
    folder = own / "plans" / first.engine_id
    plan = folder / first.plan
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"is truncated.*workbench engines build --model small --precision fp32"):
        open_engine(folder)
    again = build(own, precision="fp32", runtime="onnxruntime", progress=False)
    assert again.engine_id == first.engine_id
    verify_plan(folder, again)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]
    assert not list((own / "plans").glob(".*"))


def test_an_engine_of_another_model_is_refused(own):
    manifest = build(own, precision="fp16", runtime="onnxruntime", progress=False)
    folder = own / "plans" / manifest.engine_id
    (own / "model.toml").write_text(TOML.replace("zh = 2.0", "zh = 3.0").replace("tiny", "small"))
    with pytest.raises(
        EngineError, match=r"is stale: the tokenizer, or how outputs are read .* Build it again: workb"
    ):
        open_engine(folder)
    make_small_model(own, seed=3)
    with pytest.raises(EngineError, match=r"is stale: model\.onnx changed"):
        open_engine(folder)


def test_another_version_of_onnxruntime_is_refused(own):
    manifest = build(own, precision="fp32", runtime="onnxruntime", progress=False)
    old = replace(manifest, runtime_version="1.2.3")
    with pytest.raises(EngineError, match=r"built with onnxruntime 1\.2\.3, here is"):
        verify_plan(own / "plans" / manifest.engine_id, old)


def test_a_card_that_speaks_of_fp32_bits(own):
    (own / "model.toml").write_text(TOML + "\n[network]\nbatch_invariant = true\nbytes = 1\n")
    for precision, said in (("fp32", {"batch_invariant": True, "bytes": 1}), ("fp16", {"bytes": 1})):
        manifest = build(own, precision=precision, runtime="onnxruntime", progress=False)
        with open_engine(own / "plans" / manifest.engine_id) as session:
            assert session.spec.card["network"] == said


def test_without_calibration_texts(own, tmp_path):
    shutil.rmtree(own / "plans", ignore_errors=True)
    with pytest.raises(CalibrationError, match="is missing"):
        build(own, precision="int8", runtime="onnxruntime", calibration=tmp_path, progress=False)
    assert not list((own / "plans").glob("*/manifest.json"))
    manifest = build(own, precision="fp16", runtime="onnxruntime", calibration=tmp_path, progress=False)
    assert manifest.profiles == (Profile((1, 1), (32, POSITIONS), (256, POSITIONS)),)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precision": "int4"}, EngineError, "No precision is named 'int4'. Use one of: fp32, fp16, int8"),
        ({"runtime": "openvino"}, EngineError, "No runtime is named 'openvino'"),
        ({"target": "sm_89"}, EngineError, "run on the CPU"),
        ({"target": "ada"}, EngineError, "'ada' is no target"),
        ({"version_compatible": True}, EngineError, "Only plans of tensorrt"),
        ({"precision": "fp16", "keep": ["layer0.ffn2"]}, EngineError, "kept back from INT8 only"),
        ({"precision": "int8", "keep": ["layer9.ffn2"]}, ModelError, "no group 'layer9.ffn2'"),
        ({"precision": "int8", "method": "guess"}, CalibrationError, "'guess'"),
    ],
)
def test_what_cannot_be_built(engines, options, error, message):
    asked = {"precision": "fp32", "runtime": "onnxruntime", **options}
    with pytest.raises(error) as caught:
        build(engines / "small", progress=False, **asked)
    assert message in str(caught.value)


@pytest.mark.skipif(runtime_version("tensorrt") is not None, reason="TensorRT is installed")
def test_tensorrt_that_is_not_there(engines):
    with pytest.raises(EngineError, match=r"tensorrt is not installed or does not load\. Install it: pip install"):
        build(engines / "small", precision="fp32", runtime="tensorrt", progress=False)


@needs_rtx
@pytest.mark.parametrize("target", ["sm_80", "sm_89"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_rtx_builds_for_gpus_that_are_not_here(made, engines, precision, target):
    manifest, folder = made(precision, "tensorrt-rtx", target)
    assert read_manifest(folder) == manifest
    assert (manifest.precision, manifest.target, manifest.verified) == (precision, target, "unverified on target")
    assert (manifest.runtime_version, manifest.gpu, manifest.driver) == (runtime_version("tensorrt-rtx"), None, None)
    plan = (folder / "engine.plan").read_bytes()
    assert manifest.plan_sha256 == hashlib.sha256(plan).hexdigest()
    assert manifest.plan_bytes == len(plan)
    check_header(plan, runtime="tensorrt-rtx")
    assert staleness(manifest, engines=engines) == ()
    with pytest.raises(EngineError, match=r"for a GPU of compute capability 8\.[09]; here is .*Use it on its GPU"):
        verify_plan(folder, manifest)
    with pytest.raises(EngineError, match=r"build one for the CPU: workbench engines build"):
        open_engine(folder)


@needs_rtx
def test_plans_for_two_gpus_are_two_engines(made):
    (one, at_one), (two, at_two) = made("fp32", "tensorrt-rtx", "sm_80"), made("fp32", "tensorrt-rtx", "sm_89")
    assert one.engine_id != two.engine_id
    assert one.graph_sha256 == two.graph_sha256
    trt = import_runtime("tensorrt-rtx")
    # The header is all that the library's own check reads.
    size = trt.Runtime(trt.Logger()).engine_header_size
    assert (at_one / "engine.plan").read_bytes()[:size] != (at_two / "engine.plan").read_bytes()[:size]


@needs_rtx
@pytest.mark.parametrize("data", [b"", b"vt", b"not a plan" * 20, bytes(4096)])
def test_a_header_that_is_none(data):
    with pytest.raises(EngineError, match=r"malformed engine\. Build the engine again"):
        check_header(data, runtime="tensorrt-rtx")


@needs_rtx
def test_a_damaged_rtx_plan_is_told_by_its_hash(made, tmp_path):
    manifest, folder = made("fp16", "tensorrt-rtx", "sm_89")
    copy = tmp_path / manifest.engine_id
    shutil.copytree(folder, copy)
    plan = (folder / "engine.plan").read_bytes()
    middle = len(plan) // 2
    # The library's own check reads the header alone and finds nothing wrong with these.
    for data, problem in (
        (plan[:middle], "is truncated"),
        (plan[:middle] + bytes([plan[middle] ^ 1]) + plan[middle + 1 :], "damaged or was changed"),
    ):
        check_header(data, runtime="tensorrt-rtx")
        (copy / "engine.plan").write_bytes(data)
        with pytest.raises(EngineError, match=rf"{problem}.*--runtime tensorrt-rtx --target sm_89"):
            verify_plan(copy, manifest)


@needs_rtx
def test_an_rtx_plan_of_another_version(made, tmp_path):
    manifest, folder = made("fp16", "tensorrt-rtx", "sm_89")
    old = replace(manifest, runtime_version="1.1.0.4")
    with pytest.raises(EngineError, match=r"built with tensorrt-rtx 1\.1\.0\.4, here is 1\.\d"):
        verify_plan(folder, old)
    write_manifest(tmp_path, old)
    with pytest.raises(EngineError, match="put together by hand"):
        read_manifest(tmp_path)


@needs_rtx
def test_rtx_builds_for_the_gpus_it_knows(engines):
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(targets("tensorrt-rtx"))
    with pytest.raises(EngineError, match=r"builds for sm_75.*not for sm_90\. Use --runtime tensorrt"):
        build(engines / "small", precision="fp32", runtime="tensorrt-rtx", target="sm_90", progress=False)


@needs_rtx
def test_profiles_that_leave_out_long_texts(engines):
    short = [parse_profile("1x1:2x8:4x32")]
    with pytest.raises(EngineError, match=r"takes one text of 64 tokens.*--profile 1x1:2x8:4x32,1x1:"):
        build(
            engines / "small",
            precision="fp32",
            runtime="tensorrt-rtx",
            target="sm_89",
            profiles=short,
            progress=False,
        )


@needs_rtx
def test_rtx_cannot_read_every_graph(engines):
    with pytest.raises(EngineError, match="cannot read the graph"):
        build_plan(
            b"not a graph",
            runtime="tensorrt-rtx",
            precision="fp32",
            compute_capability="8.9",
            profiles=[Profile((1, 1), (1, 8), (1, 8))],
            options=BuildOptions(),
        )


@needs_rtx
def test_a_build_shows_how_far_it_is(engines, capfd):
    manifest = build(
        engines / "small", precision="fp16", runtime="tensorrt-rtx", target="sm_86", optimization_level=2
    )
    shown = capfd.readouterr().err
    assert "Building for tensorrt-rtx" in shown
    assert "small fp16: 100%" in shown
    assert manifest.options == {"optimization_level": 2}


@needs_rtx
def test_types_of_products_as_the_library_reads_them(made, engines):
    groups = layer_groups(onnx.load(engines / "small" / "model.onnx"))
    inner = sum(len(group.nodes) for group in groups)
    expected = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}
    for precision, kind in expected.items():
        graph = convert(
            load_spec(engines / "small"),
            precision=precision,
            form=int8_form("tensorrt-rtx"),
            cache=engines / "small" / "plans" / "cache",
        )
        built = build_plan(
            graph.data,
            runtime="tensorrt-rtx",
            precision=precision,
            compute_capability="8.0",
            profiles=[Profile((1, 1), (2, 16), (4, 64))],
            options=BuildOptions(workspace_gb=1),
        )
        assert built.products[kind] >= inner, built.products
        assert built.timings is None


def test_the_bundled_model(tmp_path):
    bundled = settings().home / "engines" / "reviews"
    if not (bundled / "model.onnx").is_file():
        pytest.skip("engines/reviews is not there")
    folder = tmp_path / "reviews"
    shutil.copytree(bundled, folder, ignore=shutil.ignore_patterns("plans"))
    manifest = build(folder, precision="fp16", runtime="onnxruntime", progress=False)
    short, long = manifest.profiles
    assert short.max[1] < long.max[1] == load_spec(folder).max_tokens
    assert [path for path, _ in find_plans(tmp_path, "reviews")] == [folder / "plans" / manifest.engine_id]
