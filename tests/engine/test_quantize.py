"""Calibration texts, histograms, ranges and their cache, and the sample from a lake."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.engine.small_encoder import make_small_model
from workbench.cli import app
from workbench.demo import make_demo
from workbench.engine.quantize import (
    METHODS,
    CalibrationSet,
    Ranges,
    check_representative,
    collect_ranges,
    read_calibration,
)
from workbench.engine.quantize.histogram import Histogram
from workbench.engine.quantize.sample import sample_lake, stratum_of
from workbench.errors import CalibrationError, ModelError
from workbench.flow import newest_week
from workbench.ingest import ingest_week
from workbench.tasks.spec import load_spec
from workbench.workspace import load_workspace

BUNDLED = Path(__file__).resolve().parents[2] / "calibration"


@pytest.fixture(scope="module")
def bundled():
    return read_calibration(BUNDLED)


@pytest.fixture(scope="module")
def few(bundled):
    """A small set that is still representative."""
    rows = list(zip(bundled.texts, bundled.strata, bundled.languages, strict=True))
    kept = []
    for language in ("en", "zh"):
        for stratum, count in (("normal", 60), ("boundary", 10), ("abnormal", 10)):
            kept += [row for row in rows if row[1:] == (stratum, language)][:count]
    return CalibrationSet.of(kept)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small_model(tmp_path_factory.mktemp("models") / "small")


def rows_of(data):
    return list(zip(data.texts, data.strata, data.languages, strict=True))


# --- texts ---------------------------------------------------------------------------------------------------------


def test_the_bundled_sets_are_representative(bundled):
    check_representative(bundled)
    assert len(bundled) > 1500
    assert set(bundled.strata) == {"normal", "boundary", "abnormal"}
    for task in ("sentiment", "topics", "entities"):
        check_representative(read_calibration(BUNDLED, [task]))


def test_the_hash_is_of_texts_and_their_order(few):
    rows = rows_of(few)
    assert CalibrationSet.of(rows).sha256 == few.sha256
    assert CalibrationSet.of([*rows, rows[0]]) == few  # the same text twice is one text
    assert CalibrationSet.of(rows[1:]).sha256 != few.sha256
    assert CalibrationSet.of([(rows[0][0] + "!", *rows[0][1:]), *rows[1:]]).sha256 != few.sha256


def without(data, **unwanted):
    keys = {"stratum": 1, "language": 2}
    return CalibrationSet.of(
        [row for row in rows_of(data) if any(row[keys[key]] != value for key, value in unwanted.items())]
    )


def test_what_is_missing_is_named(few):
    check_representative(few)
    with pytest.raises(CalibrationError, match="empty"):
        check_representative(CalibrationSet.of([]))
    with pytest.raises(CalibrationError, match=r"100 different texts; at least 128"):
        check_representative(CalibrationSet.of(rows_of(few)[:100]))
    with pytest.raises(CalibrationError, match="no text in zh"):
        check_representative(without(few, language="zh"))
    with pytest.raises(CalibrationError, match="0 texts of the stratum boundary in en") as error:
        check_representative(without(few, stratum="boundary"))
    assert "stratum boundary in zh" in str(error.value)
    assert "workbench calibration sample" in str(error.value)
    check_representative(without(few, language="zh") if len(without(few, language="zh")) >= 128 else few)


def test_one_text_many_times_is_one_text():
    with pytest.raises(CalibrationError, match="1 different texts"):
        check_representative(CalibrationSet.of([("The same good words.", "normal", "en")] * 500))


def test_random_texts_are_refused(few):
    source = random.Random(5)  # noqa: S311 - random texts are what is wanted
    others = [row for row in rows_of(few) if row[1] != "normal"]

    def letters():
        words = ("".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(15))
        return " ".join(words)

    def characters():
        return "".join(chr(source.randint(0x4E00, 0x9FA5)) for _ in range(30))

    drawn = [(letters(), "normal", "en") for _ in range(100)] + [(characters(), "normal", "zh") for _ in range(100)]
    with pytest.raises(CalibrationError, match="look random") as error:
        check_representative(CalibrationSet.of([*drawn, *others]))
    assert str(error.value).count("look random") == 2
    # Words that exist, drawn from a list without regard to how common they are.
    words = sorted({word for text in few.texts for word in text.split() if word.isascii() and word.isalpha()})
    drawn = [(" ".join(source.choices(words, k=15)), "normal", "en") for _ in range(150)]
    with pytest.raises(CalibrationError, match="normal texts in en look random"):
        check_representative(CalibrationSet.of([*drawn, *others]), languages=["en"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("[]", "line 2 needs text, stratum and language"),
        ('{"text": "", "stratum": "normal", "language": "en"}', "line 2 needs"),
        ('{"text": "x", "stratum": "odd", "language": "en"}', "no stratum is named 'odd'"),
    ],
)
def test_wrong_lines_are_named(line, message, tmp_path):
    good = '{"text": "fine", "stratum": "normal", "language": "en"}'
    (tmp_path / "calibration.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match=message):
        read_calibration(tmp_path)
    with pytest.raises(CalibrationError, match="is missing"):
        read_calibration(tmp_path / "nowhere")
    with pytest.raises(CalibrationError, match="No task is named"):
        read_calibration(tmp_path, ["mood"])


# --- histograms ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
)
def test_ranges_stay_within_what_was_seen(first, second):
    histogram, other_way = Histogram(), Histogram()
    for one, values in ((histogram, (first, second)), (other_way, (second, first))):
        for part in values:
            assert one.add(np.array(part, np.float32))
    largest = float(np.abs(np.array([*first, *second], np.float32)).max())
    assert histogram.counts.sum() == len(first) + len(second)
    for method in METHODS:
        assert 0 <= histogram.amax(method) <= largest
    assert histogram.amax("minmax") == other_way.amax("minmax") == largest
    assert histogram.limit == other_way.limit


def test_percentiles_are_those_of_numpy():
    values = np.random.default_rng(1).standard_normal(200_000).astype(np.float32)
    histogram = Histogram()
    for part in np.array_split(values, 7):
        histogram.add(part)
    for percent in (99.9, 99.99):
        expected = float(np.percentile(np.abs(values), percent))
        # A seventh of the values is counted: 28,500, of which 3 lie beyond 99.99 %.
        assert histogram.amax(f"percentile-{percent}") == pytest.approx(
            expected, rel=0.02 if percent < 99.95 else 0.12
        )


@pytest.mark.parametrize("shape", [(1000, 448), (10, 100, 448), (1000, 77)])
def test_no_channel_is_left_out(shape):
    values = np.zeros(shape, np.float32)
    values[..., 1] = 1
    histogram = Histogram()
    histogram.add(values)
    assert histogram.amax("percentile-99.9") == pytest.approx(1, rel=0.01)


def test_tokens_are_no_channels():
    """A key's last axis are the tokens of a text: what was collected of it stays as it is."""
    for shape in ((10, 256), (2, 4, 64, 21)):
        histogram = Histogram()
        histogram.add(np.ones(shape, np.float32))
        assert histogram.counts.sum() == -(-np.prod(shape) // 7)


def test_one_outlier_moves_minmax_alone():
    values = np.random.default_rng(2).standard_normal(100_001).astype(np.float32)
    plain, spoilt = Histogram(), Histogram()
    plain.add(values)
    spoilt.add(values)
    spoilt.add(np.array([100.0], np.float32))
    assert spoilt.amax("minmax") == 100
    for method in ("entropy", "percentile-99.9"):
        assert spoilt.amax(method) < 1.5 * plain.amax(method) < 12


def test_entropy_keeps_an_even_distribution_whole():
    histogram = Histogram()
    histogram.add(np.linspace(-4, 4, 500_000, dtype=np.float32))
    assert histogram.amax("entropy") > 3.8


def test_what_is_not_finite_is_not_counted():
    histogram = Histogram()
    for value in (np.nan, np.inf, -np.inf):
        assert not histogram.add(np.array([1, value], np.float32))
    assert histogram.counts.sum() == 0
    assert histogram.add(np.zeros(5, np.float32))
    assert histogram.amax("entropy") == histogram.amax("minmax") == 0


# --- ranges --------------------------------------------------------------------------------------------------------


def test_ranges_are_collected_once_for_all_methods(small, few, tmp_path, monkeypatch):
    ranges = collect_ranges(small, few, method="minmax", cache=tmp_path)
    assert ranges.n == len(few)
    assert ranges.data_sha256 == few.sha256
    assert all(value > 0 for value in ranges.amax.values())
    assert not any("shares" in name for name in ranges.amax)  # a softmax's range is known
    (path,) = tmp_path.glob("ranges-*.json")

    def must_not_run(*_):
        raise AssertionError("the model was read again")

    monkeypatch.setattr("workbench.engine.quantize.ranges._session", must_not_run)
    assert collect_ranges(small, few, method="minmax", cache=tmp_path) == ranges
    for method in METHODS:
        other = collect_ranges(small, few, method=method, cache=tmp_path)
        assert other.method == method
        assert all(0 < other.amax[name] <= ranges.amax[name] for name in ranges.amax)
    monkeypatch.undo()
    path.write_text("[{]")
    again = collect_ranges(small, few, method="minmax", cache=tmp_path)
    assert again == ranges
    assert (ranges.cached, again.cached) == (False, False)
    assert collect_ranges(small, few, method="minmax", cache=tmp_path).cached
    # Ranges of another version of the workbench, which quantized fewer tensors.
    kept = json.loads(path.read_text(encoding="utf-8"))
    for item in kept:
        item["amax"].popitem()
    path.write_text(json.dumps(kept), encoding="utf-8")
    again = collect_ranges(small, few, method="minmax", cache=tmp_path)
    assert (again, again.cached) == (ranges, False)


def test_other_texts_or_weights_are_read_anew(small, few, tmp_path):
    collect_ranges(small, few, cache=tmp_path)
    collect_ranges(small, CalibrationSet.of(rows_of(few)[1:]), cache=tmp_path)
    other = make_small_model(tmp_path / "other", seed=5)
    collect_ranges(other, few, cache=tmp_path)
    assert len(list(tmp_path.glob("ranges-*.json"))) == 3


def test_ranges_go_through_json(small, few):
    ranges = collect_ranges(small, few)
    again = Ranges.from_json(ranges.to_json())
    assert again == ranges
    assert again.sha256 == ranges.sha256
    data = json.loads(ranges.to_json())
    for spoil in ({"method": "guess"}, {"amax": {"x": -1}}, {"amax": None}):
        with pytest.raises(CalibrationError, match="no ranges"):
            Ranges.from_json(json.dumps({**data, **spoil}))
    with pytest.raises(CalibrationError, match="no ranges"):
        Ranges.from_json("{")


def test_collecting_refuses(small, few, tmp_path):
    with pytest.raises(CalibrationError, match="No calibration method"):
        collect_ranges(small, few, method="guess")
    with pytest.raises(CalibrationError, match="at least 128"):
        collect_ranges(small, CalibrationSet.of(rows_of(few)[:20]), cache=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelError, match="is not a folder"):
        collect_ranges(tmp_path / "nowhere", few)


# --- a sample from a lake ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stratum"),
    [
        ("The screen is sharp and the pen writes like a pen on paper.", "normal"),
        ("屏幕很清晰，写字的感觉和纸差不多，就是价格有点高。", "normal"),
        ("Good", "boundary"),
        ("很好", "boundary"),
        ("Love it 😍 would buy this again for my sister", "boundary"),
        ("WORST TABLET I HAVE EVER BOUGHT IN MY LIFE", "boundary"),
        ("2024-11-02 4821 99.90 31 1180 7 and 12 of 5500", "boundary"),
        ("这个 tablet 的 battery 很不错，writing experience 也很好 overall", "boundary"),
        ("word " * 400, "boundary"),
        ("<p>The screen is sharp</p> and the pen writes", "abnormal"),
        ("The screen &amp; the pen are both very good", "abnormal"),
        ("aaaaaaaaaaaaaaaaaaa this is good good good", "abnormal"),
        ("The pen isn\ufffdt what I had hoped for at all", "abnormal"),
        ("--- *** ---", "abnormal"),
    ],
)
def test_strata_are_told_apart(text, stratum):
    assert stratum_of(text) == stratum


