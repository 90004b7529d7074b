import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.tasks.language import _COMMON_WORDS, _GROUPS, LANGUAGES, detect_language, detect_languages

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("好", "zh"),
        ("很好用", "zh"),
        ("太贵了！", "zh"),
        ("iPhone很好", "zh"),
        ("這個平板很好用", "zh"),
        ("买的の小店，很可爱", "zh"),
        ("ok", "en"),
        ("Bad", "en"),
        ("so-so", "en"),
        ("It's great, don't worry", "en"),
        ("Great tablet, 墨舒 is nice but the pen is slow", "en"),
        ("墨舒M2 的笔很慢，但是 screen 很好", "zh"),
        ("とても良いです", "ja"),
        ("画面が綺麗", "ja"),
        ("カメラ", "ja"),
        ("아주 좋아요", "ko"),
        ("Очень хорошо, но дорого", "ru"),
        ("Дуже добре, але дорого і не швидко", "uk"),
        ("جيد جدا", "ar"),
        ("کیفیت خیلی خوب بود", "fa"),
        ("שלום עולם", "he"),
        ("Πολύ καλό", "el"),
        ("ดีมาก", "th"),
        ("यह बहुत अच्छा है", "hi"),
        ("Das Gerät ist sehr gut, aber der Preis ist zu hoch", "de"),
        ("Très bon produit, mais la batterie est trop faible", "fr"),
        ("Muy buen producto, pero la batería no es buena", "es"),
        ("Muito bom, mas a bateria não presta", "pt"),
        ("Ottimo prodotto, ma la batteria non è buona", "it"),
        ("Heel goed product, maar de batterij is niet goed", "nl"),
        ("Bardzo dobry produkt, ale bateria nie jest dobra", "pl"),
        ("Sản phẩm rất tốt nhưng hàng giao chậm", "vi"),
        ("Ürün çok güzel ama pil iyi değil", "tr"),
        ("see https://example.com/the-and-of", "en"),
        ("Ｓｌａｔｅ ｉｓ ｇｏｏｄ", "en"),
        ("ﬁne oﬃce", "en"),
        ("Compare plans | Solo $4.99 per month | Team $12.00 per user / month | Enterprise Contact us", "en"),
        ("a," * 500, "en"),
        ("https://example.com 很好", "zh"),
        ("https://example.com/很好", "zh"),
        ("", None),
        ("123 !!!", None),
        ("👍👍", None),
        ("https://example.com", None),
    ],
)
def test_language(text, language):
    assert detect_language(text) == language


@pytest.mark.parametrize("language", ["en", "zh"])
def test_calibration_texts_are_recognized(language):
    right = total = 0
    wrong = []
    for path in sorted((ROOT / "calibration").glob("*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["language"] == language and row.get("stratum") == "normal":
                total += 1
                found = detect_language(row["text"])
                right += found == language
                if found != language:
                    wrong.append((found, row["text"][:60]))
    assert total > 100
    assert right / total >= 0.995, wrong[:20]


@given(st.text(st.characters()))
def test_any_text_gets_a_code_or_none(text):
    language = detect_language(text)
    assert language is None or (len(language) == 2 and language.isalpha())


@given(st.text("的一是不了在人有我他这个们来到时大地为子", min_size=1))
def test_chinese_is_chinese(text):
    assert detect_language(text) == "zh"


WORDS = sorted({word for words in _COMMON_WORDS.values() for word in words.split()})
OTHERS = ["tablet", "it's", "'a'", "好", "の", "です", "안녕", "ß", "ＯＫ", "a@b.c", "7", "🙂", "\ud800"]
SAID = st.lists(st.sampled_from(WORDS + OTHERS)).map(" ".join)


@given(st.lists(st.one_of(SAID, st.text(st.characters())), max_size=8))
def test_many_texts_at_once_are_of_the_same_languages(texts):
    found = detect_languages(texts)
    assert found.dtype == "int8"
    assert [LANGUAGES[place] if place >= 0 else None for place in found] == [detect_language(text) for text in texts]


LATIN = sorted({word for word in WORDS if word.isascii() and word.isalpha()})


@given(st.lists(st.one_of(st.sampled_from(LATIN), st.sampled_from(LATIN[:40]), st.just("tablet")), min_size=1))
@example(["je", "z"])
@example(["und"])
@example(["und", "und"])
@example(["je", "s", "w"])
def test_latin_words_are_counted_by_language(words):
    group = _GROUPS["latin"]
    points = dict.fromkeys(group.languages, 0)
    for word in set(words):
        said = (2 if len(word) == 1 else 5) * min(words.count(word), 4)
        for language in group.languages:
            points[language] += said * (word in _COMMON_WORDS[language].split())
    most = max(points.values())
    expected = "en" if points["en"] + 5 >= most else max(points, key=points.get)
    assert detect_language(" ".join(words)) == expected
