"""Reviews on a page: from markup for machines, and from the repeated blocks that readers see."""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lxml.html import HtmlElement

from workbench.extract.currencies import read_market
from workbench.extract.document import Document
from workbench.extract.page import Review
from workbench.extract.ratings import Rating, find_rating, rating_from_text
from workbench.extract.segments import Segment, segments_of
from workbench.extract.structured import Item, Structured, find_items, first, number_text_of, text_of
from workbench.extract.view import View, describe
from workbench.extract.written_dates import read_date

__all__ = ["MAX_REVIEWS", "read_reviews"]

log = logging.getLogger(__name__)

MAX_REVIEWS = 500
"""More reviews than this on one page are cut, with a warning."""

_REVIEW_TYPES = ("Review", "UserReview", "CriticReview", "EmployerReview", "ClaimReview")
_BLOCK_NAME = re.compile(
    r"(?<![a-z])(?:review|comment|opinion|testimonial|feedback|bewertung|rezension|avis|recensione|opini[oó]n|"
    r"reseña|评价|評價|评论|"
    r"評論|レビュー|口コミ|후기|отзыв)",
    re.IGNORECASE,
)
_NOT_BLOCK = re.compile(
    r"summary|overview|histogram|breakdown|aggregate|average|form|write|filter|sort|count|pagina|(?<![a-z])list|"
    r"header|footer|"
    r"total|stats|button|(?<![a-z])nav|reviews?[-_]?(?:container|section|wrapper|widget|content|body|text|title|"
    r"date|author|stars?)|"
    r"rating[-_]?(?:bar|distribution)|replies",
    re.IGNORECASE,
)
_AUTHOR_NAME = re.compile(
    r"author|user|reviewer|nick|customer|(?<![a-z])name|profile|by(?:line)?(?![a-z])|作者|member",
    re.IGNORECASE,
)
_TITLE_NAME = re.compile(r"title|headline|subject|summary|heading", re.IGNORECASE)
_TEXT_NAME = re.compile(
    r"text|body|content|description|message|comment[-_]?(?:con|txt|info)|detail|quote",
    re.IGNORECASE,
)
_DATE_NAME = re.compile(r"date|time|when|posted|published|日期|时间", re.IGNORECASE)
_BY = re.compile(r"^\W*(?:by|von|par|por|di|door|av|от|作者|by user)\W+", re.IGNORECASE)
_NOISE = re.compile(
    r"^\W*(?:(?:was this (?:review )?)?helpful\??|report(?: abuse)?|reply|share|yes|no|read (?:more|less)|"
    r"show (?:more|less)|verified(?: \w+){0,2}|"
    r"有用|无用|举报|舉報|回复|回覆|点赞|赞|讚|参考になった|hilfreich|utile|útil|\d+)(?:\s*\(?\d*\)?)?\W*$",
    re.IGNORECASE,
)
_AGO = re.compile(
    r"\bago\b|\bvor \d|il y a|\bhace\b|\bfa$|天前|小时前|小時前|分钟前|分鐘前|个月前|個月前|周前|年前|日前|назад",
    re.IGNORECASE,
)
_DATE_LABEL = re.compile(r"^\W*(?:reviewed|posted|published|written|date|on|日期|发表于|發表於)", re.IGNORECASE)
_LEAST_TEXT = 2
_LONG_TEXT = 40
_MAX_PIECES = 80
"""A block with more pieces of text than this is a list of reviews, not one."""


def read_reviews(document: Document, structured: Structured | None, kind: str | None = None) -> tuple[Review, ...]:
    """Reviews in page order, one found in two syntaxes only once. Never raises."""
    try:
        return _read(document, structured or Structured(), kind)
    except Exception as error:  # A page may hold anything; the other readers still have to run.
        log.debug("reviews failed", exc_info=True)
        document.warnings.append(f"reviews: could not be read ({type(error).__name__}: {error})"[:300])
        return ()


def _read(document: Document, structured: Structured, kind: str | None) -> tuple[Review, ...]:
    country = read_market(document, structured.meta).country
    stated = [
        review
        for item in find_items(structured, *_REVIEW_TYPES)
        if (review := _review_from_item(item, country)) is not None
    ]
    seeks = kind in (None, "reviews", "product", "landing")
    visible = _visible_reviews(document, structured.seen(document), country) if seeks else []
    merged = _merge(stated, visible)
    if len(merged) > MAX_REVIEWS:
        document.warnings.append(f"reviews: {len(merged)} found, the first {MAX_REVIEWS} are kept")
    return tuple(merged[:MAX_REVIEWS])


# --- markup ---------------------------------------------------------------------------------------------------------


