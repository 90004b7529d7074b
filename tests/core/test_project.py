"""The project's own files agree with each other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from workbench import params
from workbench.store.tables import TABLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
NAMED = [
    *("jupyterlab", "papermill", "tensorrt", "pycuda", "onnx"),
    *("torch", "transformers", "polars", "matplotlib", "trafilatura"),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    extras = project()["optional-dependencies"]
    lines = [*project()["dependencies"], *(line for extra in ("lab", "export", "gpu") for line in extras[extra])]
    return {r.name: str(r.specifier) for r in map(Requirement, lines)}


def test_environment_lists_all_ten_packages_as_pyproject_does():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = {}
    for item in environment["dependencies"]:
        for line in item["pip"] if isinstance(item, dict) else [item]:
            if not line.startswith("-e"):
                requirement = Requirement(line)
                listed[requirement.name] = str(requirement.specifier)
    assert set(NAMED) <= set(listed)
    assert {name: listed[name] for name in NAMED} == {name: requirements()[name] for name in NAMED}
    assert listed["python"] == project()["requires-python"]


def test_every_requirement_is_pinned_for_this_python():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                assert requirement.name not in pins, f"{requirement.name} is pinned twice"
                pins[requirement.name] = requirement.specifier
    extras = project()["optional-dependencies"].values()
    lines = [*project()["dependencies"], *(line for extra in extras for line in extra)]
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate():
            pin = str(pins[requirement.name.lower()]).removeprefix("==")
            assert requirement.specifier.contains(pin, prereleases=True), f"{requirement} is pinned at {pin}"


def test_import_is_light():
    code = "import sys, workbench; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for name in (
        "torch",
        "tensorrt",
        "pycuda",
        "transformers",
        "polars",
        "trafilatura",
        "matplotlib",
        "httpx",
        "onnxruntime",
    ):
        assert f"'{name}'" not in loaded


def test_public_names():
    import workbench

    assert workbench.__all__ == [
        *("Page", "Week", "WorkbenchError", "Workspace", "extract_page", "load_workspace", "score", "score_file")
    ]
    assert set(workbench.__all__) <= set(dir(workbench))
    assert len(dir(workbench)) == len(set(dir(workbench)))
    for name in workbench.__all__:
        assert getattr(workbench, name).__name__ == name
    with pytest.raises(AttributeError, match=r"no attribute 'scores'.* offers Page, .*score_file") as caught:
        _ = workbench.scores
    assert (caught.value.name, caught.value.obj) == ("scores", workbench)
    assert not hasattr(workbench, "no_such_name")


def test_type_checkers_see_the_public_names_where_they_are_loaded_from():
    import workbench

    tree = ast.parse((ROOT / "workbench" / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: line.module for line in imports for alias in line.names}
    assert seen == workbench._HOMES
    assert sorted(seen) == workbench.__all__
    (listed,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert listed == workbench.__all__


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin_and_agree_with_their_model(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    model = params.NOTEBOOKS[path.stem]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == code[:1], "the first code cell holds the parameters"
    values = {}
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # .+", line), f"one typed literal a line, with a comment: {line}"
        exec(line, values)  # noqa: S102 - our own literals
    values.pop("__builtins__")
    fields = {name: field.default for name, field in model.model_fields.items()}
    assert values == fields
    assert f"{model.__name__}.check(" in code[1].source, "the second cell validates the parameters"
    for cell in code:
        assert not cell.outputs, "outputs are stripped"
        assert cell.execution_count is None
        assert not re.search(r"^\s*(def|class|!|%pip)\s*", cell.source, re.M), "no definitions, no installs"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "check" in notebook.cells[-2].source.lower()


def test_every_notebook_has_a_parameter_model():
    assert {path.stem for path in NOTEBOOKS} == set(params.NOTEBOOKS)


def test_tables_are_the_declared_ones():
    assert list(TABLES) == [
        "sources",
        "pages",
        "offers",
        "plans",
        "claims",
        "reviews",
        "creatives",
        "scores",
        "engines",
        "changes",
    ]
    for table in TABLES.values():
        assert set(table.key) <= set(table.schema)


def test_every_command_is_in_the_readme():
    from workbench.cli import app

    readme = (ROOT / "README.md").read_text()
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"workbench {name}" in readme, f"workbench {name} is not in README.md"


def test_the_tracked_tree_is_small():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    size = sum((ROOT / name).stat().st_size for name in names.split("\0") if name and (ROOT / name).is_file())
    assert size < 25_000_000
