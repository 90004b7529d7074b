from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from workbench.errors import ModelError
from workbench.tasks.encode import (
    _BLANKS,
    OVERLAP,
    REASONS,
    TextEncoder,
    _boundary_ranks,
    reason_not_readable,
)
from workbench.tasks.language import LANGUAGES, detect_language
from workbench.tasks.spec import load_spec

ANY_TEXT = st.text(st.characters(), max_size=200)  # lone surrogates and control characters included


@pytest.fixture(scope="module")
def encoder(tiny_module):
    return TextEncoder(load_spec(tiny_module))


@pytest.fixture(scope="module")
def tiny_module(tiny):
    return tiny


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "null"),
        ("", "empty"),
        (" \t\n\u3000", "only spaces and control characters"),
        ("\x00\x01\x1b", "only spaces and control characters"),
        ("\u200b\u2060\ufeff", "only spaces and control characters"),
        ("\ud800", "only spaces and control characters"),
        ("!!! ...", "no letters"),
        ("12345", "no letters"),
        ("12 👍", "no letters"),
        ("👍", "only emoji"),
        ("👨‍👩‍👧 ❤️", "only emoji"),
        ("a", None),
        ("好", None),
        ("👍 ok", None),
        ("مرحبا", None),
    ],
)
def test_why_a_text_is_not_read(text, reason):
    assert reason_not_readable(text) == reason


def test_marks_are_kept_apart(encoder):
    assert (encoder.prefix, encoder.suffix) == ((2,), (3,))
    (item,) = encoder.encode(["good price"], offsets=True)
    assert not {2, 3} & set(item.ids.tolist())
    assert item.offsets.tolist() == [[0, 4], [5, 10]]
    assert item.windows == ((0, 2),)


def test_special_tokens_in_a_text_are_what_somebody_wrote(encoder):
    (item,) = encoder.encode(["[SEP] [CLS] [MASK] [PAD]"], offsets=True)
    assert not {0, 2, 3, 4} & set(item.ids.tolist())


def test_unknown_words_are_told(encoder):
    known, unknown = encoder.encode(["good ภาษาไทย", "ภาษาไทย"], offsets=False)
    assert encoder.knows(known)
    assert not encoder.knows(unknown)


