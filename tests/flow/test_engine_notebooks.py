"""The notebooks on engines: their parameters, and whole runs on a small model with onnxruntime's builder."""

import nbformat
import pytest

from tests.engine.gate_world import make_gate_home
from workbench.engine.engines import list_engines
from workbench.engine.recipe import read_recipe
from workbench.errors import ParameterError, WorkspaceError
from workbench.flow import run_notebook
from workbench.params import BuildEngines, ComparePrecisions
from workbench.tasks.labels import TASKS
from workbench.workspace import Policies


@pytest.mark.parametrize("model", [BuildEngines, ComparePrecisions])
def test_wrong_parameters_are_told(model, use_home, tmp_path):
    use_home(tmp_path)
    with pytest.raises(ParameterError, match="tasks: String should match"):
        model.check(tasks="sentiment, ocr")
    with pytest.raises(ParameterError, match="There is no model 'none'"):
        model.check(model="none").load()
    (tmp_path / "engines" / "m").mkdir(parents=True)
    (tmp_path / "engines" / "m" / "model.toml").write_text("")
    folder, policy = model.check(model="m").load()
    assert (folder, policy) == (tmp_path / "engines" / "m", Policies())
    assert model.check(model="engines/m").load()[0] == folder
    with pytest.raises(WorkspaceError, match=r"No workspace\.toml"):
        model.check(model="m", workspace=str(tmp_path)).load()


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.slow
def test_both_notebooks_run_and_leave_judged_engines_and_a_page(use_home, tmp_path):
    home = use_home(make_gate_home(tmp_path / "home"))
    run_notebook(BuildEngines.check(model="small"), tmp_path / "02.ipynb", progress=False)
    states = list_engines(model="small")
    assert {state.manifest.precision for state in states} == {"fp32", "fp16", "int8"}
    assert all(set(state.manifest.gate) == set(TASKS) for state in states)
    html = "".join(output.get("data", {}).get("text/html", "") for output in outputs(tmp_path / "02.ipynb"))
    assert html.count("<figure") == 2
    assert "the FP32 model of small reads" in html  # ninety texts prove nothing, so nothing is served
    for state in states:
        assert state.engine_id in html

    params = ComparePrecisions.check(model="small", search="entities", budget=6.0, output="out")
    run_notebook(params, tmp_path / "compare.ipynb", progress=False)
    html = "".join(output.get("data", {}).get("text/html", "") for output in outputs(tmp_path / "compare.ipynb"))
    assert html.count("<figure") == 3
    assert "language" in html
    assert "divergence" in html
    assert {path.name for path in (home / "out").iterdir()} == {"compare.html", "compare.md", "compare.json"}
    assert read_recipe(home / "engines" / "small", "entities").budget == 6.0