def test_bundled_normal_texts_are_normal(bundled):
    normal = [text for text, stratum in zip(bundled.texts, bundled.strata, strict=True) if stratum == "normal"]
    assert np.mean([stratum_of(text) == "normal" for text in normal]) > 0.97


def test_a_sample_of_a_lake(tmp_path):
    workspace = load_workspace(make_demo(tmp_path / "demo"))
    ingest_week(workspace, newest_week(workspace), progress=False)
    sample = sample_lake(workspace, tmp_path / "out", 200)
    assert sample.counts["en", "normal"] >= 20
    assert sample.counts["zh", "normal"] >= 5
    data = read_calibration(tmp_path / "out", ["sentiment"])
    assert len(data) == sum(sample.counts.values())
    assert sample.missing is not None  # a demo has too little for engines, and the result says what
    assert "abnormal" in sample.missing
    assert sample.summary().endswith("build with the bundled set: workbench engines build --all --precision int8")
    whole = replace(sample, missing=None)
    assert whole.summary().endswith(f"engines build --all --precision int8 --calibration {tmp_path / 'out'}")
    first = sample.path.read_bytes()
    assert sample_lake(workspace, tmp_path / "again", 200).path.read_bytes() == first
    shown = CliRunner().invoke(app, ["calibration", "sample", "-w", str(workspace.root), "--texts", "200"])
    assert shown.exit_code == 0, shown.output
    assert "calibration.jsonl" in shown.output
    assert (workspace.root / "calibration" / "calibration.jsonl").read_bytes() == first