def test_a_broken_tokenizer_is_named(tiny, tmp_path):
    for name in ("model.onnx", "model.toml"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        TextEncoder(load_spec(tmp_path))


@given(ANY_TEXT)
@settings(max_examples=150, deadline=None)
def test_offsets_point_into_the_text(encoder, text):
    (item,) = encoder.encode([text], offsets=True)
    assert item.offsets.shape == (len(item.ids), 2)
    assert np.all(item.offsets >= 0)
    assert np.all(item.offsets[:, 1] <= len(text))
    assert np.all(item.offsets[:, 0] <= item.offsets[:, 1])
    assert np.all(np.diff(item.offsets[:, 0]) >= 0)


@given(st.lists(ANY_TEXT, max_size=8))
@settings(max_examples=60, deadline=None)
def test_with_and_without_offsets_the_tokens_are_the_same(encoder, texts):
    for slow, fast in zip(encoder.encode(texts, offsets=True), encoder.encode(texts, offsets=False), strict=True):
        assert slow.ids.tolist() == fast.ids.tolist()
        assert slow.windows == fast.windows


@given(st.lists(st.sampled_from(["good", "bad.", "the", "price,", "很好。", "质量", "x" * 30]), max_size=300))
@settings(max_examples=80, deadline=None)
def test_windows_cover_a_long_text_and_overlap(encoder, words):
    (item,) = encoder.encode([" ".join(words)], offsets=False)
    capacity = encoder.spec.max_tokens - 2
    assert item.windows[0][0] == 0
    assert item.windows[-1][1] == len(item.ids)
    assert all(end - start <= capacity for start, end in item.windows)
    for (start, end), (next_start, next_end) in zip(item.windows, item.windows[1:], strict=False):
        assert start < next_start < end < next_end
        assert end - next_start <= OVERLAP


def test_windows_end_after_a_sentence_where_there_is_one(encoder):
    sentence = "the price is good and the rest is bad ."
    (item,) = encoder.encode([" ".join([sentence] * 12)], offsets=True)
    count = len(encoder.encode([sentence], offsets=False)[0].ids)
    assert len(item.windows) > 1
    assert all(end % count == 0 for _, end in item.windows)


SAID = st.sampled_from(["good", "bad.", "price,", "很好。", "质量", "👍", "ภาษาไทย", "(x)", "é", "x" * 30])
SOME = st.lists(st.one_of(st.none(), ANY_TEXT, st.lists(SAID, max_size=200).map(" ".join)), max_size=8)


@given(SOME, st.booleans())
@settings(max_examples=80, deadline=None)
def test_columns_say_what_each_text_says_by_itself(encoder, texts, twice):
    texts = texts * (1 + twice)
    columns = encoder.encode_columns(texts, offsets=True)
    plain = encoder.encode_columns(texts, offsets=False)
    assert plain.tokens is None
    for name in ("rows", "reasons", "languages", "first", "input_ids", "cu_seqlens", "first_window"):
        assert getattr(plain, name).tolist() == getattr(columns, name).tolist()
    assert len(columns) == len(texts)
    seen = {}
    for text, row, reason, language in zip(texts, columns.rows, columns.reasons, columns.languages, strict=True):
        why = reason_not_readable(text)
        (item,) = encoder.encode([text or ""], offsets=True)
        if why is None or why == "only emoji":
            assert (row >= 0) == encoder.knows(item)
        else:
            assert row < 0
            assert REASONS[reason] == why
        assert (language < 0) == (row < 0 or detect_language(text) is None)
        if row < 0:
            assert reason >= 0
            continue
        assert (reason < 0) == (why is None)
        assert language < 0 or LANGUAGES[language] == detect_language(text)
        assert seen.setdefault(text, row) == row
        windows = range(columns.first_window[row], columns.first_window[row + 1])
        rows = [columns.input_ids[columns.cu_seqlens[at] : columns.cu_seqlens[at + 1]].tolist() for at in windows]
        assert rows == [[2, *item.ids[start:end].tolist(), 3] for start, end in item.windows]
        tokens = slice(columns.tokens.starts[row], columns.tokens.starts[row + 1])
        assert columns.input_ids[columns.tokens.places[tokens]].tolist() == item.ids.tolist()
        assert columns.tokens.offsets[tokens].tolist() == item.offsets.tolist()
    assert [texts[at] for at in columns.first] == sorted(seen, key=seen.get)
    assert len(columns.first) == len(columns.first_window) - 1 == len(seen)


def test_a_token_in_two_windows_is_taken_from_the_middle_of_one(encoder):
    columns = encoder.encode_columns(["good " * 150], offsets=True)
    (item,) = encoder.encode(["good " * 150], offsets=True)
    assert len(item.windows) > 2
    window_of = np.searchsorted(columns.cu_seqlens, columns.tokens.places, side="right") - 1
    for place, window in enumerate(window_of):
        depths = [min(place - start, end - 1 - place) for start, end in item.windows]
        assert place in range(*item.windows[window])
        # The outer edges of a text are no cuts: only where two windows share a token is there a choice.
        if sum(depth >= 0 for depth in depths) > 1:
            assert depths[window] >= max(depths) - 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("goodphone bad", [True, False, True]),
        ("don't", [True, False, False, True, True]),
        ("很好", [True, True]),
        ("a.b", [True, True, True]),
    ],
)
def test_pieces_of_a_word_are_told(encoder, text, words):
    columns = encoder.encode_columns([text, f"{text} "], offsets=True)
    assert columns.tokens.words.tolist() == words * 2


