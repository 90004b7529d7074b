"""The notebook that trains: its parameters, the slice it draws, and a whole run on a few hundred texts."""

import os
from pathlib import Path

import nbformat
import pytest

from workbench.errors import ParameterError
from workbench.flow import run_notebook
from workbench.params import FineTune
from workbench.settings import settings
from workbench.tasks.labels import TASKS
from workbench.tasks.spec import MODEL_FILES, load_spec

if os.environ.get("CI"):
    import torch
else:
    try:
        import torch
    except ImportError:
        torch = None


@pytest.fixture
def data():
    folder = os.environ.get("WORKBENCH_DATA")
    if not folder:
        pytest.skip("needs labelled texts: set WORKBENCH_DATA to the folder that has text/*.parquet")
    return Path(folder).resolve(strict=True)


@pytest.fixture
def some_data(tmp_path):
    (tmp_path / "data" / "text").mkdir(parents=True)
    (tmp_path / "data" / "text" / "a.parquet").write_bytes(b"")
    return tmp_path / "data"


def test_missing_data_is_told_before_anything_starts(tmp_path):
    params = FineTune.check(data=str(tmp_path))
    with pytest.raises(ParameterError, match=r"no labelled data in .*WORKBENCH_DATA"):
        params.load()
    with pytest.raises(ParameterError, match="no labelled data"):
        run_notebook(params, tmp_path / "fine_tune.ipynb", progress=False)
    assert not (tmp_path / "fine_tune.ipynb").exists()


def test_folders_are_found_from_the_checkout_and_a_model_is_not_overwritten(some_data, tmp_path, use_home):
    home = use_home(tmp_path / "home")
    folders = FineTune.check(data=str(some_data), name="mine").load()
    assert folders.out == home / "build" / "fine_tune" / "mine"
    assert folders.calibration == home / "calibration"
    named = FineTune.check(data=str(some_data), out="engines/mine")
    assert named.load().out == home / "engines" / "mine"
    (home / "engines" / "mine").mkdir(parents=True)
    assert named.load().out.is_dir()  # an empty folder is nobody's
    (home / "engines" / "mine" / "model.toml").write_text("")
    with pytest.raises(ParameterError, match=r"exists and is not empty.*replace = True"):
        named.load()
    assert named.model_copy(update={"replace": True}).load().out == home / "engines" / "mine"


def test_data_is_where_the_variable_says(some_data, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(some_data))
    settings.cache_clear()
    try:
        assert FineTune.check().load().data == some_data
    finally:
        settings.cache_clear()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 100}, "width: Input should be a multiple of 64"),
        ({"device": "gpu"}, "device: String should match"),
        ({"name": "../x"}, "name: String should match"),
        ({"rows": -1}, "rows: Input should be greater"),
        ({"steps": 5}, "steps: unknown parameter; allowed: data, out, name"),
    ],
)
def test_wrong_parameters_are_told(values, message):
    with pytest.raises(ParameterError, match=message):
        FineTune.check(**values)


@pytest.mark.export
@pytest.mark.data
@pytest.mark.skipif(torch is None, reason="the extra export is not installed: pip install -e '.[export]'")
def test_a_slice_has_texts_of_every_set_split_and_label(data):
    from workbench.engine.training.run import choose_device, read_corpus

    own = settings().home / "calibration"
    whole, part = read_corpus(data, own), read_corpus(data, own, rows=400)
    assert len(part) == 400
    assert part == read_corpus(data, own, rows=400)
    assert part != read_corpus(data, own, rows=400, seed=8)
    assert {(e.source, e.split, e.sentiment) for e in part.examples} == {
        (e.source, e.split, e.sentiment) for e in whole.examples
    }
    assert part.unlabelled
    counts = part.counts()
    assert counts["train"].sum() + counts["dev"].sum() + counts["test"].sum() == 400
    assert counts["train"].sum() == len(part.texts("train"))
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(ParameterError, match="torch sees 0 GPUs"):
            choose_device("cuda:3")


@pytest.mark.export
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(torch is None, reason="the extra export is not installed: pip install -e '.[export]'")
def test_the_notebook_runs_on_a_slice_and_leaves_a_model_folder(data, tmp_path, monkeypatch):
    import workbench
    from workbench.engine.training.bundle import load_checkpoint

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the network is so small that a second core only waits
    params = FineTune.check(
        data=str(data),
        out=str(tmp_path / "mine"),
        name="mine",
        rows=400,
        vocabulary=2000,
        layers=2,
        width=64,
        pretrain_steps=4,
        tune_steps=10,
        batch_tokens=1024,
        device="cpu",
    )
    run_notebook(params, tmp_path / "fine_tune.ipynb", progress=False)
    notebook = nbformat.read(tmp_path / "fine_tune.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("<figure" in output.get("data", {}).get("text/html", "") for output in outputs)
    spec = load_spec(tmp_path / "mine")
    assert spec.title == "mine 1"
    assert set(spec.outputs) == set(TASKS)
    assert {path.name for path in spec.folder.iterdir()} == set(MODEL_FILES)
    trained = spec.card["training"]
    assert (trained["device"], trained["pretraining"]["steps"], trained["tuning"]["steps"]) == ("CPU", 4, 10)
    assert sum(item["rows"] for item in trained["sets"]) == trained["texts"]
    assert all(item["sha256"] for item in trained["sets"])
    assert spec.card["metrics"]["zh_takeaway"]["accuracy"]["n"] > 0
    read = workbench.score(["Works well.", "很差"], models=dict.fromkeys(TASKS, spec.folder))
    assert read["sentiment"].null_count() == 0
    assert load_checkpoint(tmp_path / "mine-training" / "weights.pt").config.layers == 2
    with pytest.raises(ParameterError, match="exists and is not empty"):
        run_notebook(params, tmp_path / "again.ipynb", progress=False)
