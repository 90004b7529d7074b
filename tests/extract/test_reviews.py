"""Reviews on golden pages: markup, blocks of several makes, stars in every form, dates in many languages."""

from __future__ import annotations

import calendar
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml.html import fragment_fromstring

from workbench.extract.document import parse_document
from workbench.extract.page import Review
from workbench.extract.ratings import find_rating, rating_from_text
from workbench.extract.reviews import MAX_REVIEWS, read_reviews
from workbench.extract.structured import read_structured
from workbench.extract.written_dates import read_date

DAY = dt.date(2026, 11, 3)
LONG = (
    "The paper feel is right, the pen never lags, and after five weeks I still have not looked for the charger. " * 12
)


def read(html: str, kind: str | None = "reviews") -> tuple[Review, ...]:
    document = parse_document(html, url="https://shop.example/p/1/reviews")
    return read_reviews(document, read_structured(document), kind)


def test_reviews_in_markup_are_read_whole() -> None:
    page = f"""<html><body><script type="application/ld+json">{{"@type": "Product", "name": "Kettle", "review": [
    {{"@type": "Review", "author": {{"@type": "Person", "name": "Ada"}}, "datePublished": "2026-11-03",
      "name": "Good", "reviewBody": "{LONG}",
      "reviewRating": {{"@type": "Rating", "ratingValue": "4.5", "bestRating": "5"}}}},
    {{"@type": "Review", "author": "Ben", "reviewBody": "Leaks.",
      "reviewRating": {{"ratingValue": 30, "bestRating": 100}}}},
    {{"@type": "Review", "author": "Cy", "reviewBody": "Ten it is.", "reviewRating": {{"ratingValue": 8}}}}]}}
    </script></body></html>"""
    assert read(page) == (
        Review(author="Ada", rating=4.5, rating_scale=5, title="Good", text=LONG.strip(), date=DAY),
        Review(author="Ben", rating=30, rating_scale=100, text="Leaks."),
        Review(author="Cy", rating=8, rating_scale=10, text="Ten it is."),
    )


FULL = '<i class="star full"></i>'
BLOCKS = f"""<html lang="en-GB"><body><h1>Reviews</h1><div class="review-summary">4.2 out of 5, 120 reviews</div>
<ul class="review-list">
<li class="review-item"><div class="stars"><span style="width:80%"></span></div>
  <h4 class="review-title">Good, heavy</h4>
  <p class="review-text">{LONG}</p><p class="review-text">Second paragraph.</p>
  <div><span class="review-author">Ada L.</span> <time datetime="2026-11-03">3 weeks ago</time></div>
  <a href="#">Helpful (3)</a></li>
<li class="review-item"><div class="stars"><span style="width:20%"></span></div>
  <h4 class="review-title">Leaks</h4>
  <p class="review-text">It leaks.</p><div><span class="review-author">Ben</span>
  <span class="date">2 days ago</span></div></li>
</ul></body></html>"""


def test_blocks_of_reviews_are_read_with_all_their_parts() -> None:
    first, second = read(BLOCKS)
    assert first == Review(
        author="Ada L.",
        rating=4,
        rating_scale=5,
        title="Good, heavy",
        text=f"{LONG.strip()}\nSecond paragraph.",
        date=DAY,
    )
    # Without a clock nobody can tell when two days ago was.
    assert second == Review(author="Ben", rating=1, rating_scale=5, title="Leaks", text="It leaks.")


def test_chinese_reviews_are_read() -> None:
    page = """<html lang="zh-CN"><body><div class="comments">
    <div class="comment-item"><span class="user">胖橘</span><span class="star" title="4星">★★★★☆</span>
      <div class="comment-con">手感很好，就是有点重。续航比官网写的短一些。</div>
      <span>2026年11月3日</span><a href="#">有用(2)</a></div>
    <div class="comment-item"><span class="user">退役选手</span><span class="star" title="1星">★☆☆☆☆</span>
      <div class="comment-con">云同步崩了一个礼拜，客服不回复。</div><span>3天前</span><a href="#">有用</a></div>
    </div></body></html>"""
    assert read(page) == (
        Review(
            author="胖橘", rating=4, rating_scale=5, text="手感很好，就是有点重。续航比官网写的短一些。", date=DAY
        ),
        Review(author="退役选手", rating=1, rating_scale=5, text="云同步崩了一个礼拜，客服不回复。"),
    )


def test_a_review_found_in_two_syntaxes_is_one_and_is_completed() -> None:
    page = BLOCKS.replace(
        "<h1>",
        """<script type="application/ld+json">{"@type": "Review", "reviewBody": "It leaks.",
        "datePublished": "2026-11-01",
        "reviewRating": {"ratingValue": 1}}</script><h1>""",
    )
    reviews = read(page)
    assert len(reviews) == 2
    assert reviews[0] == Review(
        author="Ben", rating=1, rating_scale=5, title="Leaks", text="It leaks.", date=dt.date(2026, 11, 1)
    )


