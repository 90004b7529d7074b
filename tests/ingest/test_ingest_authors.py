from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import make_workspace

from workbench.extract.page import Page, Review
from workbench.ingest.authors import MASK, hash_author, redactor, vocabulary


def masked(text: str, *authors: str | None, keep: frozenset[str] = frozenset()) -> str:
    return redactor(Page(reviews=tuple(Review(author=author) for author in authors)), keep=keep)(text)


def test_the_hash_is_an_hmac_of_the_folded_name() -> None:
    expected = hmac.new(b"salt", b"ann lee", hashlib.sha256).hexdigest()[:32]
    assert hash_author(" Ann  LEE", b"salt") == expected
    assert hash_author("Ann Lee", b"other") != expected
    assert hash_author(None, b"salt") is None
    assert hash_author("  ", b"salt") is None


@pytest.mark.parametrize(
    ("text", "authors", "expected"),
    [
        ("by Ann Lee on Monday", ["Ann Lee"], f"by {MASK} on Monday"),
        ("by ANN\n LEE.", ["Ann Lee"], f"by {MASK}."),
        ("Will says: I will buy", ["Will"], f"{MASK} says: I will buy"),
        ("Maxine and Max", ["Max"], f"Maxine and {MASK}"),
        ("Ann Lee-Smith, Ann Lee", ["Ann Lee", "Ann Lee-Smith"], f"{MASK}, {MASK}"),
        ("评论者王小明说：很好", ["王小明"], f"评论者{MASK}说：很好"),
        ("a.b+c (d) wrote", ["a.b+c (d)"], f"{MASK} wrote"),
        ("A pen, A page", ["A"], "A pen, A page"),
        ("J. wrote this", ["J."], f"{MASK} wrote this"),
        ("nobody here", [None, "", "  "], "nobody here"),
        ("no reviews at all", [], "no reviews at all"),
    ],
)
def test_names_are_masked(text: str, authors: list[str | None], expected: str) -> None:
    assert masked(text, *authors) == expected


def test_words_of_the_market_stay(tmp_path: Path) -> None:
    """An author who is called like a product must not change what the page says about the product."""
    keep = vocabulary(make_workspace(tmp_path))
    assert masked("The Folio Max, says Max. Ondine Labs", "Max", "Ondine labs", keep=keep) == (
        "The Folio Max, says Max. Ondine Labs"
    )
    assert masked("Folio Max by Max Born", "Max Born", keep=keep) == f"Folio Max by {MASK}"


@given(
    author=st.text(st.characters(categories=["L", "M", "N", "P", "Zs"]), min_size=2, max_size=15).map(str.strip),
    around=st.sampled_from([" by {}, today", "({})", "— {}", "{}", "{}\n"]),
)
def test_any_name_of_two_characters_or_more_goes(author: str, around: str) -> None:
    name = " ".join(author.split())
    if len(name) < 2:
        return
    text = masked(around.format(author), author)
    assert name not in text.replace(MASK, "")
