import json
import random
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from workbench.tasks.pieces import HAN, MARKS, SPACES, PieceTable, make_piece_table

REVIEWS = Path(__file__).resolve().parents[2] / "engines" / "reviews" / "tokenizer.json"
HAN_POINTS = [point for first, last in HAN for point in range(first, last + 1)]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")

BERT, DIGITS = pre_tokenizers.BertPreTokenizer, pre_tokenizers.Digits
CASED = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
BARE = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)

SETTINGS = {
    "uncased": (normalizers.BertNormalizer(strip_accents=True, lowercase=True), BERT()),
    "no Han": (normalizers.Sequence([normalizers.NFC(), BARE]), pre_tokenizers.Sequence([BERT(), DIGITS(True)])),
    "as it is": (None, pre_tokenizers.Sequence([BERT(), pre_tokenizers.Punctuation("merged_with_next")])),
    "accents apart": (
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
        BERT(),
    ),
    "cleaned, then composed": (normalizers.Sequence([CASED, normalizers.NFC()]), BERT()),
    "compatible": (normalizers.Sequence([normalizers.Sequence([normalizers.NFKD()]), CASED]), BERT()),
}


def make_tokenizer(normalizer, pre_tokenizer, *, model=None):
    words = ["[UNK]", *map(chr, range(0x21, 0x7F)), *"éüßñσςά̸́好很的のデ가ㄱᄀ。，！¼①ﬁ≠👍"]
    words += [f"##{char}" for char in "abcdefghijklmnopqrstuvwxyz0123456789é̸́のデᅡ"] + ["good", "bad", "##ing"]
    known = {word: place for place, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(model or models.WordPiece(known, unk_token="[UNK]", max_input_chars_per_word=12))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.encode_special_tokens = True
    return tokenizer


@cache
def tokenizer_of(name):
    if name != "reviews":
        return make_tokenizer(*SETTINGS[name])
    tokenizer = Tokenizer.from_file(str(REVIEWS))
    tokenizer.encode_special_tokens = True
    return tokenizer


def table_of(tokenizer, **options):
    if not options:
        return make_piece_table(tokenizer, json.loads(tokenizer.to_str()))
    return PieceTable(tokenizer, han=True, **options)


@cache
def warm_table(name):
    return table_of(tokenizer_of(name))


def said_by_library(tokenizer, texts):
    rows = []
    for item in tokenizer.encode_batch(texts, add_special_tokens=False):
        words = item.word_ids
        joined = [at > 0 and words[at] == words[at - 1] for at in range(len(words))]
        rows.append((item.ids, [list(pair) for pair in item.offsets], joined))
    return rows


def said(found):
    offsets, joined = found.located()
    assert found.ids.dtype == offsets.dtype == found.starts.dtype == np.int32
    parts = [slice(first, last) for first, last in pairwise(found.starts.tolist())]
    return [(found.ids[part].tolist(), offsets[part].tolist(), joined[part].tolist()) for part in parts]


# What normalizers, cleaners and splitters stumble over, each some of the time.
HARD = [
    *"aZé0９ß Σς'<=>≠!?.,_`^~$&@#[]\\-/",
    *"\u0338\u0301\u0323\u0344\u0345\u20d2\u3099\uff9e\u0ec8\u0f77\u0f71\u1dfa",
    *"好很㐀鿿豈\U00020000のデｶ가각ㄱ",
    *" \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000\ufeff\u200b\u200d\u00ad",
    *"\x00\x01\x7f\ufffd\ue000\U000e0001\U0010ffff",
    *"，。！（）…“”、；＜＝﹤！",
    *"👍👨❤\ufe0f🇩🇪①¼ﬁǆİıᾳ\u0300\ua66f",
    *"กำ้ภاлёעहिक्",
    "[UNK]",
    "[SEP]",
    "x" * 50,
    "&lt;b&gt;",
    "don't",
    "https://a.b/c?d=1",
    " good ",
]
HARD_TEXT = st.lists(st.sampled_from(HARD), max_size=30).map("".join)
ANY = st.one_of(HARD_TEXT, HARD_TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
NAMES = ["reviews", *SETTINGS]


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(ANY, max_size=6))
@example(["", " ", "\n", "a", "好", "!"])
@example(["a<\u0338b >\u0338 =\x01\u0338", "好\u0301a \u0301b !\u0338", "=\u0345\u0338"])
@settings(max_examples=150)
def test_pieces_say_what_the_library_says_of_the_text(name, texts):
    tokenizer = tokenizer_of(name)
    expected = said_by_library(tokenizer, texts)
    fresh, warm = table_of(tokenizer), warm_table(name)
    assert said(fresh.tokenize(texts)) == expected
    assert said(fresh.tokenize(texts)) == expected  # now it knows them
    many = [*texts, "good " * 100]  # too much for the way of a few characters
    assert said(warm.tokenize(many))[:-1] == expected
    assert said(warm.tokenize(texts)) == expected
    chosen = np.arange(len(many)) % 2 == 0
    assert said(warm.tokenize(many).kept(chosen)) == said(warm.tokenize(many))[::2]


@pytest.mark.parametrize("name", NAMES)
def test_every_character_that_normalization_knows(name):
    chars = [
        char
        for char in map(chr, range(0x110000))
        if unicodedata.category(char) not in ("Cn", "Co", "Cs")
        and not "\uac00" <= char <= "\ud7a3"
        and (unicodedata.combining(char) or unicodedata.decomposition(char) or unicodedata.category(char)[0] in "CZM")
    ]
    assert len(chars) > 8000
    tokenizer, table = tokenizer_of(name), table_of(tokenizer_of(name))
    joined = [f"a{char}好{char}!{char} {char}b.{char}\u0338" for char in chars]
    for at in range(0, len(joined), 4096):
        part = joined[at : at + 4096]
        assert said(table.tokenize(part)) == said_by_library(tokenizer, part)


def test_nothing_is_composed_across_a_cut():
    composing = set()
    for char in map(chr, range(0x110000)):
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            composing |= {int(part, 16) for part in parts}
    cuts = [*map(ord, MARKS), *map(ord, SPACES), *HAN_POINTS]
    assert not composing & set(cuts)
    assert {chr(point) for point in composing & set(range(0x80)) if not chr(point).isalpha()} == set("<=>")
    for point in cuts:
        assert unicodedata.combining(chr(point)) == 0
        assert all(unicodedata.normalize(form, chr(point)) == chr(point) for form in FORMS)


def test_the_library_cuts_at_every_mark_and_han_character():
    tokenizer = tokenizer_of("reviews")
    cuts = [*MARKS, *map(chr, HAN_POINTS)]
    for item in tokenizer.encode_batch([f"a{char}b" for char in cuts], add_special_tokens=False):
        assert (item.offsets, item.word_ids) == ([(0, 1), (1, 2), (2, 3)], [0, 1, 2])
    for item in tokenizer.encode_batch([f"a{char}b" for char in SPACES], add_special_tokens=False):
        assert item.offsets == [(0, 1), (2, 3)]


def test_a_full_table_starts_afresh():
    tokenizer = tokenizer_of("reviews")
    table, sizes = table_of(tokenizer, limit=60), []
    draw = random.Random(1)  # noqa: S311
    for _ in range(80):
        texts = [" ".join(f"w{draw.randrange(400)}" for _ in range(6)) + "好!" + "y" * 60 for _ in range(4)]
        assert said(table.tokenize(texts)) == said_by_library(tokenizer, texts)
        sizes.append(len(table))
    assert max(sizes) <= 60
    assert any(after < before for before, after in pairwise(sizes))


def test_what_is_longer_than_words_is_not_kept():
    table = table_of(tokenizer_of("reviews"))
    text = f"good {'กขค' * 500} good"
    assert said(table.tokenize([text])) == said_by_library(tokenizer_of("reviews"), [text])
    assert len(table) == 1
    assert said(table.tokenize([text] * 2)) == said_by_library(tokenizer_of("reviews"), [text] * 2)


def test_threads_share_a_table():
    tokenizer = tokenizer_of("reviews")
    table = table_of(tokenizer, limit=300)
    draw = random.Random(2)  # noqa: S311
    words = [f"{draw.choice('abcgood好很')}{at}{draw.choice(' ,.é')}" for at in range(500)]
    lists = [["".join(draw.choices(words, k=draw.randrange(1, 40))) for _ in range(5)] for _ in range(200)]
    expected = [said_by_library(tokenizer, texts) for texts in lists]
    with ThreadPoolExecutor(8) as threads:
        assert [said(found) for found in threads.map(table.tokenize, lists)] == expected


def with_normalizer():
    return make_tokenizer(normalizers.Sequence([CASED, normalizers.Replace("a", " ")]), BERT())


def with_added_token(**how):
    tokenizer = make_tokenizer(CASED, BERT())
    tokenizer.add_tokens([AddedToken("good bad", **how)])
    return tokenizer


def with_special_token(**how):
    tokenizer = make_tokenizer(CASED, BERT())
    tokenizer.add_special_tokens([AddedToken("good bad", **how)])
    return tokenizer


def with_special_tokens_in_texts():
    tokenizer = make_tokenizer(CASED, BERT())
    tokenizer.encode_special_tokens = False
    return tokenizer


def with_truncation():
    tokenizer = make_tokenizer(CASED, BERT())
    tokenizer.enable_truncation(4)
    return tokenizer


def with_padding():
    tokenizer = make_tokenizer(CASED, BERT())
    tokenizer.enable_padding()
    return tokenizer


def with_trimmed_offsets():
    tokenizer = make_tokenizer(CASED, BERT())
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_tokenizer(CASED, BERT(), model=models.BPE()),
        lambda: make_tokenizer(CASED, BERT(), model=models.Unigram([("a", 0.0)], unk_id=0)),
        lambda: make_tokenizer(CASED, BERT(), model=models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")),
        lambda: make_tokenizer(CASED, None),
        lambda: make_tokenizer(CASED, pre_tokenizers.Whitespace()),
        lambda: make_tokenizer(CASED, pre_tokenizers.Metaspace()),
        lambda: make_tokenizer(CASED, pre_tokenizers.Sequence([DIGITS(), BERT()])),
        lambda: make_tokenizer(CASED, pre_tokenizers.Sequence([BERT(), pre_tokenizers.ByteLevel()])),
        with_normalizer,
        with_added_token,
        lambda: with_special_token(normalized=True),
        with_special_tokens_in_texts,
        with_truncation,
        with_padding,
        with_trimmed_offsets,
    ],
)
def test_other_tokenizers_are_not_served(make):
    assert table_of(make()) is None


def test_special_tokens_are_text_like_any_other():
    assert table_of(with_special_token()) is not None
    tokenizer = with_special_token()
    texts = ["a good bad [SEP] b", "[CLS]"]
    assert said(table_of(tokenizer).tokenize(texts)) == said_by_library(tokenizer, texts)
