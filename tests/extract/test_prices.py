"""Price texts: formats of many places, what is no price, and round trips."""

from __future__ import annotations

from decimal import Decimal

import pytest
from babel.numbers import format_currency
from hypothesis import given
from hypothesis import strategies as st

from workbench.extract.currencies import Market, currency_from_sign
from workbench.extract.prices import find_prices, parse_price, plain_digits

CHINA, JAPAN, CANADA = Market("zh", "CN"), Market("ja", "JP"), Market("en", "CA")


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("$1,299.00", "1299.00", "USD"),
        ("1.234,56 €", "1234.56", "EUR"),
        ("1 234,56 zł", "1234.56", "PLN"),
        ("CHF 1'234.50", "1234.50", "CHF"),
        ("CHF 1’234.50", "1234.50", "CHF"),
        ("₹12,34,567.00", "1234567.00", "INR"),
        ("١٬٢٣٤٫٥٠ ر.س", "1234.50", "SAR"),
        ("19 €95", "19.95", "EUR"),
        ("35€ 99", "35.99", "EUR"),
        ("€1.234,-", "1234", "EUR"),
        ("1.198,- Kr", "1198", "SEK"),
        ("R$ 1.299,90", "1299.90", "BRL"),
        ("NT$1,280", "1280", "TWD"),
        ("SGD$4.90", "4.90", "SGD"),
        ("NZD $100.70", "100.70", "NZD"),
        ("AU $59.95", "59.95", "AUD"),
        ("$ 12.00 CAD", "12.00", "CAD"),
        ("423.923 KD", "423.923", "KWD"),
        ("1.727 Ft", "1727", "HUF"),
        ("5000원", "5000", "KRW"),
        ("1299元起", "1299", "CNY"),
        ("1.2万元", "12000", "CNY"),
        ("Rs.635", "635", "INR"),
        ("430 руб.", "430", "RUB"),
        ("253,89 lei", "253.89", "RON"),
        ("12,50 лв.", "12.50", "BGN"),
        ("0.999 €", "0.999", "EUR"),
        ("$.75", "0.75", "USD"),
        ("$ 8. 94", "8.94", "USD"),
        ("130, 38 zł", "130.38", "PLN"),
        ("from £10.00 to £20.00", "10.00", "GBP"),
        ("From 26 to 50 €", "26", "EUR"),
        ("50 - $2.00", "2.00", "USD"),
        ("iPhone 12 €799", "799", "EUR"),
        ("3 for £10", "10", "GBP"),
        ("-20% $8", "8", "USD"),
        ("Free", "0", None),
        ("免费", "0", None),
        ("34.12 (40.94 inc VAT)", "34.12", None),
    ],
)
def test_price_texts_are_read(text: str, amount: str, currency: str | None) -> None:
    found = parse_price(text)
    assert found is not None
    assert (found.amount, found.currency) == (Decimal(amount), currency)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "-",
        "call us",
        "50% off",
        "$12.34.56",
        "July, 2004",
        "2026-11-03",
        "Free shipping on orders over $49",
        None,
    ],
)
def test_what_is_no_price_gives_none(text: str | None) -> None:
    assert parse_price(text) is None


def test_the_market_decides_what_an_ambiguous_sign_means() -> None:
    assert [currency_from_sign("$", market) for market in (None, CANADA, Market("zh", "TW"), Market("en", "AU"))] == [
        "USD",
        "CAD",
        "TWD",
        "AUD",
    ]
    assert [currency_from_sign("¥", market) for market in (CHINA, JAPAN, Market("zh", None), None)] == [
        "CNY",
        "JPY",
        "CNY",
        "JPY",
    ]
    assert [currency_from_sign("kr", Market(None, country)) for country in ("NO", "DK", "SE", "IS")] == [
        "NOK",
        "DKK",
        "SEK",
        "ISK",
    ]
    assert currency_from_sign("$", Market("en", "US", "MXN")) == "MXN"
    assert currency_from_sign("bottles") is None


def test_words_are_no_currency_codes_where_they_are_not_legal_tender() -> None:
    america = Market("en", "US")
    assert find_prices("TOP 10 gadgets, TRY 3 months, ALL 5 colours", america) == ()
    assert [price.currency for price in find_prices("1.299 TRY", Market("tr", "TR"))] == ["TRY"]


def test_all_prices_of_a_text_are_found_in_order_with_their_places() -> None:
    text = "Was $120.00, now $60.00; shipping 4,90 €"
    found = find_prices(text)
    assert [(str(price.amount), price.currency) for price in found] == [
        ("120.00", "USD"),
        ("60.00", "USD"),
        ("4.90", "EUR"),
    ]
    assert [text[price.start : price.end] for price in found] == ["$120.00", "$60.00", "4,90 €"]


def test_a_hint_gives_the_currency_that_the_text_lacks() -> None:
    found = parse_price("9,94", currency_hint="€")
    assert found is not None
    assert (found.amount, found.currency) == (Decimal("9.94"), "EUR")


def test_full_width_and_arabic_digits_become_plain() -> None:
    assert plain_digits("￥１，２９９．５０") == "￥1,299.50"
    assert plain_digits("۱۲۳٫۴") == "123.4"


LOCALES = [
    ("en_US", "USD"),
    ("en_GB", "GBP"),
    ("en_IN", "INR"),
    ("de_DE", "EUR"),
    ("de_CH", "CHF"),
    ("fr_FR", "EUR"),
    ("es_ES", "EUR"),
    ("it_IT", "EUR"),
    ("pt_BR", "BRL"),
    ("nl_NL", "EUR"),
    ("sv_SE", "SEK"),
    ("nb_NO", "NOK"),
    ("pl_PL", "PLN"),
    ("cs_CZ", "CZK"),
    ("ru_RU", "RUB"),
    ("uk_UA", "UAH"),
    ("tr_TR", "TRY"),
    ("zh_CN", "CNY"),
    ("zh_TW", "TWD"),
    ("en_CA", "CAD"),
    ("en_AU", "AUD"),
    ("he_IL", "ILS"),
    ("th_TH", "THB"),
]


@given(
    cents=st.integers(min_value=1, max_value=9_999_999_99),
    place=st.sampled_from(LOCALES),
)
def test_an_amount_written_as_its_country_writes_it_is_read_back(cents: int, place: tuple[str, str]) -> None:
    locale, currency = place
    amount = Decimal(cents) / 100
    language, _, country = locale.partition("_")
    text = format_currency(amount, currency, locale=locale)
    found = parse_price(text, Market(language, country))
    assert found is not None, text
    assert (found.amount, found.currency) == (amount, currency), text


@given(yen=st.integers(min_value=1, max_value=99_999_999))
def test_amounts_without_decimals_are_read_back(yen: int) -> None:
    found = parse_price(format_currency(yen, "JPY", locale="ja_JP"), JAPAN)
    assert found is not None
    assert (found.amount, found.currency) == (Decimal(yen), "JPY")


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    found = parse_price(text, CHINA, currency_hint=text)
    assert found is None or found.amount >= 0
    assert all(price.amount >= 0 and price.start <= price.end for price in find_prices(text))


@given(st.text(alphabet="0123456789.,' €$£¥元-/万％ ", max_size=40))
def test_heaps_of_digits_and_signs_are_read_without_an_error(text: str) -> None:
    found = parse_price(text)
    assert found is None or found.amount >= 0
