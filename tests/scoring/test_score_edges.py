"""What people really paste: every text gets a row, and the same one in any company."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import workbench
from workbench.scoring import SCORE_SCHEMA, open_scorer
from workbench.tasks.labels import TASKS

SENTENCE = "the price is good, the phone is bad. "
EDGES = {
    "null": None,
    "empty": "",
    "blank": " \t\r\n\u3000",
    "control": "\x00\x01\x07\x1b\x7f",
    "control inside": "good\x00 \x1b[31mphone\x07",
    "format only": "\u200b\u200d\ufeff\u202e",
    "emoji": "👍",
    "emoji family": "👨\u200d👩\u200d👧\u200d👦",
    "url": "https://shop.example/a?b=1#c",
    "urls": " https://shop.example/good\nwww.shop.example ",
    "url and a word": "https://shop.example/a good",
    "url and Chinese": "https://shop.example/很好",
    "numbers": "12 345,67 %",
    "punctuation": "!!! ??? ...",
    "arabic": "جيد جدا، السعر ممتاز",
    "hebrew": "מוצר טוב מאוד",
    "right to left inside": "good \u202ephone\u202c price",
    "surrogate": "\ud83d",
    "surrogate inside": "good \ud83d phone \udc00",
    "one letter": "a",
    "one character": "好",
    "no spaces": "g" * 5000,
    "marks": "e" + "\u0301" * 300,
    "special tokens": "[CLS] good [SEP] [MASK] [PAD]",
    "markup": "<script>alert('good')</script>",
    "100 kB": SENTENCE * (100_000 // len(SENTENCE)),
    "100 kB Chinese": "质量很好，物流很快。" * 3400,
}
UNREADABLE = {
    "null": "null",
    "empty": "empty",
    "blank": "only spaces and control characters",
    "control": "only spaces and control characters",
    "format only": "only spaces and control characters",
    "emoji": "only emoji: a sentiment, but no topic and no entity",
    "url": "only an address",
    "urls": "only an address",
    "numbers": "no letters",
    "punctuation": "no letters",
    "surrogate": "only spaces and control characters",
}


@pytest.fixture(scope="module")
def scorer(tiny):
    with open_scorer(models=dict.fromkeys(TASKS, tiny)) as opened:
        yield opened


@pytest.fixture(scope="module")
def frame(scorer):
    return scorer.score(list(EDGES.values()))


def test_every_text_gets_a_row_of_the_promised_columns(frame):
    assert frame.schema == SCORE_SCHEMA
    assert len(frame) == len(EDGES)
    assert frame.select("model", "engine_id", "backend", "precision").null_count().row(0) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", EDGES)
def test_a_row_has_scores_or_says_why_not(frame, name):
    row = frame.row(list(EDGES).index(name), named=True)
    if name in UNREADABLE:
        assert row["reason"] == UNREADABLE[name]
        assert row["topics"] is row["entities"] is row["language"] or name == "emoji"
    if row["reason"] is None:
        assert row["sentiment"] in ("negative", "neutral", "positive")
        assert row["p_negative"] + row["p_neutral"] + row["p_positive"] == pytest.approx(1, abs=1e-5)
        assert row["topics"]
        assert row["entities"] is not None
    else:
        assert row["topics"] is None
        assert row["entities"] is None
    assert (row["sentiment"] is None) == (row["p_negative"] is None)
    text = EDGES[name]
    for entity in row["entities"] or ():
        assert text[entity["start"] : entity["end"]].encode("utf-8", "replace").decode() == entity["text"]


def test_the_public_name_says_the_same(tiny, frame):
    texts = [text for text in EDGES.values() if len(text or "") < 10_000]
    again = workbench.score(texts, models=dict.fromkeys(TASKS, tiny))
    assert again.equals(frame[: len(texts)])


@given(st.randoms(use_true_random=False), st.integers(1, 9))
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_same_row_in_any_batch(scorer, frame, random, size):
    order = [place for place, name in enumerate(EDGES) if not name.startswith("100 kB")]
    random.shuffle(order)
    texts = list(EDGES.values())
    parts = [scorer.score([texts[place] for place in order[at : at + size]]) for at in range(0, len(order), size)]
    assert pl.concat(parts).equals(frame[order])


def test_long_texts_among_others_stay_as_they_are(scorer, frame):
    assert scorer.score(list(EDGES.values())[::-1]).equals(frame[::-1])


def test_a_frame_of_edges_can_be_stored(frame, tmp_path):
    for suffix, write, read in (
        ("parquet", frame.write_parquet, pl.read_parquet),
        ("ndjson", frame.write_ndjson, lambda path: pl.read_ndjson(path, schema=SCORE_SCHEMA)),
    ):
        path = tmp_path / f"scores.{suffix}"
        write(path)
        assert read(path)["reason"].to_list() == frame["reason"].to_list()


def test_edges_go_through_a_file(tiny, tmp_path, frame):
    # Half characters cannot stand in a file of UTF-8.
    texts = {name: text for name, text in EDGES.items() if not name.startswith(("surrogate", "100 kB "))}
    pl.DataFrame({"name": list(texts), "text": list(texts.values())}).write_parquet(tmp_path / "in.parquet")
    done = workbench.score_file(
        tmp_path / "in.parquet",
        text_column="text",
        out=tmp_path / "out.parquet",
        models=dict.fromkeys(TASKS, tiny),
        progress=False,
    )
    assert done.rows == len(texts)
    rows = [place for place, name in enumerate(EDGES) if name in texts]
    assert pl.read_parquet(tmp_path / "out.parquet").drop("name", "text").equals(frame[rows])
