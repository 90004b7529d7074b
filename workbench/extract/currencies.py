"""Currency signs and the market a page sells in: what ``$`` or ``kr`` means depends on where the page is from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from babel.core import get_global
from babel.numbers import get_territory_currencies

from workbench.extract.document import Document

__all__ = ["CODES", "SIGNS", "TENDERS", "Market", "currency_from_sign", "is_local", "read_market"]

CODES = frozenset(get_global("all_currencies")) - {"XXX", "XTS"}
"""ISO 4217 codes, those no longer in use included."""

TENDERS = frozenset(
    code for country in get_global("territory_currencies") for code in get_territory_currencies(country)
)
"""ISO 4217 codes of the currencies in use."""

# A sign and the currencies it may mean; the first is meant where nothing else tells. An empty tuple: no ISO currency
# can be named without knowing the market. Written as on pages, so letter case counts where it must.
SIGNS: Mapping[str, tuple[str, ...]] = {
    "$": tuple(
        re.findall(
            r"\w+",
            """USD CAD AUD NZD SGD HKD TWD MXN ARS CLP COP UYU DOP BRL BBD BMD BND BSD BZD FJD GYD JMD KYD LRD NAD SBD
            SRD TTD XCD BOB NIO CVE""",
        )
    ),
    "€": ("EUR",),
    "£": ("GBP", "EGP", "FKP", "GIP", "SHP", "LBP", "SYP"),
    "￡": ("GBP",),
    "¥": ("JPY", "CNY"),
    "￥": ("JPY", "CNY"),
    "元": ("CNY", "TWD", "HKD"),
    "圆": ("CNY",),
    "圓": ("TWD", "HKD"),
    "人民币": ("CNY",),
    "人民幣": ("CNY",),
    "RMB": ("CNY",),
    "CN¥": ("CNY",),
    "yuan": ("CNY",),
    "円": ("JPY",),
    "yen": ("JPY",),
    "₩": ("KRW",),
    "원": ("KRW",),
    "₹": ("INR",),
    "₨": ("INR", "PKR", "LKR", "NPR", "MUR", "SCR"),
    "Rs": ("INR", "PKR", "LKR", "NPR", "MUR", "SCR"),
    "Rs.": ("INR", "PKR", "LKR", "NPR", "MUR", "SCR"),
    "Re": ("INR",),
    "र": ("INR",),
    "ரூ": ("LKR", "INR"),
    "රු": ("LKR",),
    "रू": ("NPR", "INR"),
    "৳": ("BDT",),
    "টকা": ("BDT",),
    "₽": ("RUB",),
    "руб": ("RUB", "BYN"),
    "руб.": ("RUB", "BYN"),
    "рублей": ("RUB", "BYN"),
    "рубля": ("RUB", "BYN"),
    "р.": ("RUB", "BYN"),
    "р": ("RUB", "BYN"),
    "Р": ("RUB",),
    "Rbl": ("RUB",),
    "₴": ("UAH",),
    "грн": ("UAH",),
    "грн.": ("UAH",),
    "hrn": ("UAH",),
    "₸": ("KZT",),
    "тг": ("KZT",),
    "тг.": ("KZT",),
    "тңг": ("KZT",),
    "тенге": ("KZT",),
    "so'm": ("UZS",),
    "сум": ("UZS",),
    "som": ("KGS", "UZS"),
    "сом": ("KGS",),
    "с": ("KGS",),
    "₾": ("GEL",),
    "ლ": ("GEL",),
    "ლარი": ("GEL",),
    "lari": ("GEL",),
    "֏": ("AMD",),
    "դր": ("AMD",),
    "դր.": ("AMD",),
    "₼": ("AZN",),
    "ман.": ("AZN", "TMT"),
    "Br": ("BYN", "ETB"),
    "ብር": ("ETB",),
    "zł": ("PLN",),
    "Zł": ("PLN",),
    "zl": ("PLN",),
    "Kč": ("CZK",),
    "Ft": ("HUF",),
    "lei": ("RON", "MDL"),
    "Lei": ("RON", "MDL"),
    "LEI": ("RON", "MDL"),
    "лв": ("BGN",),
    "лв.": ("BGN",),
    "kn": ("HRK",),
    "KM": ("BAM",),
    "км": ("BAM",),
    "din": ("RSD",),
    "дин": ("RSD",),
    "дин.": ("RSD",),
    "Дин": ("RSD",),
    "Dinara": ("RSD",),
    "динар": ("RSD",),
    "ден": ("MKD",),
    "ДЕН": ("MKD",),
    "Lek": ("ALL",),
    "L": ("HNL", "ALL", "MDL"),
    "TL": ("TRY",),
    "₺": ("TRY",),
    "₪": ("ILS",),
    "NIS": ("ILS",),
    "nis": ("ILS",),
    "ש״ח": ("ILS",),
    'ש"ח': ("ILS",),
    "ש'ח": ("ILS",),
    "ש''ח": ("ILS",),
    "ש.ח": ("ILS",),
    "kr": ("SEK", "NOK", "DKK", "ISK"),
    "kr.": ("DKK", "NOK", "SEK", "ISK"),
    "Kr": ("SEK", "NOK", "DKK", "ISK"),
    "Kr.": ("DKK", "NOK", "SEK", "ISK"),
    "KR": ("SEK", "NOK", "DKK", "ISK"),
    "₫": ("VND",),
    "đ": ("VND",),
    "VNĐ": ("VND",),
    "฿": ("THB",),
    "บาท": ("THB",),
    "₱": ("PHP",),
    "RM": ("MYR",),
    "Rp": ("IDR",),
    "៛": ("KHR",),
    "₭": ("LAK",),
    "Ks": ("MMK",),
    "Nu": ("BTN",),
    "Nu.": ("BTN",),
    "₮": ("MNT",),
    "Rf": ("MVR",),
    "ރ": ("MVR",),
    "R": ("ZAR",),
    "₦": ("NGN",),
    "KSh": ("KES",),
    "KShs": ("KES",),
    "TSh": ("TZS",),
    "USh": ("UGX",),
    "FRw": ("RWF",),
    "RF": ("RWF",),
    "R₣": ("RWF",),
    "FBu": ("BIF",),
    "Fbu": ("BIF",),
    "Fdj": ("DJF",),
    "GH₵": ("GHS",),
    "₵": ("GHS",),
    "CFA": ("XOF", "XAF"),
    "FCFA": ("XOF", "XAF"),
    "FG": ("GNF",),
    "GFr": ("GNF",),
    "Ar": ("MGA",),
    "MT": ("MZN",),
    "MK": ("MWK",),
    "ZK": ("ZMW",),
    "K": ("ZMW", "PGK"),
    "kwz": ("AOA",),
    "Kz": ("AOA",),
    "P": ("BWP",),
    "E": ("SZL",),
    "D": ("GMD",),
    "Db": ("STN",),
    "UM": ("MRU",),
    "Sl": ("SOS",),
    "SPL": (),
    "ናቕፋ": ("ERN",),
    "نافكا": ("ERN",),
    "Nfk": ("ERN",),
    "Dh": ("AED", "MAD"),
    "Dhs": ("AED", "MAD"),
    "DH": ("MAD", "AED"),
    "DT": ("TND",),
    "DA": ("DZD",),
    "KD": ("KWD",),
    "BD": ("BHD",),
    "JD": ("JOD",),
    "LD": ("LYD",),
    "ID": ("IQD",),
    "SR": ("SAR",),
    "QR": ("QAR",),
    "LE": ("EGP",),
    "E£": ("EGP",),
    "SY£": ("SYP",),
    "LB£": ("LBP",),
    "ر.س": ("SAR",),
    "ريال": ("SAR", "QAR", "OMR", "YER"),
    "ریال": ("IRR",),
    "﷼": ("IRR", "SAR", "QAR", "OMR", "YER"),
    "تومان": (),
    "د.إ": ("AED",),
    "درهم": ("AED", "MAD"),
    "ر.ق": ("QAR",),
    "د.ك": ("KWD",),
    "دينار كويتي": ("KWD",),
    ".د.ب": ("BHD",),
    "د.ب": ("BHD",),
    "ر.ع": ("OMR",),
    "ر.ع.": ("OMR",),
    "ر.ي": ("YER",),
    "ج.م": ("EGP",),
    "جنيه": ("EGP",),
    "د.م": ("MAD",),
    "د.م.": ("MAD",),
    "د.ت": ("TND",),
    "د.ج": ("DZD",),
    "دج": ("DZD",),
    "د.أ": ("JOD",),
    "د.ا": ("JOD",),
    "دينار أردني": ("JOD",),
    "دينار": ("KWD", "BHD", "JOD", "IQD", "LYD", "TND", "DZD"),
    "د.ع": ("IQD",),
    "ع.د": ("IQD",),
    "د.ل": ("LYD",),
    "ل.د": ("LYD",),
    "ل.س": ("SYP",),
    "ل.ل": ("LBP",),
    "ج.س": ("SDG",),
    "ج.س.": ("SDG",),
    "ش.ج": ("ILS",),
    "ش.ص": ("SOS",),
    "د.": (),
    "؋": ("AFN",),
    "₡": ("CRC",),
    "₲": ("PYG",),
    "S/": ("PEN",),
    "S/.": ("PEN",),
    "B/.": ("PAB",),
    "Bs": ("BOB", "VES"),
    "Bs.": ("BOB", "VES"),
    "Q": ("GTQ",),
    "q": ("GTQ",),
    "C$": ("CAD", "NIO"),
    "R$": ("BRL",),
    "NT$": ("TWD",),
    "NT": ("TWD",),
    "HK$": ("HKD",),
    "S$": ("SGD",),
    "SG$": ("SGD",),
    "A$": ("AUD",),
    "AU$": ("AUD",),
    "AU $": ("AUD",),
    "US$": ("USD",),
    "US $": ("USD",),
    "U$S": ("USD",),
    "CA$": ("CAD",),
    "CAN$": ("CAD",),
    "CAD$": ("CAD",),
    "CDN$": ("CAD",),
    "CND": ("CAD",),
    "NZ$": ("NZD",),
    "MX$": ("MXN",),
    "MEX$": ("MXN",),
    "AR$": ("ARS",),
    "CL$": ("CLP",),
    "CLP$": ("CLP",),
    "CO$": ("COP",),
    "COL$": ("COP",),
    "$U": ("UYU",),
    "$b": ("BOB",),
    "RD$": ("DOP",),
    "TT$": ("TTD",),
    "BZ$": ("BZD",),
    "BN$": ("BND",),
    "B$": ("BND", "BSD"),
    "Bds$": ("BBD",),
    "CUC$": ("CUP",),
    "CV$": ("CVE",),
    "EC$": ("XCD",),
    "FJ$": ("FJD",),
    "G$": ("GYD",),
    "GY$": ("GYD",),
    "J$": ("JMD",),
    "N$": ("NAD",),
    "T$": ("TOP",),
    "WS$": ("WST",),
    "Z$": (),
    "MOP$": ("MOP",),
    "VT": ("VUV",),
    "Vt": ("VUV",),
    "KMF": ("KMF",),
    "Esc": ("CVE",),
    "Fr.": ("CHF",),
    "Fr": ("CHF",),
    "SFr": ("CHF",),
    "SFr.": ("CHF",),
    "sFr": ("CHF",),
    "CHf": ("CHF",),
    "franc": ("CHF", "XOF", "XAF"),
    "francs": ("CHF", "XOF", "XAF"),
    "Euro": ("EUR",),
    "euro": ("EUR",),
    "euros": ("EUR",),
    "Euros": ("EUR",),
    "EURO": ("EUR",),
    "EUROS": ("EUR",),
    "pound": ("GBP",),
    "stg": ("GBP",),
    "GBp": ("GBP",),
    "dollars": ("USD",),
    "dollar": ("USD",),
    "BTC": (),
    "₿": (),
    "Ƀ": (),
    "¢": (),
    "G": (),
    "Sʻ": ("UZS",),
    "S'": ("UZS",),
    "ƒ": ("AWG",),
    "₤": ("GBP",),
    "₣": (),
    "₶": (),
    "₢": (),
    "₧": (),
    "₯": (),
    "₷": (),
    "ℳ": (),
    "DEM": (),
    "PTE": (),
}

# Country-code domains that are sold to anybody, and so say nothing about the market.
_GENERIC_DOMAINS = frozenset(re.findall(r"\w+", "ac ai cc co dj fm gg gl im io la ly me mu nu sh so st to tv vc ws"))
_LANGUAGE = re.compile(r"^\s*([a-zA-Z]{2,3})(?:[-_]([a-zA-Z]{4}))?(?:[-_]([a-zA-Z]{2}))?\b")
_PATH_LOCALE = re.compile(r"^/(?:([a-z]{2})[-_]([a-zA-Z]{2})|([a-z]{2})/([a-z]{2}))(?=/|$)")


@dataclass(frozen=True)
class Market:
    """Where a page sells: ``country`` (ISO 3166 alpha-2), ``language`` (ISO 639-1), and the currency it states."""

    language: str | None = None
    country: str | None = None
    currency: str | None = None


def read_market(document: Document, meta: Mapping[str, str]) -> Market:
    """The market from the page's language, its address and its meta tags."""
    tag = document.tree.get("lang") or document.tree.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
    language, country = _split_tag(tag)
    for name in ("og:locale", "content-language", "language"):
        other_language, other_country = _split_tag(meta.get(name, ""))
        language = language or other_language
        country = country or (other_country if other_language == language else None)
    address_language, address_country = _locale_from_url(document.url)
    country = address_country or country
    language = language or address_language
    if country is None and language and language != "en":
        country = _likely_country(language)
    stated = next((meta[name] for name in _CURRENCY_META if meta.get(name)), "").strip().upper()
    return Market(language, country, stated if stated in CODES else None)


