"""Names in texts, and whose share of the mentions is whose."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insight_world import WEEK, market
from scored_world import Reviews

from workbench.insight.names import NameFinder, normal, whole_word
from workbench.insight.proportions import difference_interval, share_interval
from workbench.insight.scored import join_reviews
from workbench.insight.share import Voice, share_of_voice
from workbench.store.tables import TABLES
from workbench.workspace import Company, Product, Workspace


def named_market() -> Workspace:
    """Names that lie inside each other, common words, two scripts."""
    companies = (
        Company(id="ondine", name="Ondine", aliases=("Ondine Paper",), products=(
            Product(name="Ondine Folio", aliases=("Folio",)), Product(name="Ondine Cloud"),
        )),
        Company(id="penrill", name="Penrill", aliases=("Straße 7",), products=(
            Product(name="Cloud Note"), Product(name="One"),
        )),
        Company(id="moshu", name="Moshu", aliases=("墨舒",), products=(
            Product(name="墨舒 M2 纸感平板", aliases=("墨舒 M2", "M2")), Product(name="墨舒云"),
        )),
    )  # fmt: skip
    return market().model_copy(update={"competitors": companies})


FINDER = NameFinder(named_market())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love my Ondine Folio", ["Ondine Folio"]),
        ("ONDINE FOLIO, ondine, Ｏｎｄｉｎｅ", ["Ondine Folio", "Ondine", "Ondine"]),
        ("Ondines and Penrilled", []),  # no word ends there
        ("Ondine's support", ["Ondine"]),
        ("用了Folio之后换墨舒M2", ["Ondine Folio", "墨舒 M2 纸感平板"]),
        ("墨舒M2纸感平板比M2强", ["墨舒 M2 纸感平板"] * 2),  # written without its blanks
        ("墨 舒", []),
        ("墨舒 M2 纸感平板到了", ["墨舒 M2 纸感平板"]),
        ("墨舒云挺好", ["墨舒云"]),  # not the company inside it
        ("我们家墨舒真好", ["Moshu"]),
        ("a folio of drawings", []),  # a common word in small letters
        ("My Folio", ["Ondine Folio"]),
        ("30 m2 of floor", []),
        ("the M2 is", ["墨舒 M2 纸感平板"]),
        ("Ondine Cloud Note", ["Ondine Cloud"]),  # as long as the other, and first
        ("Cloud Note", ["Cloud Note"]),
        ("Ondine  \n Paper", ["Ondine"]),
        ("OndinePaper", []),
        ("someone's 2ondine, Penrill_2", []),
        ("ondine-cloud", ["Ondine"]),
        ("One for someone, everyONE and phone", ["One"]),
        ("one more", []),
        ("Die STRASSE 7, die strasse 7, die Straße 7", ["Penrill"] * 3),
        ("ẞẞ Ondine", ["Ondine"]),  # folding makes the text longer
        ("", []),
    ],
)
def test_names_are_found(text: str, expected: list[str]) -> None:
    assert [mention.name for mention in FINDER.find(text)] == expected


def test_a_mention_says_where_it_stands_though_folding_makes_the_text_longer() -> None:
    text = "ẞß ONDINE，大STRASSE 7"
    assert [text[m.start : m.end] for m in FINDER.find(text)] == ["ONDINE", "STRASSE 7"]


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["墨舒", "Ondine Folio", "Penrill"]))
def test_a_name_between_blanks_is_always_found_and_mentions_never_overlap(before: str, after: str, name: str) -> None:
    text = f"{before} {name} {after}"
    mentions = FINDER.find(text)
    assert any(name in normal(text)[m.start : m.end] for m in mentions)
    assert all(a.end <= b.start for a, b in itertools.pairwise(mentions))


def test_what_is_known_is_known_in_part_too() -> None:
    for text in ("Folio", "folio", "the new Ondine Folio 2", "M2", "墨舒", "Cloud", "平板"):
        assert FINDER.knows(text), text
    for text in ("Kindle", "Inkwell Pro", "", "Fol", "小米"):
        assert not FINDER.knows(text), text


def test_a_part_of_a_word_is_no_name() -> None:
    assert whole_word("my Kindle.", 3, 9)
    assert not whole_word("my Kindles", 3, 9)
    assert not whole_word("aKindle", 1, 7)
    assert whole_word("用Kindle看", 1, 7)
    assert whole_word("小米手机", 0, 2)
    assert not whole_word("a", 1, 1)


def claims(*rows: tuple[str, str, int]) -> pl.DataFrame:
    """Statements by company, text and days from the week's start."""
    made = []
    for position, (company_id, text, days) in enumerate(rows):
        row = dict.fromkeys(TABLES["claims"].schema.names())
        row.update(
            snapshot_id=f"{company_id}-page-{days}",
            company_id=company_id,
            source_id=f"{company_id}-page",
            url="https://a.example",
            fetched_at=WEEK.start + timedelta(days=days, hours=6),
            position=position,
            kind="statement",
            text=text,
        )
        made.append(row)
    return pl.DataFrame(made, schema=TABLES["claims"].schema)


