"""Amounts of money: how they are written, compared and brought to one period and one currency."""

from __future__ import annotations

from decimal import Decimal

from workbench.workspace import CurrencyPolicy

__all__ = [
    "PER_MONTH",
    "base_amount",
    "format_amount",
    "format_percent",
    "format_plan_price",
    "monthly_amount",
    "percent_change",
]

_DAYS_A_MONTH = Decimal(365) / 12

PER_MONTH: dict[str, Decimal] = {
    "hour": 24 * _DAYS_A_MONTH,
    "day": _DAYS_A_MONTH,
    "week": _DAYS_A_MONTH / 7,
    "month": Decimal(1),
    "quarter": Decimal(1) / 3,
    "year": Decimal(1) / 12,
}
"""How many of a billing period a month has, with a year of 365 days. ``once`` has no monthly amount."""

_STEP = Decimal("0.0001")


def format_amount(amount: Decimal | None, currency: str | None) -> str:
    """``USD 1,299`` or ``CNY 12.50``; without a currency the number alone, without an amount ``no price``."""
    if amount is None:
        return "no price"
    exact = amount.normalize()
    places = max(0, -int(exact.as_tuple().exponent))
    # Whole amounts need no decimals; anything else gets at least two, as on a price tag.
    number = f"{exact:,.{max(places, 2) if places else 0}f}"
    return f"{currency} {number}" if currency else number


def format_plan_price(
    amount: Decimal | None, currency: str | None, *, period: str | None = None, per_unit: str | None = None
) -> str:
    """``USD 12 per user per month``; 0 is ``free``, None ``price on request``."""
    if amount is None:
        return "price on request"
    if amount == 0:
        return "free"
    words = [format_amount(amount, currency)]
    if per_unit:
        words.append(f"per {per_unit}")
    if period:
        words.append("once" if period == "once" else f"per {period}")
    return " ".join(words)


def format_percent(percent: float) -> str:
    """Size without sign and with one decimal: ``11.1%``; tiny moves keep two: ``0.04%``."""
    size = abs(percent)
    return f"{size:.2f}%" if 0 < size < 0.1 else f"{size:.1f}%"


def percent_change(before: Decimal, after: Decimal) -> float | None:
    """The move in percent of ``before``; None when ``before`` is 0, of which nothing is a percentage."""
    if before == 0:
        return None
    return float((after - before) / before * 100)


def monthly_amount(amount: Decimal | None, period: str | None) -> Decimal | None:
    """``amount`` for one month, to four decimals; None for a period that is unknown or ``once``. Free stays 0."""
    if amount is None:
        return None
    if amount == 0:
        return Decimal(0)
    times = PER_MONTH.get(period or "")
    return None if times is None else (amount * times).quantize(_STEP)


def base_amount(amount: Decimal | None, currency: str | None, policy: CurrencyPolicy) -> Decimal | None:
    """``amount`` in the workspace's base currency; None where the workspace gives no rate for ``currency``."""
    if amount is None or currency is None:
        return None
    if currency == policy.base:
        return amount
    rate = policy.rates.get(currency)
    return None if rate is None else (amount * rate).quantize(_STEP)