_CURRENCY_META = (
    "product:price:currency",
    "og:price:currency",
    "product:sale_price:currency",
    "pricecurrency",
    "currency",
)


def currency_from_sign(sign: str | None, market: Market | None = None) -> str | None:
    """ISO 4217 code for a sign or code as it stands on a page; None where it cannot be told.

    An ambiguous sign is read by the market: ``$`` is CAD on a page from Canada, ``¥`` is CNY on a Chinese one.
    """
    if not sign:
        return None
    sign = sign.strip()
    upper = sign.upper()
    if upper in CODES:
        return upper
    candidates = SIGNS.get(sign, SIGNS.get(sign.rstrip("."), ()))
    if not candidates or market is None:
        return candidates[0] if candidates else None
    if market.currency in candidates:
        return market.currency
    local = _currencies_of(market.country)
    for candidate in candidates:
        if candidate in local:
            return candidate
    if "CNY" in candidates and market.language == "zh":
        return "CNY"
    return candidates[0]


def is_local(code: str, market: Market | None) -> bool:
    """Whether the page is from a country that pays in this currency."""
    return market is not None and (code == market.currency or code in _currencies_of(market.country))


@lru_cache(maxsize=512)
def _currencies_of(country: str | None) -> tuple[str, ...]:
    return tuple(get_territory_currencies(country)) if country else ()


