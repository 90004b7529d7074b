from contextlib import closing

import polars as pl
import pytest

from tests.runtime.tiny_model import TOML, make_tiny_model
from workbench.errors import ModelError, ParameterError
from workbench.runtime import open_session, read
from workbench.runtime.workers import Encoders
from workbench.scoring import SCORE_SCHEMA, open_scorer, score, score_columns
from workbench.scoring.api import Scorer
from workbench.tasks.labels import TASKS

TEXTS = ["good price DHP486", None, "", "质量很好", "\ud800 bad", "👽"]


@pytest.fixture
def models(tiny):
    return dict.fromkeys(TASKS, tiny)


def test_the_frame_is_as_promised(models):
    frame = score(TEXTS, models=models)
    assert frame.schema == SCORE_SCHEMA
    assert list(frame.schema) == [
        *("sentiment", "p_negative", "p_neutral", "p_positive", "topics", "entities"),
        *("language", "reason", "model", "engine_id", "backend", "precision"),
    ]
    assert frame["reason"].to_list() == [None, "null", "empty", None, None, "emoji the model does not know"]
    assert frame["sentiment"].is_null().to_list() == [False, True, True, False, False, True]
    assert frame["p_negative"].is_nan().sum() == 0
    sums = frame.select(pl.sum_horizontal("p_negative", "p_neutral", "p_positive", ignore_nulls=False)).to_series()
    assert sums.drop_nulls().to_list() == pytest.approx([1, 1, 1], abs=1e-5)
    assert frame["model"].unique().to_list() == ["tiny 1"]
    assert frame["backend"].unique().to_list() == ["onnxruntime"]
    assert frame["precision"].unique().to_list() == ["fp32"]
    assert frame["language"].to_list() == ["en", None, None, "zh", "en", None]


def test_entities_are_code_points_of_the_text(models):
    texts = ["👍👍 墨舒 DHP486 很好", "Cafe\u0301 ﬁne DHP486", "ＡＢＣ１２ good"]
    frame = score(texts, tasks=["entities"], models=models)
    found = 0
    for text, entities in zip(texts, frame["entities"].to_list(), strict=True):
        for entity in entities:
            assert text[entity["start"] : entity["end"]] == entity["text"]
            found += 1
    assert found


def test_columns_of_tasks_not_asked_for_are_left_out(models):
    frame = score(["good"], tasks=("topics",), models=models)
    assert frame.schema == score_columns(["topics"])
    assert "sentiment" not in frame.columns


def test_no_texts_and_a_series(models):
    assert score([], models=models).schema == SCORE_SCHEMA
    series = score(pl.Series(["good", None]), models=models)
    assert series["reason"].to_list() == [None, "null"]
    assert score([float("nan")], models=models)["reason"].to_list() == ["null"]


def test_several_models_are_named_together(tiny, tmp_path):
    other = make_tiny_model(tmp_path / "other", toml=TOML.replace('"tiny"', '"second"'), seed=3)
    frame = score(["good", None], models={"sentiment": other, "topics": tiny, "entities": tiny})
    assert frame["model"].to_list() == ["second 1+tiny 1"] * 2
    assert frame["backend"].to_list() == ["onnxruntime"] * 2
    assert [len(part) for part in frame["engine_id"][0].split("+")] == [16, 16]
    assert frame["reason"].to_list() == [None, "null"]
    alone = score(["good"], tasks=["sentiment"], models={"sentiment": other})
    assert frame["p_negative"][0] == pytest.approx(alone["p_negative"][0], abs=1e-6)


def test_models_are_loaded_once_for_many_calls(models):
    with open_scorer(models=models) as scorer:
        assert len(scorer.sessions) == 1
        assert scorer.schema == SCORE_SCHEMA
        assert scorer.score(["good"]).equals(scorer.score(["good"]))
        session = scorer.sessions[0]
    with pytest.raises(ModelError, match="is closed"):
        scorer.score(["good"])
    session.close()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a"], {"tasks": ["mood"]}, "No task is named 'mood'"),
        (["a"], {"tasks": []}, "No task was named"),
        (["a"], {"models": {"mood": "x"}}, "models names 'mood'"),
        ("a", {}, r"Put it into a list"),
        (["a", 7], {}, r"Text 1 is 7 \(int\), not a text"),
    ],
)
def test_mistakes(texts, options, message, models):
    with pytest.raises(ParameterError, match=message):
        score(texts, **{"models": models, **options})


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        score(["a"], models=dict.fromkeys(TASKS, tmp_path / "none"))