STRANGE = "aé好の!<=>'0９.,。，\n\t \u0338\u0301\u3099\xa0\u3000\u200d\ufeff\x00\ufffd\ud800👍ｶ각ﬁ"
HARD = st.text(st.sampled_from(STRANGE), max_size=40)
MIXED = st.lists(st.one_of(SAID, HARD), max_size=150).map(" ".join)
ROOT = Path(__file__).resolve().parents[2]


def encoders_of(folder, max_tokens):
    """The same tokenizer twice: by way of its pieces, and as the library reads whole texts."""
    spec = replace(load_spec(folder), max_tokens=max_tokens)
    fast, whole = TextEncoder(spec), TextEncoder(spec)
    assert fast._pieces is not None
    whole._pieces = None
    return fast, whole


@pytest.fixture(scope="module")
def pairs(tiny_module):
    return [encoders_of(tiny_module, 64), encoders_of(tiny_module, 20), encoders_of(ROOT / "engines" / "reviews", 40)]


def assert_same(one, other):
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            assert np.array_equal(mine, theirs), field.name
        elif field.name == "tokens" and mine is not None:
            assert_same(mine, theirs)
        else:
            assert mine == theirs


@given(st.lists(st.one_of(st.none(), ANY_TEXT, HARD, MIXED), max_size=6), st.booleans())
@settings(max_examples=100, deadline=None)
def test_piece_by_piece_is_what_the_library_says_of_whole_texts(pairs, texts, offsets):
    for fast, whole in pairs:
        assert_same(fast.encode_columns(texts, offsets=offsets), whole.encode_columns(texts, offsets=offsets))
        said = [text for text in texts if text is not None]
        found = zip(fast.encode(said, offsets=offsets), whole.encode(said, offsets=offsets), strict=True)
        for mine, theirs in found:
            assert_same(mine, theirs)


def test_a_tokenizer_without_pieces_reads_whole_texts(tiny, tmp_path):
    for name in ("model.onnx", "model.toml"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(load_spec(tmp_path))
    assert encoder._pieces is None
    (item,) = encoder.encode(["goodphone good! " * 40], offsets=True)
    assert len(item.windows) > 1
    assert item.ids[:3].tolist() == [encoder._tokenizer.token_to_id(word) for word in ("good", "##phone", "[UNK]")]
    assert item.offsets[:3].tolist() == [[0, 4], [4, 9], [10, 15]]
    texts = ["goodphone good! " * 40, "ภาษาไทย", "good"]
    columns = encoder.encode_columns(texts, offsets=True)
    assert columns.rows.tolist() == [0, -1, 1]
    assert_same(replace(columns, tokens=None), encoder.encode_columns(texts, offsets=False))


def cut_ranks(text, places, joined):
    """How good a cut before each token is, said a token at a time."""
    ranks = [1]
    for (_, end), (start, _), goes_on in zip(places, places[1:], joined[1:], strict=False):
        between = text[end - 1 : start]
        last = between.rstrip()[-1:]
        if (last and last in ".!?…。！？；;") or "\n" in between:
            ranks.append(3)
        elif (last and last in ",，、：:）)」』】") or between[-1:].isspace():
            ranks.append(2)
        else:
            ranks.append(0 if goes_on else 1)
    return ranks


@given(HARD.filter(bool), st.data())
@settings(max_examples=200, deadline=None)
def test_where_a_text_is_cut(text, data):
    text = text.replace("\ud800", "…") + data.draw(st.sampled_from(["", ".", "\n", " ", "\x1f", "\u2028"]))
    some = st.integers(0, len(text))
    places = sorted(data.draw(st.lists(st.tuples(some, some).map(sorted), min_size=1, max_size=12)))
    joined = data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
    found = _boundary_ranks(text, np.array(places, np.int32), np.array(joined))
    assert found.tolist() == cut_ranks(text, places, joined)


def test_every_blank_is_known():
    blanks = {char for char in map(chr, range(0x110000)) if char.isspace()}
    assert set(_BLANKS) == blanks
