"""Real engines of a small model, built by onnxruntime's builder, judged, timed, searched and shown."""

import json
import re
import shutil
from dataclasses import replace

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.engine.gate_world import make_gate_home
from workbench.cli import app
from workbench.engine import compare as compare_module
from workbench.engine.build import build
from workbench.engine.compare import compare_engines
from workbench.engine.engines import build_engines, list_engines
from workbench.engine.gate import GateResult, processor, read_answers, read_validation
from workbench.engine.gate.speed import measure_speeds
from workbench.engine.recipe import read_recipe
from workbench.engine.search import search
from workbench.errors import EngineError, ModelError, ParameterError
from workbench.report.engines import accuracy_frame, comparison_html, markdown_table, slice_frame, speed_frame
from workbench.report.figure_engines import search_figure
from workbench.runtime import open_engine, open_session
from workbench.runtime.manifest import read_manifest, write_manifest
from workbench.runtime.onnx import OnnxSession
from workbench.settings import settings
from workbench.tasks.labels import TASKS
from workbench.workspace import Policies, SentimentPolicy


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = make_gate_home(tmp_path_factory.mktemp("gate"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder))
        settings.cache_clear()
        yield folder
    settings.cache_clear()


@pytest.fixture(scope="module")
def small(home):
    return home / "engines" / "small"


@pytest.fixture(scope="module")
def built(small):
    return {item.precision: item for item in build_engines([small], runtime="onnxruntime", progress=False)}


@pytest.fixture(scope="module")
def compared(small, built):
    return compare_engines("small", progress=False)


def test_every_engine_is_judged_on_every_task_and_the_manifest_says_so(small, built, compared):
    assert [row.precision for row in compared.engines] == ["fp32", "fp16", "int8"]
    for row in compared.engines:
        manifest = read_manifest(small / "plans" / row.name)
        assert set(manifest.gate) == set(TASKS) == set(row.gate)
        for task, result in row.gate.items():
            assert GateResult.from_dict(manifest.gate[task]) == result
            assert result.n == 90
            assert result.data_sha256 == compared.sets[task].sha256
            assert {"language=en", "language=zh", "stratum=normal"} <= set(result.slices)
        assert manifest.engine_id == row.name  # judging changes no id
    assert all("pass" in s.verdicts or "inconclusive" in s.verdicts for s in list_engines(model="small"))


def test_the_same_network_gives_the_same_answers_and_int8_others(compared):
    fp32, fp16, int8 = compared.engines
    assert all(result.flips.n == 0 and result.delta == 0 for result in fp32.gate.values())
    assert all(abs(result.delta) < 2 for result in fp16.gate.values())
    assert sum(result.flips.n for result in int8.gate.values()) > sum(r.flips.n for r in fp16.gate.values())
    # Ninety texts cannot show that 0.3 points are held, even where nothing differs.
    assert fp16.gate["sentiment"].verdict == "inconclusive"
    assert fp16.gate["sentiment"].needed > 1000


def test_speeds_are_taken_side_by_side(compared):
    for row in compared.rows:
        assert [speed.batch for speed in row.speeds] == [1, 8, 32]
        for speed in row.speeds:
            assert 0 < speed.p50_ms <= speed.p95_ms
            assert speed.runs == 96 // speed.batch
            assert 2 < speed.tokens <= 64
        assert row.best.texts_per_s == max(speed.texts_per_s for speed in row.speeds)
    assert compared.reference.times == 1
    for row in compared.engines:
        assert [speed.batch for speed in row.beside] == [1, 8, 32]
        base = max(speed.texts_per_s for speed in row.beside)
        assert row.times == row.best.texts_per_s / base
        assert row.gate["topics"].speed_ratio == pytest.approx(row.times, rel=0.01)
    middle = sorted(row.beside[0].texts_per_s for row in compared.engines)[1]
    assert compared.reference.single.texts_per_s == middle


def test_judging_without_timing_keeps_the_speed_of_before(small, compared):
    before = compared.engines[-1]
    compare_engines("small", ("topics",), engines=[before.name], speed=False, progress=False)
    stored = GateResult.from_dict(read_manifest(small / "plans" / before.name).gate["topics"])
    assert stored.speed_ratio == before.gate["topics"].speed_ratio
    assert stored.speed_ratio is not None


def test_no_more_than_one_engine_is_open_at_a_time(small, built, monkeypatch):
    opened = []
    most = 0

    class Counted(OnnxSession):
        def __init__(self, *args, **kwargs):
            nonlocal most
            super().__init__(*args, **kwargs)
            opened.append(self)
            most = max(most, len(opened))

        def close(self):
            super().close()
            if self in opened:
                opened.remove(self)

    monkeypatch.setattr("workbench.runtime.onnx.OnnxSession", Counted)
    found = compare_engines("small", ["sentiment"], speed=False, store=False, progress=False)
    assert len(found.engines) == 3
    assert most == 2  # FP32 is there all the time
    assert not opened


