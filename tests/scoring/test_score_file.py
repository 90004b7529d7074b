import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from workbench.errors import ModelError, ParameterError
from workbench.runtime import open_session
from workbench.runtime.workers import Encoders
from workbench.scoring import SCORE_SCHEMA, files, score, score_file
from workbench.scoring.api import Scorer
from workbench.tasks.labels import TASKS

ROWS = {
    "id": ["007", "8", "9", "10"],
    "comment": ["good price,\nDHP486", None, "质量很好", "  "],
    "stars": ["5", "1", None, "3"],
}


@pytest.fixture
def models(tiny):
    return dict.fromkeys(TASKS, tiny)


@pytest.fixture
def run(models):
    def call(source, out, **options):
        options = {"text_column": "comment", "models": models, "progress": False, **options}
        return score_file(source, out=out, **options)

    return call


@pytest.fixture
def sources(tmp_path):
    frame = pl.DataFrame(ROWS)
    frame.write_csv(tmp_path / "in.csv")
    frame.write_ndjson(tmp_path / "in.jsonl")
    frame.write_parquet(tmp_path / "in.parquet")
    return tmp_path


def load(path):
    if path.suffix == ".csv":
        return pl.read_csv(path, infer_schema=False)
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path, infer_schema_length=None)


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl", "in.parquet"])
@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
def test_every_format_to_every_format(sources, source, out, run, models):
    done = run(sources / source, sources / out)
    assert (done.rows, done.unread, done.models) == (4, 2, ("tiny 1",))
    assert done.summary() == f"4 rows, 2 of them with a reason instead of scores, read by tiny 1: {sources / out}"
    found = load(sources / out)
    assert found.columns == [*ROWS, *SCORE_SCHEMA]
    assert found.select(list(ROWS)).to_dict(as_series=False) == ROWS
    expected = score(ROWS["comment"], models=models)
    assert found["sentiment"].to_list() == expected["sentiment"].to_list()
    assert found["reason"].to_list() == expected["reason"].to_list()
    assert [float(p) for p in found["p_positive"].drop_nulls()] == pytest.approx(
        expected["p_positive"].drop_nulls().to_list(), abs=1e-6
    )
    topics, entities = found["topics"].to_list(), found["entities"].to_list()
    if out == "out.csv":
        topics = [value and json.loads(value) for value in topics]
        entities = [value and json.loads(value) for value in entities]
    assert topics == expected["topics"].to_list()
    assert entities == expected["entities"].to_list()
    if out == "out.parquet":
        assert found.schema == {**dict.fromkeys(ROWS, pl.String), **SCORE_SCHEMA}
    assert sorted(path.name for path in sources.iterdir()) == sorted(["in.csv", "in.jsonl", "in.parquet", out])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_keep_their_order_over_chunks(tmp_path, suffix, run, monkeypatch, capsys):
    monkeypatch.setattr(files, "_CHUNK_ROWS", 7)
    count = 100
    pl.DataFrame({"n": range(count), "comment": [f"good {n % 13}" for n in range(count)]}).write_parquet(
        tmp_path / "in.parquet"
    )
    out = tmp_path / f"out{suffix}"
    assert run(tmp_path / "in.parquet", out, tasks=["sentiment"], progress=True).rows == count
    assert [int(n) for n in load(out)["n"]] == list(range(count))
    assert "100/100" in capsys.readouterr().err


def test_the_first_chunks_are_small_where_several_processes_tokenize(tmp_path, tiny, run):
    sizes = []

    class Seen(Scorer):
        def score_chunks(self, chunks, **options):
            sizes.clear()
            return super().score_chunks((sizes.append(len(chunk)) or chunk for chunk in chunks), **options)

    frame = pl.DataFrame({"comment": [f"good price {n % 997}" for n in range(12_000)]})
    frame.write_parquet(tmp_path / "in.parquet")
    for workers, cut in ((0, [4096, 4096, 3808]), (7, [683] * 5 + [681] + [683] * 5 + [681, 3808])):
        with (
            open_session(tiny) as session,
            Encoders(session.encoder, workers=workers) as kept,
            contextlib.closing(Seen({session: ("sentiment",)}, encoders={session: kept})) as scorer,
        ):
            assert scorer.workers == workers
            run(tmp_path / "in.parquet", tmp_path / f"out{workers}.parquet", scorer=scorer)
            assert kept._seen == len(frame)
        assert sizes == cut
    assert load(tmp_path / "out0.parquet").equals(load(tmp_path / "out7.parquet"))


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
def test_a_file_without_rows(tmp_path, out, run):
    (tmp_path / "in.csv").write_text("id,comment\n")
    assert run(tmp_path / "in.csv", tmp_path / out).rows == 0
    if out != "out.jsonl":
        assert load(tmp_path / out).columns == ["id", "comment", *SCORE_SCHEMA]