def test_two_people_who_wrote_the_same_two_words_stay_two() -> None:
    page = """<html><body><div class="review"><b class="author">Ada</b> ★★★★★ <p>Good.</p> 2026-11-01</div>
    <div class="review"><b class="author">Ben</b> ★★★★★ <p>Good.</p> 2026-11-02</div></body></html>"""
    assert [(review.author, review.text) for review in read(page)] == [("Ada", "Good."), ("Ben", "Good.")]


def test_blocks_without_ratings_or_dates_are_no_reviews() -> None:
    page = """<html><body><div class="testimonial"><p>We love it.</p></div>
    <div class="testimonial"><p>So do we.</p></div>
    <div class="review-summary">4.2 out of 5</div></body></html>"""
    assert read(page) == ()
    assert read(BLOCKS, "pricing") == ()


def test_more_reviews_than_sense_are_cut_with_a_warning() -> None:
    items = ",".join(
        f'{{"@type": "Review", "reviewBody": "Number {n} says so", "reviewRating": 4}}'
        for n in range(MAX_REVIEWS + 9)
    )
    document = parse_document(f'<script type="application/ld+json">[{items}]</script>', url="https://shop.example/")
    assert len(read_reviews(document, read_structured(document), "reviews")) == MAX_REVIEWS
    assert [warning for warning in document.warnings if warning.startswith("reviews: ")] != []


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("4 out of 5", (4, 5)),
        ("4/5", (4, 5)),
        ("4.5 / 5.0", (4.5, 5)),
        ("4.5 stars", (4.5, 5)),
        ("4 von 5 Sternen", (4, 5)),
        ("4,0 sur 5 étoiles", (4, 5)),
        ("8/10", (8, 10)),
        ("5星", (5, 5)),
        ("评分：4", (4, 5)),
        ("5つ星のうち4.0", (4, 5)),
        ("★★★★☆", (4, 5)),
        ("★ 4.2", (4.2, 5)),
        ("⭐⭐⭐", (3, 5)),
        ("☆☆☆☆☆", None),
        ("20/10", None),
        ("3 of 5 people found this helpful", None),
        ("2026-11-03", None),
        (None, None),
    ],
)
def test_ratings_in_words_and_stars(text: str | None, rating: tuple[float, float] | None) -> None:
    assert rating_from_text(text) == rating


@pytest.mark.parametrize(
    ("block", "rating"),
    [
        ('<div><span aria-label="Rated 4 out of 5"></span></div>', (4, 5)),
        ('<div><span class="rating" data-score="3"></span></div>', (3, 5)),
        ('<div><div class="star-rating"><span style="width: 90%"></span></div></div>', (4.5, 5)),
        ('<div><i class="icon stars-4"></i></div>', (4, 5)),
        ('<div><i class="rating-stars45"></i></div>', (4.5, 5)),
        (
            f"<div><p>{FULL * 2}{'<i class=star></i>' * 3}</p></div>",
            (2, 5),
        ),
        (
            f"<div><p>{'<i class=fa-star></i>' * 3}{'<i class=fa-star-o></i>' * 2}</p></div>",
            (3, 5),
        ),
        ("<div><p>Nothing here</p></div>", None),
    ],
)
def test_ratings_in_markup(block: str, rating: tuple[float, float] | None) -> None:
    assert find_rating(fragment_fromstring(block)) == rating


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-03",
        "3 November 2026",
        "November 3, 2026",
        "Nov 3rd, 2026",
        "3. November 2026",
        "3 novembre 2026",
        "3 de noviembre de 2026",
        "3 listopada 2026",
        "3 ноября 2026",
        "2026年11月3日",
        "2026/11/3",
        "2026.11.03",
        "03.11.2026",
        "Reviewed in the United States on November 3, 2026",
    ],
)
def test_dates_in_many_languages(text: str) -> None:
    assert read_date(text) == DAY


def test_dates_that_need_a_country_or_a_clock() -> None:
    assert read_date("03/11/2026", "GB") == DAY
    assert read_date("11/03/2026", "US") == DAY
    assert read_date("25/11/2026", "US") == dt.date(2026, 11, 25)
    assert [
        read_date(text) for text in ("3 days ago", "vor 3 Tagen", "3天前", "yesterday", "31/02/2026", "", None)
    ] == [None] * 7


@given(st.dates(dt.date(1990, 1, 1), dt.date(2099, 12, 31)))
def test_a_date_written_in_four_ways_is_read_back(day: dt.date) -> None:
    month = calendar.month_name[day.month]
    for text in (
        day.isoformat(),
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.year}年{day.month}月{day.day}日",
    ):
        assert read_date(text) == day


@given(st.text(max_size=120))
def test_any_text_is_read_without_an_error(text: str) -> None:
    read_date(text, "US")
    rating = rating_from_text(text)
    assert rating is None or 0 <= rating[0] <= rating[1]
