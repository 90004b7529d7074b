from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.weeks import Week


def test_week_starts_on_monday_and_ends_before_the_next():
    week = Week.parse("2026-W47")
    assert week.start == datetime(2026, 11, 16, tzinfo=timezone.utc)
    assert week.end == datetime(2026, 11, 23, tzinfo=timezone.utc)
    assert week.start in week
    assert week.end not in week


def test_a_week_may_belong_to_the_next_year():
    assert str(Week.of(date(2026, 1, 1))) == "2026-W01"
    assert str(Week.of(date(2027, 1, 1))) == "2026-W53"


@pytest.mark.parametrize("text", ["2026-47", "2026-W54", "2025-W53", "2026-W00", "26-W01", "", "2026-W471"])
def test_what_is_no_week_is_told_so(text):
    with pytest.raises(ParameterError, match="for example --week 2026-W47"):
        Week.parse(text)


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.integers(-200, 200))
def test_back_and_forth(day, weeks):
    week = Week.of(day)
    assert Week.parse(str(week)) == week
    assert week.back(weeks).back(-weeks) == week
    assert week.back(1).end == week.start
    assert week.start <= datetime(day.year, day.month, day.day, tzinfo=timezone.utc) < week.end


def test_a_moment_is_taken_in_utc():
    tokyo = timezone(timedelta(hours=9))
    assert str(Week.of(datetime(2026, 11, 16, 5, tzinfo=tokyo))) == "2026-W46"
