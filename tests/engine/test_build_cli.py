"""`workbench engines` on a small model: build, list, check, prune, refresh."""

import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from tests.engine.small_encoder import make_small_model
from tests.runtime.test_manifest import DECIDING
from tests.runtime.tiny_model import TOML
from workbench import settings as settings_module
from workbench.cli import app
from workbench.engine.engines import build_engines, list_engines, model_folders, refresh_engines
from workbench.engine.recipe import Recipe, write_recipe
from workbench.errors import EngineError, ModelError
from workbench.runtime.manifest import Profile, engine_id_of, file_sha256, read_manifest, write_manifest

CALIBRATION = settings_module.settings().home / "calibration"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A home with a small model, FP32 and FP16 built once."""
    home = tmp_path_factory.mktemp("home")
    make_small_model(home / "engines" / "small")
    build_engines(
        [home / "engines" / "small"],
        ["fp32", "fp16"],
        runtime="onnxruntime",
        calibration=CALIBRATION,
        progress=False,
    )
    return home


@pytest.fixture
def home(first, tmp_path, monkeypatch):
    """A copy of it that the commands use."""
    shutil.copytree(first / "engines", tmp_path / "engines")
    (tmp_path / "calibration").symlink_to(CALIBRATION)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    settings_module.settings.cache_clear()
    yield tmp_path
    settings_module.settings.cache_clear()


def run(*words):
    result = CliRunner().invoke(app, ["engines", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def ids(home):
    return {state.manifest.precision: state.engine_id for state in list_engines(home / "engines")}


def change_threshold(home):
    toml = home / "engines" / "small" / "model.toml"
    toml.write_text(TOML.replace("tiny", "small").replace("zh = 2.0", "zh = 2.5"))


def test_fresh_engines(home):
    code, shown = run("list")
    assert code == 0
    for precision, engine_id in ids(home).items():
        assert f"{engine_id}  small  {precision}  onnxruntime" in shown
    assert shown.count("not judged  fresh") == 2
    assert run("check") == (0, "2 of 2 engines are fresh.\n")
    code, shown = run("refresh")
    assert (code, shown) == (0, "0 built again, 2 were fresh, 0 failed.\n")
    assert run("prune") == (0, "0 engines deleted.\n")


def test_check_fails_when_one_is_stale(home):
    change_threshold(home)
    code, shown = run("check")
    assert code == 1
    assert shown.count("is stale: the tokenizer, or how outputs are read (model.toml), changed") == 2
    assert "-> workbench engines build --model small --precision fp16 --runtime onnxruntime" in shown
    assert shown.endswith("Build all stale ones again: workbench engines refresh\n")
    assert "0 of 2 engines are fresh" in shown


def test_refresh_builds_what_is_stale_and_drops_the_old(home):
    before = ids(home)
    change_threshold(home)
    code, shown = run("refresh")
    after = ids(home)
    assert code == 0
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    for precision, engine_id in before.items():
        assert f"{engine_id} is now {after[precision]}" in shown
    assert "Next: workbench engines compare" in shown
    assert run("check")[0] == 0


def test_prune_deletes_the_damaged_alone(home):
    kept = ids(home)
    folder = home / "engines" / "small" / "plans" / kept["fp16"]
    (folder / "model.onnx").write_bytes(b"short")
    (home / "engines" / "small" / "plans" / ".left.part").mkdir()
    code, shown = run("prune")
    assert code == 0
    assert f"Deleted {kept['fp16']} (small): The plan {folder / 'model.onnx'} is truncated" in shown
    assert ids(home) == {"fp32": kept["fp32"]}
    assert not (home / "engines" / "small" / "plans" / ".left.part").exists()


def test_an_engine_whose_manifest_is_damaged(home):
    folder = home / "engines" / "small" / "plans" / ids(home)["fp16"]
    (folder / "manifest.json").write_text("{}")
    code, shown = run("list")
    assert code == 0
    assert f"{folder.name}  small  damaged  not judged  stale" in shown
    code, shown = run("refresh")
    assert code == 1
    assert f"{folder.name} could not be built again" in shown
    assert "1 were fresh, 1 failed" in shown


def test_the_newest_of_a_kind_counts(home):
    """Profiles follow the calibration texts: the same command may give another engine later."""
    new = ids(home)["fp32"]
    plans = home / "engines" / "small" / "plans"
    manifest = read_manifest(plans / new)
    profiles = (Profile((1, 1), (8, 32), (8, 64)),)
    old = replace(manifest, profiles=profiles, built_at="2026-01-01T00:00:00+00:00")
    old = replace(old, engine_id=engine_id_of(**{name: getattr(old, name) for name in DECIDING}))
    shutil.copytree(plans / new, plans / old.engine_id)
    write_manifest(plans / old.engine_id, old)
    code, shown = run("check")
    assert code == 1
    assert f"{old.engine_id} is stale: superseded by {new}" in shown
    assert run("refresh")[1] == "0 built again, 2 were fresh, 0 failed.\n"
    assert not (plans / old.engine_id).exists()
    assert ids(home)["fp32"] == new


@pytest.mark.parametrize("damage", ["plan", "other machine"])
def test_a_newer_engine_that_is_no_good_supersedes_none(home, damage):
    sound = ids(home)["fp32"]
    plans = home / "engines" / "small" / "plans"
    manifest = read_manifest(plans / sound)
    changes = {"profiles": (Profile((1, 1), (8, 32), (8, 64)),), "built_at": "2027-01-01T00:00:00+00:00"}
    if damage == "other machine":
        changes["runtime_version"] = "1.2.3"
    new = replace(manifest, **changes)
    new = replace(new, engine_id=engine_id_of(**{name: getattr(new, name) for name in DECIDING}))
    shutil.copytree(plans / sound, plans / new.engine_id)
    write_manifest(plans / new.engine_id, new)
    if damage == "plan":
        (plans / new.engine_id / new.plan).write_bytes(b"short")
    states = {state.engine_id: state for state in list_engines(model="small")}
    assert states[sound].is_fresh
    assert states[new.engine_id].reasons[-1] == f"superseded by {sound}"
    assert run("prune")[0] == 0
    assert ids(home)["fp32"] == sound


def test_the_calibration_folder_is_kept_with_the_engine(home, tmp_path):
    own = tmp_path / "own texts"
    shutil.copytree(CALIBRATION, own, ignore=shutil.ignore_patterns("validation*", "training"))
    options = ("--precision", "int8", "--runtime", "onnxruntime", "--calibration", str(own))
    for task in ("topics", "sentiment", "entities"):
        file = own / task / "calibration.jsonl"
        file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[::3]), encoding="utf-8")
    assert run("build", "--model", "small", *options)[0] == 0
    [state] = [state for state in list_engines(model="small") if state.manifest.precision == "int8"]
    assert state.is_fresh
    assert state.manifest.options == {"calibration": str(own)}
    assert state.command.endswith(f"--calibration '{own}'")
    before = state.manifest.calibration
    change_threshold(home)
    done = refresh_engines(progress=False)
    [again] = [new for _, new in done.built if new.precision == "int8"]
    assert (again.options, again.calibration) == (state.manifest.options, before)
    # The engine follows its own texts.
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    stale = [state for state in list_engines(model="small") if not state.is_fresh]
    assert [(state.engine_id, state.reasons) for state in stale] == [
        (again.engine_id, ("the calibration data changed",))
    ]


def test_the_projects_own_calibration_folder_is_no_option(home):
    options = ("--precision", "fp16", "--runtime", "onnxruntime", "--calibration", str(CALIBRATION))
    assert run("build", "--model", "small", *options)[0] == 0
    assert run("check") == (0, "2 of 2 engines are fresh.\n")


def test_other_options_are_another_kind(home):
    options = ("--precision", "fp32", "--runtime", "onnxruntime", "--profile", "1x1:2x8:4x64")
    code, _ = run("build", "--model", "small", *options)
    assert code == 0
    assert len(list_engines()) == 3
    assert run("check") == (0, "3 of 3 engines are fresh.\n")


def test_build_says_what_it_made(home):
    code, shown = run("build", "--task", "topics", "--precision", "fp32,fp16", "--runtime", "onnxruntime")
    assert code == 0
    assert [line.split()[2] for line in shown.splitlines()[:-1]] == ["fp32", "fp16"]
    assert shown.count("executed") == 2
    assert shown.endswith("Next: workbench engines compare\n")


def recipe_of(folder, **more):
    """What a search of the model in ``folder`` might have kept."""
    return Recipe(
        model="small",
        model_sha256=file_sha256(folder / "model.onnx"),
        budget=1.0,
        method="minmax",
        keep=("layer0.attention",),
        delta=-0.2,
        verdict="pass",
        made_at="2026-11-22T22:00:00+00:00",
        **more,
    )


def test_mixed_takes_what_a_search_found(home):
    folder = home / "engines" / "small"
    with pytest.raises(EngineError, match="Search first: workbench engines search --task entities"):
        build_engines([folder], ["mixed"], task="entities", runtime="onnxruntime", progress=False)
    write_recipe(folder, recipe_of(folder, task="entities", metric="entity_f1"))
    [manifest] = build_engines([folder], ["mixed"], runtime="onnxruntime", progress=False)
    assert (manifest.precision, manifest.recipe) == ("mixed", ("layer0.attention",))
    assert manifest.calibration["method"] == "minmax"
    # A refresh repeats recipe and method.
    change_threshold(home)
    done = refresh_engines(progress=False)
    [again] = [new for _, new in done.built if new.precision == "mixed"]
    assert (again.recipe, again.calibration) == (manifest.recipe, manifest.calibration)
    assert again.cached


def test_a_recipe_is_not_repeated_on_another_network(home):
    folder = home / "engines" / "small"
    [made] = build_engines(
        [folder], ["int8"], keep=["layer0.attention"], runtime="onnxruntime", calibration=CALIBRATION, progress=False
    )
    make_small_model(folder, seed=3)
    done = refresh_engines(progress=False)
    assert {new.precision for _, new in done.built} == {"fp32", "fp16"}
    [(failed, why)] = done.failed
    assert failed == made.engine_id
    assert "layer0.attention) were chosen for another model.onnx" in why
    assert why.endswith("Search again: workbench engines search --task sentiment --model small")
    assert (folder / "plans" / failed).is_dir()
    recipe = Recipe(
        task="topics",
        model="small",
        model_sha256=made.model_sha256,
        metric="macro_f1",
        budget=1.0,
        method="minmax",
        keep=made.recipe,
        delta=-0.2,
        verdict="pass",
        made_at="2026-11-22T22:00:00+00:00",
    )
    write_recipe(folder, recipe)
    [(_, why)] = refresh_engines(progress=False).failed
    assert "workbench engines search --task topics --model small" in why


def test_mixed_takes_the_texts_of_the_search(home, tmp_path):
    folder = home / "engines" / "small"
    own = tmp_path / "own"
    shutil.copytree(CALIBRATION, own, ignore=shutil.ignore_patterns("validation*", "training"))
    recipe = recipe_of(folder, task="topics", metric="macro_f1", calibration=str(own))
    write_recipe(folder, recipe)
    [manifest] = build_engines([folder], ["mixed"], runtime="onnxruntime", progress=False)
    assert manifest.options == {"calibration": str(own)}


def test_no_engines(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    settings_module.settings.cache_clear()
    try:
        assert run("list") == (0, "No engines are built. Build some: workbench engines build --all\n")
        assert run("check") == (0, "0 of 0 engines are fresh.\n")
        with pytest.raises(EngineError, match="has no model folder that gives topics"):
            run("build", "--task", "topics")
    finally:
        settings_module.settings.cache_clear()


def test_what_to_build_for(home):
    engines = home / "engines"
    assert model_folders(every=True) == [engines / "small"]
    assert model_folders(task="topics") == [engines / "small"]
    assert model_folders(model="small") == [engines / "small"]
    assert model_folders(model=str(engines / "small")) == [engines / "small"]
    with pytest.raises(EngineError, match="--task sentiment, --model reviews, or --all"):
        model_folders()
    with pytest.raises(EngineError, match="No task is named 'prices'"):
        model_folders(task="prices")
    with pytest.raises(ModelError, match="nobody is not a folder"):
        model_folders(model="nobody")
    with pytest.raises(EngineError, match="No precision is named 'int4'"):
        build_engines([engines / "small"], ["int4"], runtime="onnxruntime", progress=False)