def _review_from_item(item: Item, country: str | None) -> Review | None:
    text = text_of(item.get("reviewBody")) or text_of(item.get("description")) or text_of(item.get("text")) or ""
    rating = _stated_rating(item)
    title = text_of(item.get("headline")) or text_of(item.get("name"))
    if not text and rating is None:
        return None
    dates = (read_date(text_of(item.get(key)), country) for key in ("datePublished", "dateCreated", "dateModified"))
    date = next((found for found in dates if found), None)
    return Review(
        author=_author(text_of(item.get("author"))),
        rating=rating[0] if rating else None,
        rating_scale=rating[1] if rating else None,
        title=title if title and title != text else None,
        text=text,
        date=date,
    )


def _stated_rating(item: Item) -> Rating | None:
    raw = first(item.get("reviewRating")) or first(item.get("rating")) or item.get("ratingValue")
    if isinstance(raw, dict):
        value, best = number_text_of(raw.get("ratingValue")), number_text_of(raw.get("bestRating"))
    else:
        value, best = number_text_of(raw), None
    number = _float(value)
    if number is None:
        return rating_from_text(value)
    scale = _float(best)
    if scale is None or scale < number or scale <= 0:
        # schema.org: "If bestRating is omitted, 5 is assumed"; a higher value shows another scale.
        scale = 5.0 if number <= 5 else 10.0 if number <= 10 else 100.0
    return (number, scale) if 0 <= number <= scale else None


def _float(text: str | None) -> float | None:
    if not text or not re.fullmatch(r"\s*\d{1,3}(?:[.,]\d{1,15})?\s*", text):
        return None
    return float(text.strip().replace(",", "."))


def _author(text: str | None) -> str | None:
    if not text or text.startswith("http") or len(text) > 80:
        return None
    return _BY.sub("", text).strip(" ,;:·|-–—") or None


# --- what readers see -----------------------------------------------------------------------------------------------


def _visible_reviews(document: Document, view: View, country: str | None) -> list[Review]:
    groups: dict[tuple[str, str], list[HtmlElement]] = defaultdict(list)
    for node in document.tree.iter("article", "div", "li", "section", "blockquote", "tr", "dl", "figure"):
        name = describe(node) if node.attrib else ""
        if name and _is_block_name(name):
            groups[str(node.tag), " ".join((node.get("class") or name).split())].append(node)
    best: list[Review] = []
    for nodes in groups.values():
        outer = set(nodes)
        blocks = [node for node in nodes if not any(above in outer for above in node.iterancestors())]
        reviews = [review for node in blocks if (review := _review_from_block(node, view, country)) is not None]
        if _worth(reviews) > _worth(best):
            best = reviews
    return best


@lru_cache(maxsize=8192)
def _is_block_name(name: str) -> bool:
    return bool(_BLOCK_NAME.search(name)) and not _NOT_BLOCK.search(name)


def _worth(reviews: Sequence[Review]) -> float:
    """How much a set of blocks looks like reviews; one block counts only if it has a rating besides its text."""
    full = [review for review in reviews if review.rating is not None or (review.date and review.author)]
    if not full or len(full) < 0.5 * len(reviews):
        return 0.0
    return sum(1 + (one.rating is not None) + 0.5 * bool(one.date) + 0.5 * bool(one.author) for one in full)


def _review_from_block(block: HtmlElement, view: View, country: str | None) -> Review | None:
    pieces = segments_of(block, view, limit=_MAX_PIECES)
    segments = [segment for segment in pieces if not _NOISE.match(segment.text)]
    if not segments or len(pieces) == _MAX_PIECES:
        return None
    if sum(len(segment.text) for segment in segments) < _LEAST_TEXT:
        return None
    rating = find_rating(block)
    used: set[int] = set()
    date, date_author = _find_date(block, segments, used, country)
    author = _find(segments, used, _AUTHOR_NAME, block, longest=60) or _author(date_author)
    title: str | None = _find_title(segments, used, block)
    text = _find_text(segments, used, block)
    if not text and title:
        text, title = title, None
    if len(text) < _LEAST_TEXT or (rating is None and date is None):
        return None
    return Review(
        author=_author(author),
        rating=rating[0] if rating else None,
        rating_scale=rating[1] if rating else None,
        title=title,
        text=text,
        date=date,
    )


def _names_between(node: HtmlElement, block: HtmlElement) -> str:
    """The names of an element and of what is around it, up to the block."""
    names: list[str] = []
    current: HtmlElement | None = node
    while current is not None and current is not block:
        names.append(describe(current))
        current = current.getparent()
    return " ".join(names)