def voice(made: Reviews, *rows: tuple[str, str, int]) -> Voice:
    return share_of_voice(join_reviews(*made.frames(), WEEK), claims(*rows), named_market(), WEEK)


def share(found: Voice, company_id: str) -> dict[str, Any]:
    return found.shares.row(by_predicate=pl.col("company_id") == company_id, named=True)


def test_mentions_are_texts_and_self_mentions_stay_apart() -> None:
    made = Reviews()
    made.add("positive", company_id="ondine", text="Ondine Ondine Ondine, my Folio!")  # one mention
    made.add("positive", company_id="penrill", text="Better than my Ondine Folio, says a Penrill owner.")  # two
    made.add("positive", company_id="penrill", text="Nothing to say.")
    day = (WEEK.back(2).start + timedelta(days=1)).date()
    made.add("positive", company_id="moshu", text="比 Penrill 好", day=day)
    found = voice(
        made,
        ("ondine", "Ondine Folio is new", 1),  # of itself
        ("penrill", "Faster than Ondine", 1),
        ("penrill", "Faster than Ondine", 3),  # the same again
        ("penrill", "Faster than Moshu", -40),  # before the baseline
        ("penrill", "Faster than Moshu", 2),
        ("moshu", "墨舒云上线", -3),
    )
    ondine, penrill, moshu = (share(found, name) for name in ("ondine", "penrill", "moshu"))
    assert (ondine["mentions_week"], ondine["self_mentions_week"]) == (3, 1)
    assert (ondine["in_own_reviews"], ondine["in_other_reviews"], ondine["on_other_pages"]) == (1, 1, 1)
    assert (penrill["mentions_week"], penrill["mentions_baseline"], penrill["in_own_reviews"]) == (1, 1, 1)
    assert (moshu["mentions_week"], moshu["self_mentions_baseline"], moshu["share_week"]) == (0, 1, 0.0)
    assert (found.total_week, found.total_baseline, found.texts_week) == (4, 1, 5)
    assert ondine["share_week"] == 0.75
    assert (ondine["low"], ondine["high"]) == share_interval(3, 4)
    assert ondine["delta"] == 0.75
    assert (ondine["delta_low"], ondine["delta_high"]) == difference_interval(3, 4, 0, 1)
    assert ondine["snapshot_ids"] == ["ondine-reviews", "penrill-reviews", "penrill-page-1"]
    assert sum(share(found, c.id)["share_week"] for c in named_market().companies) == pytest.approx(1)


def test_without_texts_there_is_no_share() -> None:
    found = voice(Reviews())
    assert (found.texts_week, found.total_week) == (0, 0)
    assert found.shares["share_week"].null_count() == found.shares.height == 4
    assert found.also.is_empty()


def entity(text: str, name: str, label: str = "product") -> list[dict[str, Any]]:
    start = text.index(name)
    return [{"start": start, "end": start + len(name), "label": label, "text": name}]


def test_what_else_is_named_is_counted_by_review() -> None:
    made = Reviews()
    for text in ("My Kindle was better.", "Back to my KINDLE", "Sold the kindle, alas"):
        word = next(word for word in ("Kindle", "KINDLE", "kindle") if word in text)
        made.add("negative", text=text, entities=entity(text, word) * 2)
    day = (WEEK.back(1).start + timedelta(days=1)).date()
    for text, name, more in (
        ("A Kindle again", "Kindle", {"day": day}),
        ("用过小米平板", "小米平板", {}),
        ("the pen is fine", "pen", {}),  # a plain word
        ("Kindles here", "Kindle", {}),  # a part of a word
        ("Ondine Folio", "Folio", {}),  # known
        ("number 42", "42", {}),
    ):
        made.add(
            "positive", text=text, entities=entity(text, name, "brand" if name == "小米平板" else "product"), **more
        )
    also = voice(made).also.to_dicts()
    assert [(row["name"], row["label"], row["mentions_week"], row["mentions_baseline"]) for row in also] == [
        ("Kindle", "product", 3, 1), ("小米平板", "brand", 1, 0),
    ]  # fmt: skip
    assert also[0]["company_ids"] == ["ondine"]
    assert also[0]["snapshot_ids"] == ["ondine-reviews"]


def test_a_capital_at_the_beginning_of_a_sentence_makes_no_name() -> None:
    made = Reviews()
    for text, name in (
        ("If it only worked.", "If"),
        ("Fine. If it only worked", "If"),
        ("Title\nIf only", "If"),
        ("“No, thanks", "No"),
        ("One week and no fix", "no"),
        ("No ruler", "No"),
        ("Remarkable is better", "Remarkable"),
        ("Better than Remarkable.", "Remarkable"),
        ("iPad then", "iPad"),
        ("Inkwell Pro is fine", "Inkwell Pro"),
        ("小米好", "小米"),
    ):
        made.add("positive", text=text, entities=entity(text, name))
    assert {row["name"]: row["mentions_week"] for row in voice(made).also.to_dicts()} == {
        "Remarkable": 2, "iPad": 1, "Inkwell Pro": 1, "小米": 1,
    }  # fmt: skip
