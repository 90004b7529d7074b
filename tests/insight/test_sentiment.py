"""Review sentiment against the four weeks before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insight_world import WEEK, market
from scored_world import ENGINE, Reviews

from workbench.insight.proportions import correct_for_many, difference_interval, difference_p
from workbench.insight.readout import build_readout
from workbench.insight.scored import SCORED_REVIEWS, ScoredReviews, join_reviews, text_id, with_topics
from workbench.insight.sentiment import ALL, SHIFTS, sentiment_shifts, telling_shifts, topic_minimum, topic_name
from workbench.insight.stars import agreement_with_stars, mean_stars
from workbench.insight.verbatims import choose_verbatims
from workbench.scoring.texts import select_texts
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.workspace import Topic

OTHER = "bbbbbbbbbbbbbbbb"
NO_CHANGES = pl.DataFrame(schema=TABLES["changes"].schema)


def joined(reviews: Reviews) -> ScoredReviews:
    return join_reviews(*reviews.frames(), WEEK)


def shifts(reviews: Reviews, **thresholds: Any) -> list[dict[str, Any]]:
    return sentiment_shifts(joined(reviews), market(**thresholds)).to_dicts()


def cell(rows: list[dict[str, Any]], topic: str = ALL, measure: str = "negative", company: str = "ondine") -> Any:
    found = [r for r in rows if (r["company_id"], r["topic"], r["measure"]) == (company, topic, measure)]
    assert len(found) == 1
    return found[0]


def outbreak() -> Reviews:
    """Ondine: 4 of 32 negative before, 31 of 45 now, 26 of them on bugs; Larkpaper as ever."""
    made = Reviews()
    for back in (1, 2, 3, 4):
        made.fill(1, "negative", "bug", weeks_back=back)
        made.fill(7, "positive", "quality", weeks_back=back)
        made.fill(8, "positive", "quality", weeks_back=back, company_id="larkpaper")
    made.fill(26, "negative", "bug", "service")
    made.fill(5, "negative", "price")
    made.fill(14, "positive", "quality")
    made.fill(32, "positive", "quality", company_id="larkpaper")
    return made


# Texts, weeks and engines


def test_a_text_has_the_id_under_which_it_is_scored(tmp_path: Any) -> None:
    made = Reviews()
    made.add("positive", text=" 好用。\n", title="Great ")
    made.add("positive", text="Fine", title=None)
    reviews, _ = made.frames()
    lake = Lake(tmp_path)
    lake.upsert("reviews", reviews)
    selected = select_texts(lake, market(), WEEK)
    assert set(joined(made).rows["text_id"]) == set(selected["text_id"])
    assert set(joined(made).rows["text"]) == set(selected["text"])
    assert joined(made).engines["sentiment"].missing_week == 0
    assert selected["text_id"].to_list() == [text_id(text) for text in selected["text"]]


@pytest.mark.parametrize(
    ("published", "seen", "side"),
    [
        (0, 0, "week"),
        (-1, 2, "baseline"),  # Sunday before, seen on Wednesday
        (None, 2, "week"),  # no date: when it was seen
        (None, -9, "baseline"),
        (-28, 2, "baseline"),  # the first day of the baseline
        (-29, 2, None),
        (6, 6, "week"),
        (7, 6, None),  # tomorrow where the site is: next week's
        (40, 2, "week"),  # a date that cannot be
    ],
)
def test_a_review_belongs_to_one_week(published: int | None, seen: int, side: str | None) -> None:
    made = Reviews()
    day = None if published is None else (WEEK.start + timedelta(days=published)).date()
    made.add("positive", day=day, seen=WEEK.start + timedelta(days=seen, hours=5))
    assert joined(made).rows["side"].to_list() == ([side] if side else [])


def test_what_was_seen_after_the_week_is_not_known_yet() -> None:
    made = Reviews()
    made.add("positive", day=WEEK.start.date(), seen=WEEK.end)
    assert joined(made).rows.is_empty()


def test_the_same_words_of_two_people_are_two_reviews() -> None:
    made = Reviews()
    made.add("positive", text="很好")
    made.add("positive", text="很好")
    assert joined(made).rows["has_sentiment"].to_list() == [True, True]


def test_two_engines_are_never_mixed() -> None:
    made = Reviews()
    made.fill(6, "negative", weeks_back=2, engine_id=OTHER)
    made.fill(4, "positive", weeks_back=1)
    made.fill(9, "positive")
    made.fill(1, "positive", engine_id=None)
    found = joined(made)
    use = found.engines["sentiment"]
    assert (use.engine_id, use.model, use.precision) == (ENGINE, "reviews 1", "fp32")
    assert (use.scored_week, use.scored_baseline, use.missing_week, use.missing_baseline) == (9, 4, 1, 6)
    assert use.other_engines == {OTHER: 6}
    assert found.rows.filter(pl.col("sentiment") == "negative").is_empty()
    whole = cell(shifts(made, min_reviews=3))
    assert (whole["reviews_week"], whole["reviews_baseline"]) == (9, 4)


def test_the_engine_of_this_week_wins_over_one_with_more_of_the_past() -> None:
    made = Reviews()
    made.fill(20, "negative", weeks_back=2, engine_id=OTHER)
    made.fill(5, "negative", engine_id=OTHER)
    made.fill(6, "positive")
    assert joined(made).engines["sentiment"].engine_id == ENGINE


def test_nothing_scored_is_no_statement() -> None:
    made = Reviews()
    made.fill(40, "negative", engine_id=None)
    found = joined(made)
    assert not found.any_scores
    assert found.engines["topics"].missing_week == 40
    assert sentiment_shifts(found, market()).is_empty()
    assert found.rows.schema == SCORED_REVIEWS


# Shifts


def test_a_shift_has_its_counts_interval_and_q() -> None:
    rows = shifts(outbreak())
    whole = cell(rows)
    counts = (31, 45, 4, 32)
    assert (whole["cases_week"], whole["reviews_week"], whole["cases_baseline"], whole["reviews_baseline"]) == counts
    assert whole["delta"] == pytest.approx(31 / 45 - 4 / 32, abs=1e-6)
    assert (whole["low"], whole["high"]) == difference_interval(*counts)
    assert whole["p"] == difference_p(*counts)
    tested = [row for row in rows if row["p"] is not None]
    assert [row["q"] for row in tested] == correct_for_many([row["p"] for row in tested])
    assert whole["verdict"] == "shift"
    assert (whole["positive_week"], whole["positive_baseline"]) == (14, 28)
    assert whole["score_week"] == pytest.approx((14 - 31) / 45 * 0.85, abs=1e-4)
    assert cell(rows, company="larkpaper")["verdict"] == "no shift"


def test_a_burst_of_bug_reports_shows_as_complaints() -> None:
    rows = shifts(outbreak())
    mood = cell(rows, "bug")  # all negative before and now, and only 4 before
    assert (mood["cases_week"], mood["reviews_week"], mood["cases_baseline"], mood["reviews_baseline"]) == (
        26,
        26,
        4,
        4,
    )
    assert (mood["verdict"], mood["delta"], mood["share_week"]) == ("not enough reviews", None, 1.0)
    complaints = cell(rows, "bug", "complaints")
    assert (complaints["cases_week"], complaints["reviews_week"]) == (26, 45)
    assert complaints["verdict"] == "shift"
    assert {(row["topic"], row["measure"]) for row in telling_shifts(rows)} == {
        (ALL, "negative"), ("bug", "complaints"), ("service", "complaints"),
    }  # fmt: skip


def test_too_few_reviews_are_said_to_be_too_few() -> None:
    made = Reviews()
    made.fill(29, "negative", "price")
    made.fill(40, "positive", "price", weeks_back=1)
    whole = cell(shifts(made))
    assert (whole["verdict"], whole["share_week"], whole["delta"], whole["q"]) == (
        "not enough reviews",
        None,
        None,
        None,
    )
    assert (whole["reviews_week"], whole["needed"], whole["share_baseline"]) == (29, 30, 0.0)
    assert cell(shifts(made), "price", "complaints")["verdict"] == "not enough reviews"
    assert cell(shifts(made), "price")["verdict"] == "shift"  # a topic needs fewer
    made.fill(1, "positive", "price")
    assert cell(shifts(made))["verdict"] == "shift"


def test_the_minimum_of_a_topic() -> None:
    assert [topic_minimum(n) for n in (1, 3, 5, 10, 30, 100)] == [1, 3, 5, 5, 6, 20]


def test_companies_and_topics_have_an_order_and_each_cell_its_evidence() -> None:
    rows = shifts(outbreak())
    assert list(dict.fromkeys(row["company_id"] for row in rows)) == ["larkpaper", "ondine", "moshu"]
    ondine = list(dict.fromkeys(row["topic"] for row in rows if row["company_id"] == "ondine"))
    assert ondine == [ALL, "price", "quality", "service", "bug"]
    assert cell(rows)["snapshot_ids"] == ["ondine-reviews"]
    assert cell(rows, company="larkpaper")["snapshot_ids"] == []  # no negative review, nothing to show


def test_topics_of_another_model_are_kept() -> None:
    made = Reviews()
    made.fill(8, "negative", "pen feel")
    made.fill(8, "negative", "pen feel", weeks_back=1)
    rows = shifts(made, min_reviews=5)
    assert cell(rows, "pen feel", "complaints")["verdict"] == "no shift"
    assert topic_name(market(), "pen feel") == "Pen feel"
    named = market().model_copy(update={"topics": (Topic(id="feature-request", label="Wishes"),)})
    assert topic_name(named, "feature request") == "Wishes"


def test_one_good_day_among_many_comparisons_is_chance() -> None:
    made = Reviews()
    # p of about 0.03 alone; nineteen other comparisons make it nothing.
    made.fill(14, "negative", "price", company_id="ondine")
    made.fill(16, "positive", "price", company_id="ondine")
    made.fill(5, "negative", "price", weeks_back=1)
    made.fill(25, "positive", "price", weeks_back=1)
    for company in ("larkpaper", "moshu"):
        for topic in ("quality", "delivery", "service", "bug", "usability"):
            made.fill(6, "positive", topic, company_id=company)
            made.fill(6, "positive", topic, company_id=company, weeks_back=2)
    whole = cell(shifts(made))
    assert whole["p"] < 0.05
    assert whole["low"] > 0
    assert (whole["verdict"], whole["q"] > 0.05) == ("no shift", True)


@given(
    week=st.lists(st.sampled_from(["negative", "neutral", "positive"]), max_size=25),
    before=st.lists(st.sampled_from(["negative", "neutral", "positive"]), max_size=25),
    needed=st.integers(1, 12),
)
def test_counts_add_up_whatever_comes(week: list[str], before: list[str], needed: int) -> None:
    made = Reviews()
    for labels, back in ((week, 0), (before, 3)):
        for label in labels:
            made.fill(1, label, weeks_back=back)
    rows = shifts(made, min_reviews=needed)
    if not rows:
        assert not week
        assert not before
        return
    whole = cell(rows)
    assert (whole["reviews_week"], whole["reviews_baseline"]) == (len(week), len(before))
    assert (whole["cases_week"], whole["positive_week"]) == (week.count("negative"), week.count("positive"))
    enough = min(len(week), len(before)) >= needed
    assert (whole["verdict"] != "not enough reviews") == enough
    assert (whole["delta"] is not None) == (whole["q"] is not None) == enough
    assert pl.DataFrame(rows, schema=SHIFTS).height == len(rows)


def test_a_text_nothing_can_be_said_of_is_no_review_to_count() -> None:
    made = outbreak()
    made.add(None, text="!!!")
    found = joined(made)
    assert found.rows.filter(pl.col("has_sentiment"), pl.col("sentiment").is_null()).height == 1
    assert cell(shifts(made))["reviews_week"] == 45


# Stars


def test_stars_are_compared_with_the_reading() -> None:
    made = Reviews()
    made.fill(20, "positive", rating=9.0, rating_scale=10.0)
    made.fill(10, "negative", rating=5.0, rating_scale=5.0)
    made.fill(5, "negative", rating=1.0, rating_scale=5.0)
    made.fill(5, "negative", rating=3.0, rating_scale=5.0)  # says nothing clear
    made.fill(5, "negative")  # no stars
    agreement = agreement_with_stars(joined(made).rows)
    assert (agreement.rated, agreement.agree, agreement.doubtful) == (35, 25, True)
    assert agreement.share == pytest.approx(25 / 35, abs=1e-6)
    assert mean_stars(joined(made).rows) == pytest.approx((20 * 4.5 + 50 + 5 + 15) / 40)
    assert mean_stars(joined(Reviews()).rows) is None
    assert agreement_with_stars(joined(Reviews()).rows).share is None


# Quotes


def quotes(made: Reviews, number: int = 3, **more: Any) -> list[dict[str, Any]]:
    return choose_verbatims(joined(made).rows, number, **more)


def test_the_sure_and_telling_are_quoted() -> None:
    made = Reviews()
    made.add("negative", text="Bad.", p=0.99)
    made.add(
        "negative", text="The sync stopped after 3 pages and lost my notes of two weeks; support is silent.", p=0.97
    )
    made.add("negative", text="It is not what I had thought it would be when I ordered it for my studies.", p=0.55)
    assert [row["review_id"] for row in quotes(made, 2)] == ["r0001", "r0002"]


def test_what_its_own_stars_contradict_is_quoted_last() -> None:
    made = Reviews()
    long = "The sync stopped after 3 pages and lost my notes of two weeks; support is silent."
    made.add("positive", text=long, p=0.99, rating=1.0, rating_scale=5.0)
    text = "Works as it should, on the train too, and the pen is good."
    made.add("positive", text=text, p=0.6, rating=10.0, rating_scale=10.0)
    made.add("positive", text="No stars here, but the paper feel is what I wanted.", p=0.55, rating=None)
    made.add("positive", text="Three stars of five are neither here nor there, I think.", p=0.5, rating=3.0)
    assert [row["review_id"] for row in quotes(made, 4)] == ["r0001", "r0002", "r0003", "r0000"]
    made = Reviews()
    made.add("negative", rating=5.0)
    assert len(quotes(made)) == 1  # better than none


def test_nearly_the_same_is_quoted_once() -> None:
    made = Reviews()
    text = "The sync stopped after {} pages and lost my notes of two whole weeks."
    for number in (3, 4, 5):
        made.add("negative", text=text.format(number))
    made.add("negative", text="同步三天都失败，客服没有回复，笔记丢了两周的内容，非常失望。")
    assert [row["language"] is not None and row["text"][:2] for row in quotes(made)] == ["Th", "同步"]


def test_nobody_is_quoted_twice() -> None:
    made = Reviews()
    for _ in range(3):
        made.add("negative", author_hash="a")
    assert len(quotes(made)) == 1


def test_quotes_are_shared_out_as_the_reviews_are() -> None:
    made = Reviews()
    made.fill(20, "positive")
    made.fill(10, "negative")
    assert [row["sentiment"] for row in quotes(made)] == ["positive", "positive", "negative"]
    taken = {quotes(made)[0]["review_id"]}
    again = quotes(made, taken=taken)
    assert len(taken) == 4
    assert len({row["review_id"] for row in again}) == 3
    assert quotes(Reviews()) == []


@given(st.lists(st.sampled_from(["negative", "neutral", "positive"]), max_size=30), st.integers(0, 6))
def test_never_more_quotes_than_asked_for(labels: list[str], number: int) -> None:
    made = Reviews()
    for label in labels:
        made.add(label)
    assert len(quotes(made, number)) == min(number, len(labels))


# Findings


def test_a_shift_can_be_a_finding() -> None:
    frame = sentiment_shifts(joined(outbreak()), market())
    readout = build_readout(NO_CHANGES, market(), WEEK, sentiment=frame)
    (finding,) = readout.findings
    assert (finding.company_id, finding.severity, finding.confidence) == ("ondine", "high", 0.85)
    assert "rose from 12 % to 69 %: 31 of 45 this week, 4 of 32 in the four weeks before" in finding.headline
    assert "“Bug”" in finding.headline
    assert finding.change_ids == ()
    assert finding.snapshot_ids == ("ondine-reviews",)
    assert "+56 points, 95 % interval +35 to +70" in finding.facts[0].text
    assert any(
        "Complaints about “Bug”: " in fact.text or "Complaints about “Bug” in" in fact.text for fact in finding.facts
    )
    assert "may" in finding.so_what
    assert not readout.quiet
    assert readout.summary.startswith("1 finding from the week's reviews")


def test_a_shift_for_the_better_is_told_as_one() -> None:
    made = Reviews()
    made.fill(30, "negative", "bug", weeks_back=1)
    made.fill(10, "positive", "quality", weeks_back=2)
    made.fill(40, "positive", "quality")
    readout = build_readout(NO_CHANGES, market(), WEEK, sentiment=sentiment_shifts(joined(made), market()))
    (finding,) = readout.findings
    assert "fell from 75 % to 0 %" in finding.headline
    assert finding.severity == "medium"
    assert "may" in finding.so_what


def test_the_own_company_and_small_shifts_are_no_finding() -> None:
    made = Reviews()
    made.fill(60, "negative", company_id="larkpaper")
    made.fill(60, "positive", company_id="larkpaper", weeks_back=1)
    made.fill(2000, "positive", text="Good.")
    made.fill(150, "negative", text="Bad.")
    made.fill(2000, "positive", text="Good.", weeks_back=1)
    made.fill(30, "negative", text="Bad.", weeks_back=1)
    frame = sentiment_shifts(joined(made), market())
    rows = frame.to_dicts()
    assert (cell(rows)["verdict"], cell(rows, company="larkpaper")["verdict"]) == ("shift", "shift")
    assert build_readout(NO_CHANGES, market(), WEEK, sentiment=frame).quiet


# Statements


def test_statements_get_their_topics() -> None:
    made = Reviews()
    known = made.add("positive", "usability", text="Undo with a two-finger tap")
    made.score(known, None, ("bug",), engine_id=OTHER, tasks=("topics",))
    claims = pl.DataFrame({"text": ["Undo with a two-finger tap", "Not read"], "n": [1, 2]})
    rows = with_topics(claims, made.frames()[1])
    assert rows["topics"].to_list() == [["usability"], None]
    assert with_topics(claims, made.frames()[1].clear())["topics"].null_count() == 2
