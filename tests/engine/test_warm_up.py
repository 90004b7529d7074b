"""`workbench engines warm-up` where there is no GPU: what it leaves alone, and what it says."""

import re
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from tests.runtime.test_manifest import engines, make, put  # noqa: F401 - fixtures
from workbench import settings as settings_module
from workbench.cli import app
from workbench.engine.warm_up import Warmed, warm_up_engines
from workbench.errors import EngineError, ParameterError
from workbench.runtime.manifest import read_manifest

CALIBRATION = settings_module.settings().home / "calibration"


@pytest.fixture
def home(engines, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WORKBENCH_HOME", str(engines.parent))
    settings_module.settings.cache_clear()
    yield engines.parent
    settings_module.settings.cache_clear()


def test_engines_that_cannot_be_warmed_up_are_left_as_they_are(home, put):  # noqa: F811
    (home / "calibration").symlink_to(CALIBRATION)
    _, cpu = put(runtime="onnxruntime", gpu=None, compute_capability=None, plan="model.onnx")
    folder, gpu = put()
    done = CliRunner().invoke(app, ["engines", "warm-up", "--model", "tiny"])
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert re.fullmatch(rf"{cpu.engine_id}  fp16  onnxruntime  left as it is: .* needs no warm-up\. .*", first)
    assert re.fullmatch(rf"{gpu.engine_id}  fp16  tensorrt  left as it is: .*", second)
    assert read_manifest(folder) == gpu
    (one,) = warm_up_engines("tiny", engines=[gpu.engine_id[:6]])
    assert one.manifest == gpu
    with pytest.raises(ParameterError, match="No engine of tiny has an id like 'zzz'"):
        warm_up_engines("tiny", engines=["zzz"])


def test_nothing_to_do_and_nothing_to_do_it_with(home, put):  # noqa: F811
    shutil.copytree(CALIBRATION, home / "calibration")
    done = CliRunner().invoke(app, ["engines", "warm-up", "--model", "tiny"])
    assert done.stdout == "No engines are built. Build some: workbench engines build --all\n"
    put()
    shutil.rmtree(home / "calibration")
    with pytest.raises(EngineError, match=r"no calibration texts for tiny.*--calibration"):
        warm_up_engines("tiny")
    assert len(warm_up_engines("tiny", calibration=CALIBRATION)) == 1


def test_what_is_said_of_an_engine_that_was_warmed_up():
    measured = {"tokens_per_s": 1834567, "texts_per_s": 33355, "single_ms": 1.234, "single_graph_ms": 0.8}
    batching = {"token_budget": 8192, "max_texts": 512, "slots": 2, "graphs": True, "measured": measured}
    assert (
        Warmed(replace(make(), batching=batching))
        .summary()
        .endswith(
            "8192 tokens a batch, 2 slots, with CUDA graphs: 1,834,567 tokens and 33,355 texts a second, a single "
            "text 1.23 ms (0.80 as a CUDA graph)"
        )
    )