def test_tables_and_page_carry_every_verdict(compared):
    accuracy = accuracy_frame(compared)
    assert accuracy.height == 9
    assert set(accuracy["verdict"]) <= {"pass", "fail", "inconclusive"}
    assert speed_frame(compared)["engine"].to_list()[0] == "FP32 model"
    parts = slice_frame(compared, "topics")
    assert {"language", "stratum", "label"} == set(parts["part"])
    page = comparison_html(compared)
    assert page.count("<svg") == 2
    assert page.count("<desc") == 2
    assert not re.search(r"(src|href)=\"https?:", page)
    for row in compared.engines:
        assert row.name in page
    data = json.loads(compared.to_json())
    assert [row["precision"] for row in data["engines"]] == ["fp32", "fp32", "fp16", "int8"]
    lines = markdown_table(pl.DataFrame({"a": ["x|y", None], "b": [1.234, 2.0]})).splitlines()
    assert lines == ["| a | b |", "|---|---:|", "| x\\|y | 1.23 |", "| – | 2.00 |"]


def test_metric_and_budget_come_from_the_policy(built):
    policy = Policies(sentiment=SentimentPolicy(metric="macro_f1", budget=7.5))
    found = compare_engines(
        "small", ["sentiment"], engines=[built["fp16"].engine_id[:8]], policy=policy, store=False, speed=False
    )
    (row,) = found.engines
    result = row.gate["sentiment"]
    assert (result.metric, result.budget, result.verdict) == ("macro_f1", 7.5, "pass")
    assert row.speeds == ()


def test_an_engine_that_cannot_run_here_is_unmeasured_unless_it_was_measured(small, built):
    manifest = build(small, precision="fp16", runtime="onnxruntime", keep=(), force=True, progress=False)
    folder = small / "plans" / manifest.engine_id
    write_manifest(folder, replace(manifest, gate={}))
    plan = folder / manifest.plan
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1])
    try:
        found = compare_engines("small", ["sentiment", "topics"], engines=[manifest.engine_id], speed=False)
        (row,) = found.engines
        assert {result.verdict for result in row.gate.values()} == {"unmeasured"}
        assert "truncated" in row.reason
        assert "truncated" in row.gate["topics"].reason
        assert any("truncated" in reason for reason in row.stale)
        assert "unmeasured" in comparison_html(found)
        plan.write_bytes(whole)
        first = compare_engines("small", ["sentiment"], engines=[manifest.engine_id], speed=False)
        plan.write_bytes(whole[:-1])
        again = compare_engines("small", ["sentiment"], engines=[manifest.engine_id], speed=False)
        assert again.engines[0].gate == first.engines[0].gate  # what was measured stays known
        assert read_manifest(folder).gate["topics"]["verdict"] == "unmeasured"
    finally:
        plan.write_bytes(whole)


def test_an_engine_that_fails_while_it_reads_stops_no_other(small, built, monkeypatch):
    failing = built["fp16"].engine_id
    before = read_manifest(small / "plans" / failing).gate
    read = compare_module.read_answers

    def broken(session, texts, **options):
        if session.engine_id == failing and texts.task == "topics":
            raise ModelError("The batch does not fit into memory. Use fewer tokens.")
        return read(session, texts, **options)

    monkeypatch.setattr(compare_module, "read_answers", broken)
    found = compare_engines("small", ["sentiment", "topics"], speed=False, store=False, progress=False)
    rows = {row.name: row for row in found.engines}
    assert rows[failing].gate["sentiment"].n == 90
    assert rows[failing].gate["topics"].verdict == "unmeasured"
    assert rows[failing].reason == rows[failing].gate["topics"].reason
    assert "does not fit into memory" in rows[failing].reason
    assert rows[built["int8"].engine_id].gate["topics"].n == 90
    assert read_manifest(small / "plans" / failing).gate == before


def test_a_text_without_tokens_fills_no_batch(small):
    with open_session(small, backend="onnxruntime") as session:
        speeds = measure_speeds({"one": session}, ["good price"] * 7 + ["\u200b"])["one"]
    assert [speed.batch for speed in speeds] == [1]


def test_every_verdict_names_the_machine(small, built, compared):
    for row in compared.engines:
        assert {result.measured_on for result in row.gate.values()} == {processor()}
    found = compare_engines(
        "small", ["topics"], engines=[built["int8"].engine_id], speed=False, store=False, progress=False
    )
    assert found.engines[0].gate["topics"].measured_on == processor()
    assert found.engines[0].gate["topics"].texts_per_s is None


