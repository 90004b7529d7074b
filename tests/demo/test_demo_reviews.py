"""The demo's reviews: complete, dated inside the demo's weeks, and each one written for itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from statistics import mean

import pytest

import workbench.demo

CONTENT = Path(workbench.demo.__file__).parent / "content"
LANGUAGES = ("en", "zh")
FIELDS = ["id", "product", "author", "rating", "date", "title", "text"]
PRODUCTS = {"ondine-folio", "penrill-one", "moshu-m2", "larkpaper-slate"}

FIRST_DAY, LAST_DAY = date(2026, 9, 28), date(2026, 11, 20)
BASELINE_START, WEEK_START = date(2026, 10, 19), date(2026, 11, 16)  # four whole weeks, then the report's week
MIN_REVIEWS = 30  # the workspace's default threshold: below it no sentiment is stated

CJK = re.compile(r"[\u4e00-\u9fff]")
TRADITIONAL = re.compile(r"[這個筆寫電換繁體機質還試們說買]")  # characters that Simplified Chinese writes otherwise


@dataclass(frozen=True)
class DemoReview:
    """One line of a file, with the language the file is for."""

    language: str
    id: str
    product: str
    author: str
    rating: int
    date: date
    title: str
    text: str


def read_lines(language: str) -> list[str]:
    return (CONTENT / f"reviews_{language}.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def reviews() -> list[DemoReview]:
    rows = [(language, json.loads(line)) for language in LANGUAGES for line in read_lines(language)]
    return [
        DemoReview(language=language, **{**row, "date": date.fromisoformat(row["date"])}) for language, row in rows
    ]


def character_ngrams(text: str) -> frozenset[str]:
    """Runs of five characters, of three where the text is Chinese: a Chinese word is about two characters."""
    squeezed = re.sub(r"\W+", " ", text.casefold()).strip()
    size = 3 if CJK.search(squeezed) else 5
    return frozenset(squeezed[i : i + size] for i in range(max(1, len(squeezed) - size + 1)))


def tokens(text: str) -> frozenset[str]:
    """Words; for Chinese, pairs of neighbouring characters."""
    words = re.findall(r"[a-z0-9']+", text.casefold())
    runs = re.findall(r"[\u4e00-\u9fff]+", text)
    return frozenset(words) | {run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))}


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def find_alike(
    texts: dict[str, str], features: Callable[[str], frozenset[str]], *, limit: float
) -> Iterator[tuple[str, str, float]]:
    """Pairs of ids whose texts are at least ``limit`` alike by the Jaccard index of their features."""
    sets = {key: features(text) for key, text in texts.items()}
    for left, right in combinations(sets, 2):
        if (score := jaccard(sets[left], sets[right])) >= limit:
            yield left, right, round(score, 2)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_line_is_a_review_in_readable_utf8(language: str) -> None:
    for number, line in enumerate(read_lines(language), start=1):
        row = json.loads(line)
        where = f"reviews_{language}.jsonl line {number}"
        assert list(row) == FIELDS, where
        assert "\\u" not in line, f"{where} is ASCII-escaped"
        assert all(isinstance(row[name], str) for name in FIELDS if name != "rating"), where
        assert type(row["rating"]) is int, where
        assert 1 <= row["rating"] <= 5, where
        assert row["id"].startswith({"en": "e", "zh": "z"}[language]), where
        assert row["author"], where
        assert row["text"], where
        assert all(row[name] == row[name].strip() for name in ("author", "title", "text")), where
        assert row["product"] in PRODUCTS, where
        assert not re.search(r"[<>{}\x00-\x1f\ufffd]", row["title"] + row["text"]), where


def test_ids_and_texts_are_unique(reviews: list[DemoReview]) -> None:
    assert len({review.id for review in reviews}) == len(reviews)
    assert len({review.text.casefold() for review in reviews}) == len(reviews)
    titles = Counter(review.title.casefold() for review in reviews if review.title)
    assert [title for title, count in titles.items() if count > 1] == []


def test_there_are_enough_reviews_of_each_product_in_each_language(reviews: list[DemoReview]) -> None:
    counts = Counter((review.product, review.language) for review in reviews)
    assert counts.total() >= 330
    assert counts["ondine-folio", "en"] >= 80
    assert counts["penrill-one", "en"] >= 75
    assert counts["larkpaper-slate", "en"] >= 55
    assert counts["moshu-m2", "zh"] >= 100
    assert counts["larkpaper-slate", "zh"] + counts["ondine-folio", "zh"] >= 20
    assert counts["moshu-m2", "en"] == counts["penrill-one", "zh"] == 0


def test_each_file_keeps_to_its_language(reviews: list[DemoReview]) -> None:
    for review in reviews:
        share = len(CJK.findall(review.text)) / len(review.text)
        assert share == 0 if review.language == "en" else share > 0.25, review.id
    traditional = [r.id for r in reviews if r.product == "moshu-m2" and TRADITIONAL.search(r.text)]
    assert 4 <= len(traditional) <= 12


def test_dates_fall_in_the_demos_weeks_and_lean_to_the_recent(reviews: list[DemoReview]) -> None:
    assert min(review.date for review in reviews) == FIRST_DAY
    assert max(review.date for review in reviews) == LAST_DAY
    recent = [review for review in reviews if review.date >= WEEK_START]
    assert len(recent) / len(reviews) > 1 / 3


@pytest.mark.parametrize("product", sorted(PRODUCTS))
def test_week_and_baseline_each_hold_enough_reviews_to_compare(product: str, reviews: list[DemoReview]) -> None:
    dates = [review.date for review in reviews if review.product == product]
    assert sum(day >= WEEK_START for day in dates) >= MIN_REVIEWS
    assert sum(BASELINE_START <= day < WEEK_START for day in dates) >= MIN_REVIEWS


@pytest.mark.parametrize(
    ("product", "lowest", "highest"),
    [
        ("ondine-folio", -2.6, -1.4),  # synchronising broke
        ("penrill-one", -2.6, -1.4),  # the free cloud plan went
        ("moshu-m2", -1.2, -0.4),  # still good to write on, but sold out
        ("larkpaper-slate", -0.25, 0.25),  # steady
    ],
)
def test_the_reports_week_tells_its_story(
    product: str, lowest: float, highest: float, reviews: list[DemoReview]
) -> None:
    mine = [review for review in reviews if review.product == product]
    week = mean(review.rating for review in mine if review.date >= WEEK_START)
    baseline = mean(review.rating for review in mine if BASELINE_START <= review.date < WEEK_START)
    assert lowest <= week - baseline <= highest


def test_ratings_are_j_shaped(reviews: list[DemoReview]) -> None:
    counts = Counter(review.rating for review in reviews)
    assert counts[5] > counts[4] > counts[3]
    assert counts[1] > counts[2] > counts[3]
    before = Counter(review.rating for review in reviews if review.date < WEEK_START)
    assert before[5] + before[4] > 0.7 * before.total()


def test_events_are_not_mentioned_before_they_happened(reviews: list[DemoReview]) -> None:
    released, plan_ended = date(2026, 11, 3), date(2026, 11, 13)
    for review in reviews:
        words = f"{review.title} {review.text}".casefold()
        if review.product == "ondine-folio" and re.search(r"\b4\.2\b|\b399\b", words):
            assert review.date >= (WEEK_START if "399" in words else released), review.id
        if review.product == "penrill-one" and re.search(
            r"free (one|plan) (is gone|axed|was removed)|nag screen", words
        ):
            assert review.date >= plan_ended, review.id


def test_lengths_vary(reviews: list[DemoReview]) -> None:
    english = [len(review.text.split()) for review in reviews if review.language == "en"]
    chinese = [len(CJK.findall(review.text)) for review in reviews if review.language == "zh"]
    assert min(english) <= 3
    assert 120 <= max(english) <= 180
    assert min(chinese) <= 10
    assert max(chinese) >= 150
    for lengths in (english, chinese):
        assert sum(length < 20 for length in lengths) >= 15
        assert sum(length > 40 for length in lengths) >= 15


@pytest.mark.parametrize("features", [character_ngrams, tokens])
def test_no_two_reviews_are_near_copies(features: Callable[[str], frozenset[str]], reviews: list[DemoReview]) -> None:
    texts = {review.id: review.text for review in reviews}
    assert list(find_alike(texts, features, limit=0.35)) == []


def test_no_opening_is_used_by_a_family_of_reviews(reviews: list[DemoReview]) -> None:
    openings = Counter(
        tuple(review.text.casefold().split()[:3]) if review.language == "en" else review.text[:4]
        for review in reviews
    )
    assert [opening for opening, count in openings.items() if count > 2] == []


@pytest.mark.parametrize("features", [character_ngrams, tokens])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (
            "I have used this tablet for three weeks and the battery is really great.",
            "I have used this tablet for three months and the screen is really great.",
        ),
        ("用了三个星期，这块屏幕真的非常舒服，推荐购买。", "用了三个月，这块屏幕真的非常舒服，推荐大家购买。"),
    ],
)
def test_the_likeness_measures_catch_a_filled_in_template(
    left: str, right: str, features: Callable[[str], frozenset[str]]
) -> None:
    assert list(find_alike({"a": left, "b": right}, features, limit=0.5)) != []
