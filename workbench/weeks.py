"""ISO weeks: the unit of a report.

A week is written ``2026-W47`` (ISO 8601), starts on Monday 00:00 UTC and ends before the next Monday 00:00 UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from workbench.errors import ParameterError

__all__ = ["Week"]

_FORM = re.compile(r"(\d{4})-W(\d{2})")


@dataclass(frozen=True, order=True)
class Week:
    """One ISO week in UTC."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Week:
        """Read ``2026-W47``. Raises ParameterError for any other form or a week the year does not have."""
        match = _FORM.fullmatch(text.strip())
        if match:
            year, number = int(match[1]), int(match[2])
            try:
                date.fromisocalendar(year, number, 1)
            except ValueError:
                pass
            else:
                return cls(year, number)
        raise ParameterError(
            f"{text!r} is not an ISO week. Write it as year, W and two digits, for example --week 2026-W47."
        )

    @classmethod
    def of(cls, moment: date | datetime) -> Week:
        """The week a day or an aware moment falls in."""
        if isinstance(moment, datetime):
            moment = moment.astimezone(timezone.utc)
        iso = moment.isocalendar()
        return cls(iso.year, iso.week)

    @property
    def start(self) -> datetime:
        """Monday 00:00 UTC."""
        monday = date.fromisocalendar(self.year, self.number, 1)
        return datetime(monday.year, monday.month, monday.day, tzinfo=timezone.utc)

    @property
    def end(self) -> datetime:
        """The next Monday 00:00 UTC, exclusive."""
        return self.start + timedelta(days=7)

    def back(self, weeks: int) -> Week:
        """The week so many weeks earlier (negative: later)."""
        return Week.of(self.start - timedelta(weeks=weeks))

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def __str__(self) -> str:
        return f"{self.year}-W{self.number:02d}"
