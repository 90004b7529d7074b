"""Article numbers: the shop's own (SKU), the trade's (GTIN), the maker's (MPN), from labels and the address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import parse_qsl, unquote, urlsplit

from workbench.extract.document import Document
from workbench.extract.prices import plain_digits
from workbench.extract.view import View

__all__ = ["Labelled", "check_gtin", "find_labelled", "sku_from_attributes", "sku_from_named", "sku_from_url"]

Labelled = dict[str, str]
"""What labelled text on the page says: ``sku``, ``gtin``, ``mpn``, ``brand``, each at most once."""

_LABELS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"(?:^|[\s(\[|•·,;>])(?:{pattern})\s*(?:[:：#№.]|\bis\b)*\s*", re.IGNORECASE | re.VERBOSE))
    for name, pattern in (
        (
            "gtin",
            r"(?:ean|gtin|upc|isbn)(?:[\s-]?(?:8|10|12|13|14|code|kód|nr\.?|nummer|number))?|条码|條碼|条形码|"
            r"国际条码|"
            r"штрих-?код|bar-?code",
        ),
        (
            "mpn",
            r"mpn|manufacturer(?:['’]s)?\s(?:part|product|model)?\s?(?:no\.?|number|code|\#)|part\s(?:no\.?|"
            r"number|\#)|"
            r"hersteller(?:artikel)?(?:nummer|-?nr\.?)|(?:item\s)?model\s(?:no\.?|number)|modellnummer|"
            r"numéro\sdu\smodèle|"
            r"référence\s(?:fabricant|constructeur)|numero\smodello|código\sdel\sfabricante|kód\sv[ýy]robc[eu]|型号|"
            r"型號|型番|모델명",
        ),
        (
            "sku",
            r"sku|asin|art(?:icle|ikel|ikkel|iculo|igo|icolo)?\.?[\s-]?(?:nr|no|num|number|nummer|n[°º]|code|id|"
            r"\#)\.?|artikelnummer|"
            r"artikelnr\.?|item\s(?:no\.?|number|code|id|\#)|product\s(?:code|no\.?|number|id|ref(?:erence)?|sku)|"
            r"catalog(?:ue)?\s(?:no\.?|number)|stock\s(?:code|number)|order\s(?:code|no\.?|number)|"
            r"style\s(?:no\.?|number|code)?|"
            r"model\s?(?:code|id)|produkt(?:nummer|nr\.?|[\s-]?id|code)|bestell(?:nummer|-?nr\.?)|best\.?-?nr\.?|"
            r"(?:code|n°|numéro)\s(?:d['’])?article|code\sproduit|réf(?:érence)?\.?(?:\s(?:du\s)?(?:produit|"
            r"article))?|"
            r"cod(?:ice)?\.?\s?(?:articolo|prodotto|art\.)|codice|rif\.?|"
            r"(?:numero\s)?oggetto(?:\sebay)?(?:\snumero)?|"
            r"(?:c[óo]d(?:igo)?\.?|ref(?:erencia|erência|\.)?)(?:\s(?:de(?:l)?\s)?(?:art[íi]culo|producto|produto))?|"
            r"kód(?:\s(?:tovaru|produktu|zboží|výrobku))?|(?:katalógov[ée]|katalogov[ée]|objednac[íi])\sč[íi]slo|"
            r"[čc][íi]slo\s(?:tovaru|produktu|zboží)|obj\.?\s?č\.?|numer\s(?:katalogowy|produktu)|indeks|"
            r"kod\s(?:produktu|towaru)|"
            r"šifra(?:\s(?:artikla|izdelka|proizvoda))?|cikkszám|termékkód|cod(?:\sprodus)?|varenr\.?|varenummer|"
            r"art\.?nr\.?|"
            r"tuotenumero|ürün\skodu|stok\skodu|артикул|код(?:\s(?:товара|товару|продукта))?|арт\.?|товар\s№|"
            r"商品(?:编号|編號|编码|編碼|番号|コード|代码|號碼|貨號|货号|碼)|产品编号|產品編號|货号|貨號|品番|"
            r"品號|품번|상품번호|상품코드|제품번호|"
            r"מק\"?[״']?ט|مرجع|رمز\sالمنتج|رقم\s(?:المنتج|الصنف|الموديل)",
        ),
        (
            "brand",
            r"brand|marke|marque|marca|značka|marka|merk|märke|mærke|merke|марка|бренд|品牌|ブランド|브랜드|מותג",
        ),
    )
)
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/\-]{2,39}")
_GTIN = re.compile(r"(?<!\d)(?:\d[\s-]?){7,13}[\dXx](?!\d)")
_PARAMETERS = frozenset(
    re.findall(
        r"\w+",
        "sku pid prodid productid product_id itemid item_id item variationid articleid artnr asin goodsid goods_id",
    )
)
_FIELD_NAMES = re.compile(
    r"^(?:data-)?(?:sku|asin|product[-_]?sku|item[-_]?(?:id|number|no)|product[-_]?(?:id|code|number)|prod[-_]?id|"
    r"productid|"
    r"article[-_]?(?:id|number)|artnr|add-to-cart|goods[-_]?(?:id|no))$",
    re.IGNORECASE,
)
_CODE_NAME = re.compile(
    r"(?<![a-z])sku|product[-_]?(?:ref|code|number|id(?![a-z])|no(?![a-z]))|article[-_]?(?:no|number|nr|id|"
    r"code)(?![a-z])|"
    r"item[-_]?(?:no|number|code|id)(?![a-z])|art[-_]?(?:nr|no)(?![a-z])|(?<![a-z])reference(?![a-z])|"
    r"catalog[-_]?number",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d")
_MAX_LABEL = 90


def check_gtin(text: str | None) -> str | None:
    """The number if it is a GTIN-8, -12, -13 or -14 whose check digit is right (GS1 General Specifications 7.9).

    An ISBN-10 is given as its ISBN-13.
    """
    if not text:
        return None
    digits = re.sub(r"[\s-]", "", text).upper()
    if re.fullmatch(r"\d{9}[\dX]", digits):
        total = sum((10 - place) * (10 if mark == "X" else int(mark)) for place, mark in enumerate(digits))
        return _with_check_digit("978" + digits[:9]) if total % 11 == 0 else None
    if not re.fullmatch(r"\d{8}|\d{12,14}", digits) or len(set(digits)) == 1:
        return None
    return digits if _with_check_digit(digits[:-1]) == digits else None


def _with_check_digit(body: str) -> str:
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return f"{body}{-total % 10}"


def find_labelled(view: View) -> Labelled:
    """Numbers and the brand that stand behind a label, such as ``Art.-Nr.: 12345``, of this product only."""
    found: Labelled = {}
    lines = view.lines
    start = view.heading_position or 0
    for index, (position, owner, raw) in enumerate(lines):
        if len(raw) > _MAX_LABEL * 2:
            continue
        text = " ".join(plain_digits(raw).split())
        if len(text) > _MAX_LABEL or position < start - 25 or not (labels := _labels_in(text)):
            continue
        if view.is_elsewhere(owner):
            continue
        for name, match in labels:
            if name in found:
                continue
            if name == "brand" and (
                match.start() > 0 or (match.end() < len(text) and text[match.end() - 1] not in ": ：")
            ):
                continue
            value = _value(name, text[match.end() :])
            if value is None and not text[match.end() :].strip(" :：#.)"):
                value = next(
                    (
                        value
                        for _, _, following in lines[index + 1 : index + 3]
                        if (value := _value(name, " ".join(plain_digits(following).split())[:_MAX_LABEL]))
                    ),
                    None,
                )
            if value:
                found[name] = value
                break
    return found


@lru_cache(maxsize=4096)
def _labels_in(text: str) -> tuple[tuple[str, re.Match[str]], ...]:
    return tuple((name, match) for name, pattern in _LABELS if (match := pattern.search(text)))


def _value(name: str, text: str) -> str | None:
    text = text.strip(" :：#№-–|\u200e\u200f")
    if not text:
        return None
    if name == "gtin":
        match = _GTIN.search(text)
        return check_gtin(match.group(0)) if match else None
    if name == "brand":
        return text if len(text) <= 40 and not re.search(r"[:{}<>]", text) else None
    match = _CODE.match(text)
    if match is None:
        return None
    code = match.group(0).rstrip("./-_")
    # A number of its own has a digit, and the text ends with it or goes on with something else than a word.
    rest = text[match.end() :].strip()
    if not _DIGITS.search(code) or len(code) < 3 or (rest and rest[0].islower()):
        return None
    return code


def sku_from_named(view: View) -> str | None:
    """A code in an element that is named after it: ``<span class="product-reference">1002/710</span>``."""
    for _, owner, raw in view.lines:
        text = raw.strip()
        if not 3 <= len(text) <= 40 or not _DIGITS.search(text):
            continue
        names = " ".join(value for key, value in owner.attrib.items() if key not in ("style", "href", "src"))
        if not _CODE_NAME.search(names) or view.is_elsewhere(owner):
            continue
        code = text.rsplit(":", 1)[-1].strip()
        value = _value("sku", code)
        if value and len(value) >= len(code) - 2:
            return value
    return None


def sku_from_attributes(document: Document, view: View) -> str | None:
    """The id that the form or the button for buying carries: ``<input name="product_id" value="…">`` and its like."""
    for node in document.tree.iter("input", "button", "form", "a", "div", "section"):
        attributes = node.attrib
        if not attributes:
            continue
        name = attributes.get("name") if node.tag == "input" else None
        value = attributes.get("value") if name and _FIELD_NAMES.match(name) else None
        if value is None and node.tag in ("button", "form", "a"):
            value = next((entry for key, entry in attributes.items() if _FIELD_NAMES.match(key)), None)
        if value and _CODE.fullmatch(value) and _DIGITS.search(value) and not view.is_elsewhere(node):
            return value
    return None


def sku_from_url(document: Document, canonical: str | None) -> str | None:
    """The number in the address that the page's source uses too: the one used most, the later one on a tie."""
    source = document.html.lower()
    best: tuple[int, int, str] | None = None
    for place, token in enumerate(_tokens(document.url, canonical)):
        digits = sum(map(str.isdigit, token))
        if not 5 <= len(token) <= 24 or digits < (3 if len(token) >= 8 else 4):
            continue
        uses = min(source.count(token.lower()), 20)
        # "ad542b1o1-q11" holds "ad542b1o1", which so is found at least as often: the whole number is meant.
        is_whole = best is not None and best[2] in token and uses >= 2
        if uses >= 2 and (best is None or is_whole or (uses, place) > best[:2]):
            best = (uses, place, token)
    return best[2] if best else None


def _tokens(*urls: str | None) -> Iterator[str]:
    """Parts of the addresses' last segments and of the parameters that usually carry a number."""
    pieces: list[str] = []
    for url in urls:
        try:
            parts = urlsplit(url or "")
        except ValueError:
            continue
        for segment in [part for part in unquote(parts.path).split("/") if part][-3:]:
            stem = re.sub(r"\.(?:html?|php|aspx?|jsp)$", "", segment)
            words = re.split(r"[-_.,]", stem)
            pieces += [word.lstrip("pP") if re.fullmatch(r"[pP]\d+", word) else word for word in words]
            # A number in two parts at the end: "...-ad542b1o1-q11.html".
            tail = re.search(r"(?<![^-_])[A-Za-z]{0,4}\d[A-Za-z0-9]*[-_][A-Za-z]{0,4}\d[A-Za-z0-9]*$", stem)
            pieces += [tail.group(0)] if tail else []
        pieces += [value for name, value in parse_qsl(parts.query) if name.lower() in _PARAMETERS]
    yield from dict.fromkeys(
        piece for piece in pieces if re.fullmatch(r"(?=.*\d)[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)?", piece)
    )