def test_an_empty_lake_is_named(tmp_path):
    workspace = load_workspace(make_demo(tmp_path / "demo"))
    with pytest.raises(CalibrationError, match="workbench weekly"):
        sample_lake(workspace, tmp_path / "out")


def test_a_build_reads_and_tokenizes_its_texts_once(small, few, tmp_path, monkeypatch):
    from workbench.engine import quantize
    from workbench.engine.build import build
    from workbench.tasks.encode import TextEncoder

    calls = []

    def count(owner, name):
        inner = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: calls.append(name) or inner(*args, **options))

    count(quantize, "read_calibration")
    count(TextEncoder, "encode")
    calibration = write_calibration(tmp_path / "calibration", few)
    for force in (False, True):
        made = build(
            small, precision="int8", runtime="onnxruntime", calibration=calibration, force=force, progress=False
        )
        assert sorted(calls) == ["encode", "read_calibration"]
        assert made.cached == force
        calls.clear()
    for path in (small / "plans" / "cache").glob("ranges-*.json"):
        path.write_text("[{]", encoding="utf-8")
    again = build(small, precision="int8", runtime="onnxruntime", calibration=calibration, force=True, progress=False)
    assert not again.cached
    assert again.engine_id == made.engine_id


def write_calibration(folder, data):
    folder.mkdir()
    rows = (
        json.dumps({"text": text, "stratum": stratum, "language": language}, ensure_ascii=False)
        for text, stratum, language in rows_of(data)
    )
    (folder / "calibration.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_a_packed_graph_has_ranges_of_its_own(small, few, tmp_path, monkeypatch):
    from workbench.engine.build.graph import convert
    from workbench.engine.graphs import packed

    calibration = write_calibration(tmp_path / "calibration", few)
    spec, cache = load_spec(small), tmp_path / "cache"
    how = {"precision": "int8", "form": "ort", "cache": cache, "calibration": calibration}
    with pytest.raises(ModelError, match="cannot be packed"):
        convert(spec, layout="packed", **how)
    assert not cache.exists()  # refused before any text is read
    for name, value in {"HEAD_SIZES": (16,), "INT8_WIDTHS": (32,), "INT8_HEAD_SIZE": 16}.items():
        monkeypatch.setattr(packed, name, value)
    first = convert(spec, layout="packed", **how)
    assert not first.cached
    assert convert(spec, layout="packed", **how).cached
    padded = convert(spec, layout="padded", **how)
    assert not padded.cached
    assert first.calibration["n"] == padded.calibration["n"] == len(few)
    assert first.calibration["ranges_sha256"] != padded.calibration["ranges_sha256"]
    tensors = packed.packed_tensors(onnx.load(str(spec.onnx)))
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in cache.glob("ranges-packed-*.json")]
    assert [set(item["amax"]) for item in kept[0]] == [set(tensors)] * len(kept[0])