@lru_cache(maxsize=512)
def _likely_country(language: str) -> str | None:
    likely = get_global("likely_subtags").get(language)
    parts = likely.split("_") if likely else []
    return parts[-1] if parts and len(parts[-1]) == 2 else None


def _split_tag(tag: str) -> tuple[str | None, str | None]:
    found = _LANGUAGE.match(tag)
    if not found:
        return None, None
    script, country = found.group(2), found.group(3)
    if country is None and script and script.lower() == "hant":
        country = "TW"
    return found.group(1).lower(), country.upper() if country else None


def _locale_from_url(url: str | None) -> tuple[str | None, str | None]:
    """Language and country from an address: ``/en-gb/``, ``/gb/en/``, or the country-code domain."""
    try:
        parts = urlsplit(url or "")
        host = (parts.hostname or "").lower()
    except ValueError:
        return None, None
    found = _PATH_LOCALE.match(parts.path.lower())
    if found:
        one, two = (found.group(1), found.group(2)) if found.group(1) else (found.group(3), found.group(4))
        if _is_country(two) and _is_language(one):
            return one, two.upper().replace("UK", "GB")
        if _is_country(one) and _is_language(two):
            return two, one.upper().replace("UK", "GB")
    domain = host.rpartition(".")[2]
    if len(domain) == 2 and domain not in _GENERIC_DOMAINS and _is_country(domain):
        return None, domain.upper().replace("UK", "GB")
    return None, None


def _is_country(code: str) -> bool:
    return code.lower() == "uk" or bool(_currencies_of(code.upper()))


def _is_language(code: str) -> bool:
    return code in get_global("likely_subtags")