@pytest.mark.parametrize(
    ("flags", "name"),
    [("fpu avx512_vnni avx2", "Xeon 8, vnni"), ("fpu avx_vnni", "Xeon 8, vnni"), ("fpu avx2 avx512f", "Xeon 8")],
)
def test_a_processors_name_says_whether_int8_sums_are_exact(flags, name, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Xeon  8\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert processor(cpuinfo) == name
    assert processor(tmp_path / "none")  # whatever the platform says


def test_another_set_takes_no_fail_back(home, small, built, tmp_path, caplog):
    plan = small / "plans" / built["fp16"].engine_id
    whole = read_manifest(plan)
    own = home / "calibration" / "topics" / "validation.jsonl"
    other = tmp_path / "other.jsonl"
    other.write_text("".join(own.read_text(encoding="utf-8").splitlines(keepends=True)[:40]), encoding="utf-8")
    options = {"engines": [whole.engine_id], "speed": False, "progress": False}
    try:
        first = compare_engines("small", ["topics"], **options).engines[0].gate["topics"]
        failed = replace(first, verdict="fail", delta=-9.0, interval=(-12.0, -6.0)).to_dict()
        write_manifest(plan, replace(whole, gate={"topics": failed}))
        found = compare_engines("small", ["topics"], validation={"topics": other}, **options)
        assert found.engines[0].gate["topics"].n == 40
        assert found.summary().endswith("(on another set)")
        assert accuracy_frame(found)["verdict"].to_list()[0].endswith("(on another set)")
        assert read_manifest(plan).gate["topics"] == failed
        assert "failed topics on the project's own validation set" in caplog.text
        # The project's own set takes it back; and where nothing failed, any set counts, and is told.
        compare_engines("small", ["topics"], **options)
        assert read_manifest(plan).gate["topics"]["verdict"] == first.verdict
        compare_engines("small", ["topics"], validation={"topics": other}, **options)
        assert read_manifest(plan).gate["topics"]["n"] == 40
        [state] = [state for state in list_engines(model="small") if state.engine_id == whole.engine_id]
        assert state.verdicts.endswith("(on another set)")
    finally:
        write_manifest(plan, whole)


def test_a_plan_for_a_gpu_that_is_not_here_is_unmeasured(small):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    manifest = build(small, precision="fp16", runtime="tensorrt-rtx", target="sm_89", progress=False)
    found = compare_engines("small", ["sentiment"], engines=[manifest.engine_id], speed=False)
    assert found.engines[0].gate["sentiment"].verdict == "unmeasured"
    assert re.search(r"tensorrt-rtx|compute capability 8\.9", found.engines[0].reason)
    assert read_manifest(small / "plans" / manifest.engine_id).gate["sentiment"]["verdict"] == "unmeasured"


def test_what_is_not_there_is_told(small, built):
    with pytest.raises(ParameterError, match="No engine of small has an id like 'zzz'"):
        compare_engines("small", engines=["zzz"])
    with pytest.raises(ParameterError, match="gives sentiment, topics, entities, not 'ocr'"):
        compare_engines("small", ["ocr"])


def test_a_search_finds_groups_saves_them_and_the_next_build_repeats_it(small, built):
    found = search("entities", "small", budget=6.0, progress=False)
    assert len(found.sensitivities) == 10
    values = [item.divergence for item in found.sensitivities]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    assert sum(item.work for item in found.sensitivities) == pytest.approx(1)
    assert found.steps[0].keep == ()
    assert [len(step.keep) for step in found.steps] == list(range(len(found.steps)))
    costs = [step.cost for step in found.steps]
    assert costs == sorted(costs)
    assert 0.5 <= costs[0] < 1
    assert found.chosen is found.steps[-1]
    assert found.chosen.result.delta >= -6
    assert all(step.result.delta < -6 for step in found.steps[:-1])
    # The engine that was built answers as the graph that was searched.
    assert found.confirmed.delta == pytest.approx(found.chosen.result.delta, abs=1e-6)
    recipe = read_recipe(small, "entities")
    assert recipe.keep == found.chosen.keep
    assert recipe.engine_id == found.engine_id
    (again,) = build_engines([small], ["mixed"], task="entities", runtime="onnxruntime", progress=False)
    assert again.engine_id == found.engine_id
    assert "<svg" in search_figure(found)
    path = small / "plans" / "recipe-entities.json"
    path.write_text(path.read_text().replace(recipe.model_sha256, "0" * 64))
    with pytest.raises(EngineError, match="found for another model"):
        read_recipe(small, "entities")
    path.write_text("{")
    with pytest.raises(EngineError, match="workbench engines search --task entities"):
        read_recipe(small, "entities")
    path.unlink()
    assert read_recipe(small, "entities") is None


def test_a_search_says_on_what_texts_it_was_judged(home, small, built, tmp_path, monkeypatch):
    found = search("topics", "small", budget=50, progress=False)
    assert not found.held_out
    assert not read_recipe(small, "topics").held_out
    assert "on the texts by which the groups were chosen" in found.summary()
    monkeypatch.setattr("workbench.engine.gate.validation._LEAST_HALF", 20)
    own = shutil.copytree(home / "calibration", tmp_path / "own")
    found = search("topics", "small", budget=50, calibration=own, progress=False)
    recipe = read_recipe(small, "topics")
    assert recipe.calibration == str(own)
    assert found.held_out
    assert recipe.held_out
    assert found.chosen.result.n + found.confirmed.n == 90
    assert (recipe.delta, recipe.verdict) == (found.confirmed.delta, found.confirmed.verdict)
    assert f"judged on {found.confirmed.n} texts by which nothing was chosen" in found.summary()


def test_a_recipe_whose_engine_fails_is_not_kept(home, small, built, tmp_path, monkeypatch):
    """By the one half INT8 is as good as FP32; by the other, which judges, it is not."""
    monkeypatch.setattr("workbench.engine.gate.validation._LEAST_HALF", 10)
    lines = []
    with (
        open_session(small, backend="onnxruntime") as reference,
        open_engine(small / "plans" / built["int8"].engine_id) as engine,
    ):
        whole = read_validation("topics", home / "calibration" / "topics" / "validation.jsonl")
        first, second = whole.halves()
        for texts, agree in ((first, True), (second, False)):
            both = zip(texts.texts, read_answers(reference, texts), read_answers(engine, texts), strict=True)
            lines += [
                {"text": text, "labels": known if (known == other) == agree else ["other"]}
                for text, known, other in both
            ]
    lines = [line for line in lines if line["labels"]]
    path = tmp_path / "uneven.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    options = ["--task", "topics", "--model", "small", "--budget", "1", "--validation", str(path)]
    (small / "plans" / "recipe-topics.json").unlink(missing_ok=True)
    done = CliRunner().invoke(app, ["engines", "search", *options, "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    assert "Not confirmed by the engine" in done.output
    assert "topics is not held within 1 points, so nothing is kept" in done.output
    assert "but not in the engine that was built" in (tmp_path / "search-topics.html").read_text(encoding="utf-8")
    assert read_recipe(small, "topics") is None


def test_a_budget_nothing_holds_is_told(small, built):
    found = search("entities", "small", budget=0.01, strict=True, progress=False)
    assert found.chosen is None
    assert found.recipe is None
    assert len(found.steps) == len(found.sensitivities)
    assert "No choice of groups" in found.summary()


def test_the_commands_write_the_page_and_tell_failure_by_exit_code(home, built, tmp_path):
    run = CliRunner()
    done = run.invoke(
        app, ["engines", "compare", "--model", "small", "--task", "sentiment", "--no-speed", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert "sentiment: inconclusive" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"compare.html", "compare.md", "compare.json"}
    both = run.invoke(app, ["engines", "compare", "--model", "small", "--validation", str(tmp_path / "x.jsonl")])
    assert isinstance(both.exception, ParameterError)
    found = run.invoke(
        app,
        ["engines", "search", "--task", "sentiment", "--model", "small", "--budget", "50", "--out", str(tmp_path)],
    )
    assert found.exit_code == 0, found.output
    assert "Groups kept in FP16: none" in found.output
    assert "<h2>Sensitivity</h2>" in (tmp_path / "search-sentiment.html").read_text()


def test_one_command_builds_judges_and_says_who_reads(home, built):
    words = ["engines", "build", "--model", "small", "--precision", "int8", "--runtime", "onnxruntime", "--compare"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 1), done.output
    assert "INT8 onnxruntime" in done.output
    assert "FP16" not in done.output
    assert "sentiment: the FP32 model of small reads (" in done.output
    assert (home / "reports" / "engines" / "small" / "compare.html").is_file()


def test_a_failing_engine_gives_exit_code_one(home, small, built, tmp_path):
    """A validation set on which FP32 is right and INT8 often is not."""
    texts = read_validation("entities", home / "calibration" / "entities" / "validation.jsonl")
    int8 = small / "plans" / built["int8"].engine_id
    with open_session(small, backend="onnxruntime") as reference, open_engine(int8) as engine:
        both = zip(texts.texts, read_answers(reference, texts), read_answers(engine, texts), strict=True)
        rows = [(text, known) for text, known, other in both if known != other and known]
    assert len(rows) > 10
    path = tmp_path / "hard.jsonl"
    lines = [
        {"text": text, "entities": [{"start": s, "end": e, "label": label} for s, e, label in known]}
        for text, known in rows
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    options = ["--model", "small", "--task", "entities", "--validation", str(path), "--engines", int8.name]
    done = CliRunner().invoke(app, ["engines", "compare", *options, "--no-speed", "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    assert "entities: fail" in done.output