def test_lines_with_different_keys_and_nested_values(tmp_path, run):
    lines = [{"comment": "good"}, {"comment": "bad", "tags": ["a", "b"], "who": {"name": "x"}}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", tasks=["sentiment"])
    back = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert back[0]["tags"] is None
    assert back[1]["tags"] == ["a", "b"]
    assert back[1]["who"] == {"name": "x"}
    run(tmp_path / "in.jsonl", tmp_path / "out.csv", tasks=["sentiment"])
    assert json.loads(load(tmp_path / "out.csv")["who"][1]) == {"name": "x"}


def test_a_prefix_for_columns_that_are_there_already(sources, run):
    run(sources / "in.csv", sources / "once.csv")
    with pytest.raises(ParameterError, match=r"has a column 'sentiment' already.*--prefix"):
        run(sources / "once.csv", sources / "twice.csv")
    run(sources / "once.csv", sources / "twice.csv", prefix="new_")
    assert [name for name in load(sources / "twice.csv").columns if name.startswith("new_")] == [
        f"new_{name}" for name in SCORE_SCHEMA
    ]


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("in.csv", "out.csv", {"text_column": "text"}, r"no column 'text'. Its columns: id, comment, stars"),
        ("in.xlsx", "out.csv", {}, r"Cannot read .*in\.xlsx: its name must end in one of \.csv"),
        ("in.csv", "out.txt", {}, r"Cannot write .*out\.txt"),
        ("gone.csv", "out.csv", {}, r"No file .*gone\.csv"),
        ("in.csv", "in.csv", {}, r"is the file that is read"),
        ("in.csv", "out.csv", {"tasks": ["mood"]}, r"No task is named 'mood'"),
        ("numbers.parquet", "out.csv", {}, r"Column 'comment' of .* holds Int64, not text"),
        ("broken.parquet", "out.csv", {}, r"broken\.parquet cannot be read"),
        ("latin.csv", "out.csv", {}, r"latin\.csv cannot be read: .*Save it as UTF-8"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(sources, source, out, options, message, run):
    (sources / "in.xlsx").write_bytes(b"")
    (sources / "broken.parquet").write_bytes(b"PAR1 and no more")
    (sources / "latin.csv").write_bytes("id,comment\n1,caf\xe9\n".encode("latin-1"))
    pl.DataFrame({"comment": [1, 2]}).write_parquet(sources / "numbers.parquet")
    before = {path.name: path.read_bytes() for path in sources.iterdir()}
    with pytest.raises(ParameterError, match=message):
        run(sources / source, sources / out, **options)
    assert {path.name: path.read_bytes() for path in sources.iterdir()} == before


def test_a_run_that_fails_leaves_the_old_file(sources, tmp_path, run):
    (sources / "out.csv").write_text("old")
    with pytest.raises(ModelError):
        run(sources / "in.csv", sources / "out.csv", models=dict.fromkeys(TASKS, tmp_path / "none"))
    assert (sources / "out.csv").read_text() == "old"


def test_what_is_read_is_what_score_says_over_many_chunks(tmp_path, run, models, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK_ROWS", 40)
    monkeypatch.setattr(files, "_GROUP_ROWS", 64)
    texts = [
        None if n % 11 == 0 else "bad " * 90 if n % 50 == 1 else "👍" if n % 13 == 0 else f"好 price {n}"
        for n in range(300)
    ]
    pl.DataFrame({"n": range(300), "comment": texts}).write_parquet(tmp_path / "in.parquet")
    done = run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found["n"].to_list() == list(range(300))
    assert found.drop("n", "comment").equals(score(texts, models=models))
    assert (done.rows, done.unread) == (300, found["reason"].count())


def test_one_thread_of_polars_is_enough(tmp_path, models):
    pl.DataFrame({"comment": [f"good {n}" for n in range(20_000)]}).write_parquet(tmp_path / "in.parquet")
    code = f"""
from workbench.scoring import files
files._CHUNK_ROWS = 500
done = files.score_file({str(tmp_path / "in.parquet")!r}, text_column="comment", tasks=["sentiment"],
    out={str(tmp_path / "out.parquet")!r}, models={{"sentiment": {str(models["sentiment"])!r}}}, progress=False)
print(done.rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "20000", done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_disk_that_is_full_is_told(tmp_path, run, monkeypatch, suffix):
    @contextlib.contextmanager
    def full(path):
        with Path("/dev/full").open("wb", buffering=0) as stream:
            yield stream

    monkeypatch.setattr(files, "atomic_write", full)
    monkeypatch.setattr(files, "_CHUNK_ROWS", 100)
    pl.DataFrame({"comment": [f"good {n}" for n in range(3000)]}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(ParameterError, match=r"out\.\w+ cannot be written: .*[Nn]o space left.*Make room"):
        run(tmp_path / "in.parquet", tmp_path / f"out{suffix}", tasks=["sentiment"])
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("write", "read"))]
