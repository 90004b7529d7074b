import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tasks.language import detect_language

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