def test_two_models_over_many_chunks_keep_rows_together(tiny, tmp_path, monkeypatch, capsys):
    other = make_tiny_model(tmp_path / "other", toml=TOML.replace('"tiny"', '"second"'), seed=3)
    texts = [None if n % 7 == 0 else "👽" if n % 5 == 0 else f"good price {n} 质量" for n in range(40)]
    mixed = {"sentiment": other, "topics": tiny, "entities": tiny}
    whole = score(texts, models=mixed)
    monkeypatch.setattr(read, "_CHUNK_TEXTS", 3)
    parts = score(texts, models=mixed, progress=True)
    assert parts.equals(whole)
    assert "40/40" in capsys.readouterr().err
    own = ["sentiment", "p_negative", "p_neutral", "p_positive"]
    assert parts.select(own).equals(score(texts, tasks=["sentiment"], models={"sentiment": other}).select(own))
    own = ["topics", "entities"]
    assert parts.select(own).equals(score(texts, tasks=own, models=mixed).select(own))


def test_sessions_of_one_model_share_what_tokenizes(tiny):
    with open_session(tiny) as one, open_session(tiny) as two:
        scorer = Scorer({one: ("sentiment",), two: ("topics", "entities")})
        frame = scorer.score(TEXTS)
        assert len(scorer._encoders) == 1
        scorer.close()
    origin = ["model", "engine_id"]
    assert frame.drop(origin).equals(score(TEXTS, models=dict.fromkeys(TASKS, tiny)).drop(origin))


def test_what_tokenizes_can_be_kept_from_scorer_to_scorer(tiny):
    texts = [f"good price {number} 质量" for number in range(1500)]
    with open_session(tiny) as one, open_session(tiny) as two:
        with closing(Scorer({one: TASKS})) as scorer:
            alone = scorer.score(texts)
        with Encoders(one.encoder, workers=2) as kept:
            kept.expect(10**6)
            for turn in range(1, 3):
                # The other session is of the same model: it has the same processes.
                with closing(Scorer({one: ("sentiment",), two: TASKS[1:]}, encoders={one: kept})) as scorer:
                    frame = scorer.score(texts)
                    assert not scorer._encoders, "it started processes of its own"
                assert frame.drop("model", "engine_id").equals(alone.drop("model", "engine_id"))
                assert kept._seen == turn * 2 * len(texts)
            assert kept.submit(["good"], offsets=False).result().rows.tolist() == [0], "it was closed"


def test_a_scorer_says_how_many_chunks_can_be_tokenized_at_once(tiny, tmp_path, monkeypatch):
    other = make_tiny_model(tmp_path / "other", toml=TOML.replace('"tiny"', '"second"'), seed=3)
    with (
        open_session(tiny) as one,
        open_session(other) as two,
        Encoders(one.encoder, workers=3) as three,
        closing(Scorer({one: ("topics",), two: ("sentiment",)}, encoders={one: three})) as both,
        closing(Scorer({two: ("sentiment",)})) as alone,
    ):
        assert both.workers == 3
        assert alone.workers == 0, "on a CPU this process does it all"
        # The list is cut for those of which there are most.
        own, sizes = Scorer.score_chunks, []

        def seen(scorer, chunks, **options):
            return own(scorer, (sizes.append(len(chunk)) or chunk for chunk in chunks), **options)

        monkeypatch.setattr(Scorer, "score_chunks", seen)
        for scorer in (both, alone):
            scorer.score(["good price"] * 2560)
        assert sizes == [640] * 4 + [2560]


def test_a_session_that_no_processes_were_given_for_has_its_own(tiny, tmp_path):
    other = make_tiny_model(tmp_path / "other", toml=TOML.replace('"tiny"', '"second"'), seed=3)
    with open_session(tiny) as one, open_session(other) as two, Encoders(one.encoder) as kept:
        with closing(Scorer({one: ("topics",), two: ("sentiment",)}, encoders={one: kept})) as scorer:
            frame = pl.concat(scorer.score_chunks([["good price"], [None]]))
            (own,) = scorer._encoders.values()
            assert own._seen == kept._seen == 2
        with pytest.raises(RuntimeError, match="shutdown"):
            own.submit(["good"], offsets=False)
        assert kept.submit(["good"], offsets=False).result().rows.tolist() == [0]
    assert frame["model"].to_list() == ["tiny 1+second 1"] * 2