def _find_date(
    block: HtmlElement, segments: Sequence[Segment], used: set[int], country: str | None
) -> tuple[dt.date | None, str | None]:
    """The date, and what stands before it in the same line: often the author."""
    stated: dt.date | None = None
    for node in block.iter("time", "meta", "span", "div"):
        if node.tag == "time" or node.get("itemprop") in ("datePublished", "dateCreated"):
            stated = read_date(node.get("datetime") or node.get("content"), country)
            if stated:
                break
    names = [_names_between(segment.node, block) for segment in segments]
    # A line that is named a date comes first: a short review may name a day as well ("发货要等到12月5日").
    order = sorted(range(len(segments)), key=lambda place: not _DATE_NAME.search(names[place]))
    for place in order:
        text = segments[place].text
        named = bool(_DATE_NAME.search(names[place]))
        if len(text) > (80 if named else 60) or (not named and _TEXT_NAME.search(describe(segments[place].node))):
            continue
        found = read_date(text, country)
        if found is None:
            if _AGO.search(text) and len(text) <= 40:
                used.add(place)
            continue
        used.add(place)
        before = re.split(r"[,;|·–—]| on | am | le | el | il |\d", text, maxsplit=1)[0].strip()
        is_word = bool(before) and read_date(text[len(before) :], country) is not None and not named
        return stated or found, before if is_word and not _DATE_LABEL.match(before) else None
    return stated, None


def _find(
    segments: Sequence[Segment], used: set[int], pattern: re.Pattern[str], block: HtmlElement, *, longest: int
) -> str | None:
    for place, segment in enumerate(segments):
        if place in used or len(segment.text) > longest or rating_from_text(segment.text):
            continue
        if segment.is_heading and pattern is _AUTHOR_NAME:
            continue
        if pattern.search(_names_between(segment.node, block)) and not _TEXT_NAME.search(describe(segment.node)):
            used.add(place)
            return segment.text
    for node in block.iter("span", "a", "b", "strong", "cite", "em"):
        text = " ".join(node.text_content().split())
        if 0 < len(text) <= longest and pattern.search(describe(node)) and not rating_from_text(text):
            return text
    return None


def _find_title(segments: Sequence[Segment], used: set[int], block: HtmlElement) -> str | None:
    for place, segment in enumerate(segments):
        if place not in used and segment.is_heading and len(segment.text) <= 200:
            used.add(place)
            return segment.text
    title = _find(segments, used, _TITLE_NAME, block, longest=200)
    if title is not None:
        return title
    for place, segment in enumerate(segments):
        if place in used or not rating_from_text(segment.text[:40]):
            continue
        # "★★★★☆ Good but heavy": what follows the stars in bold.
        bold = next((node for node in segment.node.iter("strong", "b") if node.text_content().strip()), None)
        if bold is not None:
            used.add(place)
            return " ".join(bold.text_content().split())
    return None


def _find_text(segments: Sequence[Segment], used: set[int], block: HtmlElement) -> str:
    """The review's own words: what is named its text, otherwise the pieces that are nothing else."""
    rest = [
        (place, segment)
        for place, segment in enumerate(segments)
        if place not in used and not segment.is_control and not _is_stars(segment.text)
    ]
    named = [segment.text for _, segment in rest if _TEXT_NAME.search(_names_between(segment.node, block))]
    if named and max(map(len, named)) >= 0.4 * max((len(segment.text) for _, segment in rest), default=0):
        return "\n".join(named)
    if not rest:
        return ""
    length = max(len(segment.text) for _, segment in rest)
    # Paragraphs of one text have about the same markup; short pieces around them are labels.
    tag = next(segment.node.tag for _, segment in rest if len(segment.text) == length)
    least = min(40, length)
    return "\n".join(one.text for _, one in rest if one.node.tag == tag and len(one.text) >= least)


def _is_stars(text: str) -> bool:
    return len(text) <= 30 and rating_from_text(text) is not None


# --- the same review twice ------------------------------------------------------------------------------------------


def _merge(stated: Sequence[Review], visible: Sequence[Review]) -> list[Review]:
    """Stated reviews, each filled from the visible one that says the same; then the visible ones that are new."""
    merged: list[Review] = []
    places: dict[str, list[int]] = defaultdict(list)
    for review in (*stated, *visible):
        known = places[re.sub(r"\W+", "", review.text).casefold()[:60]]
        at = next((place for place in known if _may_be_same(merged[place], review)), None)
        if at is None:
            known.append(len(merged))
            merged.append(review)
        else:
            merged[at] = _fill(merged[at], review)
    return merged


def _may_be_same(one: Review, two: Review) -> bool:
    """Two people may write the same few words; then what else both say must agree."""
    if len(one.text) >= _LONG_TEXT:
        return True
    pairs = ((one.author, two.author), (one.date, two.date), (one.rating, two.rating))
    return all(first is None or second is None or first == second for first, second in pairs)


def _fill(one: Review, two: Review) -> Review:
    changes: dict[str, Any] = {
        name: getattr(two, name)
        for name in ("author", "title", "date")
        if getattr(one, name) is None and getattr(two, name)
    }
    if one.rating is None and two.rating is not None:
        changes |= {"rating": two.rating, "rating_scale": two.rating_scale}
    if len(two.text) > len(one.text):
        changes["text"] = two.text
    return one.model_copy(update=changes) if changes else one
