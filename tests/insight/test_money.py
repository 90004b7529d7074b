"""Amounts as written, per month and in one currency."""

from __future__ import annotations

from decimal import Decimal

import pytest

from workbench.insight.money import (
    base_amount,
    format_amount,
    format_percent,
    format_plan_price,
    monthly_amount,
    percent_change,
)
from workbench.workspace import CurrencyPolicy


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("1299.0000", "USD", "USD 1,299"),
        ("12.5000", "CNY", "CNY 12.50"),
        ("0.0125", "USD", "USD 0.0125"),
        ("100", None, "100"),
        ("0.0000", "USD", "USD 0"),
        ("1000000", "JPY", "JPY 1,000,000"),
    ],
)
def test_format_amount(amount: str, currency: str | None, expected: str) -> None:
    assert format_amount(Decimal(amount), currency) == expected


def test_plan_prices_in_words() -> None:
    assert format_plan_price(Decimal(12), "USD", period="month", per_unit="user") == "USD 12 per user per month"
    assert format_plan_price(Decimal(99), "USD", period="once") == "USD 99 once"
    assert format_plan_price(Decimal(0), "USD", period="month") == "free"
    assert format_plan_price(None, "USD") == "price on request"


def test_percent() -> None:
    assert percent_change(Decimal(449), Decimal(399)) == pytest.approx(-11.1359, abs=1e-4)
    assert percent_change(Decimal(0), Decimal(5)) is None
    assert [format_percent(p) for p in (-11.1359, 0.04, 100.0, 0.0)] == ["11.1%", "0.04%", "100.0%", "0.0%"]


@pytest.mark.parametrize(
    ("amount", "period", "expected"),
    [
        ("120", "year", "10"),
        ("30", "quarter", "10"),
        ("12", "month", "12"),
        ("7", "week", "30.4167"),  # 7 × 365 / 12 / 7
        ("1", "day", "30.4167"),
        ("0", None, "0"),
        ("99", "once", None),
        ("99", None, None),
        (None, "month", None),
    ],
)
def test_monthly_amount(amount: str | None, period: str | None, expected: str | None) -> None:
    found = monthly_amount(None if amount is None else Decimal(amount), period)
    assert found == (None if expected is None else Decimal(expected))


def test_base_amount_needs_a_rate() -> None:
    policy = CurrencyPolicy.model_validate({"base": "USD", "rates": {"EUR": "1.10"}})
    assert base_amount(Decimal(100), "EUR", policy) == Decimal(110)
    assert base_amount(Decimal(100), "USD", policy) == Decimal(100)
    assert base_amount(Decimal(100), "CNY", policy) is None
    assert base_amount(Decimal(100), None, policy) is None
