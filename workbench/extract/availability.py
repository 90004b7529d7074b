"""Whether a product can be bought: schema.org's word for it, from markup, from buttons, from what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from lxml.html import HtmlElement

from workbench.extract.view import View, describe, short_text

__all__ = ["find_buy_button", "normalize_availability", "normalize_condition", "read_visible_availability"]

_NAMES = {
    name.lower(): name
    for name in re.findall(
        r"\w+",
        """InStock OutOfStock PreOrder BackOrder Discontinued LimitedAvailability SoldOut OnlineOnly InStoreOnly
        PreSale MadeToOrder Reserved""",
    )
}
_SYNONYMS = {
    "oos": "OutOfStock",
    "available": "InStock",
    "availablefororder": "BackOrder",
    "instocknow": "InStock",
    "onstock": "InStock",
    "notinstock": "OutOfStock",
    "notavailable": "OutOfStock",
    "unavailable": "OutOfStock",
    "temporarilyunavailable": "OutOfStock",
    "outofstockonline": "OutOfStock",
    "backordered": "BackOrder",
    "preordered": "PreOrder",
    "limited": "LimitedAvailability",
    "lowstock": "LimitedAvailability",
    "limitedstock": "LimitedAvailability",
    "true": "InStock",
    "yes": "InStock",
    "1": "InStock",
    "false": "OutOfStock",
    "no": "OutOfStock",
    "0": "OutOfStock",
    "pending": "PreOrder",
}
_CONDITIONS = {
    "new": "NewCondition",
    "used": "UsedCondition",
    "refurbished": "RefurbishedCondition",
    "damaged": "DamagedCondition",
}

# What pages say, by what it means. The order is the order of asking: a page that says "no longer available" also has
# the word "available" on it.
_PHRASES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE | re.VERBOSE))
    for name, pattern in (
        (
            "Discontinued",
            r"discontinued|no\ longer\ (?:made|sold|produced|manufactured)|nicht\ mehr\ (?:hergestellt|produziert)|"
            r"auslaufartikel|n'est\ plus\ (?:fabriqué|commercialisé)|descatalogado|fuori\ produzione|"
            r"снят\ с\ производства|"
            r"停产|停產|已停售|已下架|販売終了|生産終了|단종",
        ),
        (
            "SoldOut",
            r"\bsold[\s-]?out\b|ausverkauft|\bépuisé|\besaurit[oa]|\bagotad[oa]|\besgotad[oa]|vyprodán|vypredan|"
            r"wyprzedan|"
            r"uitverkocht|slutsåld|utsolgt|udsolgt|loppuunmyyty|tükendi|распродан|razprodan|rasprodan|elfogyott|"
            r"stoc\ epuizat|"
            r"售罄|售完|已售完|售鑿|賣完|卖完|完売|売り切れ|売切れ|품절|נמכר|hết\ hàng|ขายหมด|สินค้าหมด",
        ),
        (
            "OutOfStock",
            r"out[\s-]of[\s-]stock|(?:currently|temporarily|momentarily)\s(?:unavailable|out|not\ available)|"
            r"(?:is|are)\ (?:currently\ )?unavailable|^\W*unavailable|no\ longer\ available|"
            r"not\ (?:currently\ )?available|"
            r"not\ in\ stock|isn['’]t\ available|no\ stock|notify\ me\ when|(?:email|tell)\ me\ when|"
            r"back\ in\ stock\ (?:alert|notif)|"
            r"nicht\ (?:mehr\ )?(?:verfügbar|lieferbar|vorrätig|auf\ lager|erhältlich)|derzeit\ (?:nicht|"
            r"vergriffen)|vergriffen|"
            r"rupture(?:\ de)?\ ?(?:stock)?|(?:actuellement\ )?indisponible|plus\ disponible|non\ (?:è\ )?disponibil|"
            r"no\ disponible|sin\ (?:stock|existencias)|sem\ (?:stock|estoque)|indisponível|fora\ de\ estoque|"
            r"não\ disponível|"
            r"není\ skladem|nie\ je\ skladom|nedostupn|momentálně\ ne|brak\ w\ magazynie|niedostępn|"
            r"niet\ (?:op\ voorraad|"
            r"leverbaar|beschikbaar)|ej\ i\ lager|ikke\ på\ lager|slut\ i\ lager|ei\ varastossa|stokta\ yok|"
            r"нет\ в\ наличии|"
            r"нет\ на\ складе|немає\ в\ наявності|няма\ наличност|ni\ na\ zalogi|אינו\ במלאי|אין\ במלאי|"
            r"nincs\ (?:raktáron|készleten)|"
            r"nema\ na\ (?:zalihi|"
            r"stanju)|indisponibil|nu\ este\ în\ stoc|缺货|缺貨|无货|無貨|補貨中|补货中|到货通知|到貨通知|"
            r"貨到通知|在庫切れ|在庫なし|品切れ|"
            r"재고\ ?없음|일시품절|غير\ متوفر|نفد|אזל|לא\ במלאי|εξαντλ|μη\ διαθέσιμο",
        ),
        (
            "PreOrder",
            r"\bpre[\s-]?order|vorbestell|précommand|pre[\s-]?ordin|preventa|reserva\ ahora|pré-?venda|předobjedn|"
            r"predobjedn|"
            r"przedsprzedaż|pre-?bestel|förbeställ|forudbestil|forhåndsbestill|ön\ sipariş|предзаказ|预购|預購|"
            r"预定|預訂|"
            r"予約|예약",
        ),
        ("PreSale", r"pre[\s-]?sale|预售|預售"),
        (
            "BackOrder",
            r"back[\s-]?order|nachbestell|nabestel|auf\ bestellung|на\ заказ|na\ objednávku|na\ objednávku",
        ),
        (
            "MadeToOrder",
            r"made[\s-]to[\s-]order|auf\ maß|sur\ commande|su\ ordinazione|bajo\ pedido|sob\ encomenda|定制|訂製",
        ),
        (
            "LimitedAvailability",
            r"only\ (?:a\ few|\d+)\ (?:items?\ |units?\ |pieces?\ )?(?:left|remaining|in\ stock)|\blow\ stock|"
            r"limited\ (?:stock|availability)|"
            r"nur\ noch\ \d+|nur\ noch\ wenige|(?:il\ ne\ reste|plus)\ que\ \d+|solo\ \d+\ (?:disponibil|rimast)|"
            r"(?:quedan|últimas)\ \d+|"
            r"ostatnie\ sztuki|poslední|posledn[ée]\ kus|仅剩|僅剩|仅余|库存紧张|庫存緊張|残り\d+|残りわずか",
        ),
        (
            "InStock",
            r"\bin[\s-]stock|auf\ lager|sofort\ (?:lieferbar|verfügbar|versandfertig)|\blieferbar|\bvorrätig|"
            r"\ben\ stock|"
            r"\bavailable\b(?!\s+(?:in|on|at|from|soon))|\bverfügbar|\bdisponib(?:le|ile|ili)\b|\bdisponível|"
            r"em\ (?:stock|estoque)|"
            r"skladem|skladom|na\ sklad[eěu]|na\ zalogi|na\ zalihi|na\ stanju|dostępn[yae]|op\ voorraad|leverbaar|"
            r"\bi\ lager|"
            r"på\ lager|varastossa|stokta\ var|stokta|raktáron|készleten|în\ stoc|в\ наличии|на\ складе|"
            r"є\ в\ наявності|в\ наявності|"
            r"налич|现货|現貨|有货|有貨|库存充足|庫存充足|在庫あり|재고\ ?있음|متوفر|במלאי|διαθέσιμο|"
            r"ready\ to\ ship|ships\ (?:today|within)|"
            r"versandfertig",
        ),
    )
)

_BUY = re.compile(
    r"""add(?:ed)?\ (?:item\ )?to\ (?:my\ |your\ |shopping\ )?(?:cart|bag|basket|trolley|order)|
    \bbuy\b(?:\ it)?(?:\ now)?|order\ now|
    place\ (?:a\ )?bid|shop\ now|get\ it\ now|checkout|purchase|\bbook\ now|get\ tickets|buy\ tickets|
    contact\ seller|make\ (?:an\ )?offer|
    in\ den\ (?:waren|einkaufs)|in\ die\ tasche|jetzt\ (?:kaufen|bestellen)|^\W*kaufen|anbieter\ kontaktieren|
    warenkorb\ hinzu|zum\ warenkorb|
    ajouter\ (?:l'article\ )?au\ panier|^\W*ajouter|acheter|achat\ immédiat|commander|
    aggiungi\ al\ carrello|acquista|compra(?:lo)?\ (?:subito|ora)|aggiungi|
    (?:añadir|agregar)\ (?:al\ carrito|a\ la\ (?:cesta|bolsa)|a\ mi\ bolsa)|comprar|compra\ ahora|
    adicionar\ (?:ao|à)\ (?:carrinho|cesto|sacola)|
    do\ ko[sš][ií]k[au]|do\ koszyka|vlo[zž]i[tť]|(?:kúpi[tť]|koupit)|kup\ teraz|kupuję|
    ko[sš]aric|u\ ko[sš]aricu|kupi\b|kosárba|megveszem|adaug[ăa]\ [îi]n\ co[sș]|cump[ăa]r[ăa]|
    (?:in|aan)\ (?:de\ )?winkel(?:wagen|mand)|^\W*kopen|bestellen|
    (?:läg|lägg)\ i\ (?:varukorg|kundvagn)|^\W*köp|legg\ i\ (?:handlekurv|handlevogn)|læg\ i\ (?:kurv|indkøbskurv)|
    ^\W*køb|^\W*kjøp|
    lisää\ (?:ostoskoriin|koriin)|osta\ nyt|sepete\ (?:ekle|at)|(?:hemen|şimdi)\ (?:al|satın)|satın\ al|
    в\ корзину|купить|заказать|оформить\ заказ|naro[čc]i|objedna[tť]|
    до\ кошика|у\ кошик|купити|в\ количка|добави\ в|купи|
    加入购物[车車]|加入購物[车車]|加入(?:购|購)物袋|放入购物车|放入購物車|立即(?:购买|購買|抢购|搶購|下单)|馬上買|
    马上抢|直接購買|我要購買|我要购买|购买|購買|訂購|
    カートに(?:入れる|追加)|購入|買い物かご|장바구니|구매|바로\ ?구매|구매하기|
    أضف\ (?:إلى|الى)|اشتر|הוסף\ ל(?:סל|עגלה)|הוספה\ לסל|קנה|לרכישה|προσθήκη\ στο|αγορά|thêm\ vào\ giỏ|mua\ ngay|
    หยิบใส่|ซื้อ|tambah|beli""",
    re.IGNORECASE | re.VERBOSE,
)
_BUY_NAME = re.compile(
    r"button[-_](?:cart|buy)(?![a-z])|"
    r"add[-_]?(?:item[-_]?)?(?:to[-_]?)?(?:cart|basket|bag|trolley)|(?:cart|basket)[-_]?add|buy[-_]?now|"
    r"(?<![a-z])buy[-_]?(?:btn|button|box)|"
    r"btn[-_]?(?:buy|cart|order)|(?<![a-z])order[-_]?(?:btn|button)|purchase",
    re.IGNORECASE,
)
_BUY_SCRIPT = re.compile(r"(?<![a-z])(?:buy|add_?to_?cart|add_?cart|addtobasket)(?![a-z])", re.IGNORECASE)
_NOT_BUY = re.compile(
    r"wish|favou?rit|merkzettel|compare|guide|gift\ ?card|voucher|view\ (?:cart|basket|bag)|go\ to\ (?:cart|"
    r"checkout)|newsletter|search|"
    r"how\ to\ buy|buying\ guide|why\ buy|buy(?:er)?\ protection|warum|mein\ warenkorb|warenkorb\ anzeigen|"
    r"zum\ warenkorb$|查看|mon\ panier",
    re.IGNORECASE,
)
_STOCK_NAME = re.compile(
    r"stock|availab|dispo|verfügbar|verfuegbar|liefer|lager(?![a-z])|inventory|sold[-_]?out|(?<![a-z])oos|"
    r"voorraad|sklad|dostupn|"
    r"dostepn|zaloga|налич|库存|delivery[-_]?(?:time|status|info)|shipping[-_]?(?:time|status)",
    re.IGNORECASE,
)
_OPTION_NAME = re.compile(
    r"swatch|(?<![a-z])sizes?(?![a-z])|variant|variation|option|selector|dropdown|radio|store|filial|review|"
    r"comment|question|faq|"
    r"description|tab[-_]?content|accordion",
    re.IGNORECASE,
)
_OPTION_TAGS = frozenset({"select", "option", "label", "li"})
_ANY_LETTERS = re.compile(r"[^\W\d_]{2}")
_MAX_LABEL = 60
_MAX_PHRASE = 90
_MAX_STEPS = 12
# "Whether this will be in stock again is not known": the words of being there, and the opposite meant.
_UNSURE = re.compile(
    r"\b(?:when|if|whether|again|until|wieder|wann|ob|wenn|falls|quand|si|lorsque|cuando|quando|wanneer|когда|"
    r"если)\b",
    re.I,
)


def normalize_availability(value: str | None) -> str | None:
    """schema.org's short name for a value in markup: a URL, a name in any spelling, or words."""
    if not value:
        return None
    short = re.sub(r"[^a-z0-9]", "", re.split(r"[/#]", value.strip().rstrip("/"))[-1].lower())
    known = _NAMES.get(short) or _SYNONYMS.get(short)
    return known or (_phrase_in(value) if len(value) <= _MAX_PHRASE else None)


def normalize_condition(value: str | None) -> str | None:
    """schema.org's short name for an item's condition."""
    if not value:
        return None
    text = value.lower()
    for word in ("refurbished", "damaged", "used", "new"):
        if re.search(rf"(?<![a-z]){word}|/{word}", text):
            return _CONDITIONS[word]
    return None


def find_buy_button(view: View) -> HtmlElement | None:
    """The control that buys the main product: the first after the heading that is not in a list of other products."""
    return next((node for node, enabled in _buy_buttons(view) if enabled), None)


def read_visible_availability(view: View, near: HtmlElement | None) -> str | None:
    """What the page tells its readers. ``near`` is the element of the main price, where one was found.

    A phrase about stock close to heading or price counts first, then a control that buys or that is out of use.
    """
    buttons = list(_buy_buttons(view))
    enabled = [node for node, is_enabled in buttons if is_enabled]
    anchor = near if near is not None else view.heading
    strong: str | None = None
    weak: str | None = None
    for position, owner, raw in view.lines:
        if view.heading_position is not None and not -15 <= position - view.heading_position <= 60:
            continue
        text = " ".join(raw.split())
        if not 2 <= len(text) <= _MAX_PHRASE or any(node.tag in _OPTION_TAGS for node in view.chain(owner)[:4]):
            continue
        name = _phrase_in(text)
        if name is None or not _belongs_to_product(view, owner, anchor):
            continue
        chain = view.chain(owner)[:4]
        if name in ("InStock", "LimitedAvailability") and _UNSURE.search(text):
            continue
        if any(_STOCK_NAME.search(describe(node)) for node in chain):
            strong = strong or name
        elif _is_whole(text) or (len(text) <= _MAX_LABEL and name not in ("InStock", "LimitedAvailability")):
            weak = weak or name
    if strong:
        return "PreOrder" if strong == "InStock" and _preorder(enabled) else strong
    if weak and not (enabled and weak in ("OutOfStock", "SoldOut", "Discontinued", "BackOrder", "MadeToOrder")):
        return weak
    if enabled:
        return "PreOrder" if _preorder(enabled) else "InStock"
    return "OutOfStock" if buttons else weak


def _preorder(buttons: list[HtmlElement]) -> bool:
    return bool(buttons) and _phrase_in(_label_of(buttons[0])) in ("PreOrder", "PreSale")


@lru_cache(maxsize=4096)
def _phrase_in(text: str) -> str | None:
    if not _ANY_LETTERS.search(text):
        return None
    return next((name for name, pattern in _PHRASES if pattern.search(text)), None)


def _is_whole(text: str) -> bool:
    """Whether a text says little else: "In stock." does, "In stock items ship on Mondays" does not."""
    match = next((found for _, pattern in _PHRASES if (found := pattern.search(text))), None)
    return match is not None and len(match.group(0)) >= 0.6 * len(text.strip(" .!:✓✔"))


def _buy_buttons(view: View) -> Iterator[tuple[HtmlElement, bool]]:
    """Controls that buy, with whether they are in use."""
    start = view.heading_position if view.heading_position is not None else 0
    found: list[tuple[int, HtmlElement, bool]] = []
    for position, node in view.controls:
        label = _label_of(node)
        named = bool(_BUY_NAME.search(describe(node)) or _BUY_SCRIPT.search(_script_of(node)))
        if not (_BUY.search(label) or (named and len(label) <= _MAX_LABEL)) or len(label) > _MAX_LABEL:
            continue
        if _NOT_BUY.search(label) or view.is_elsewhere(node):
            continue
        phrase = _phrase_in(label)
        is_enabled = not (_is_disabled(node) or phrase in ("OutOfStock", "SoldOut", "Discontinued"))
        found.append((position, node, is_enabled))
    found.sort(key=lambda entry: (entry[0] < start, abs(entry[0] - start)))
    yield from ((node, is_enabled) for _, node, is_enabled in found)


def _script_of(node: HtmlElement) -> str:
    """What a click runs, where it is written into the element."""
    href = node.get("href") or ""
    return f"{href if href.startswith('javascript:') else ''} {node.get('onclick') or ''}"[:_MAX_PHRASE]


def _label_of(node: HtmlElement) -> str:
    text = short_text(node) or ""
    label = node.get("value") if node.tag == "input" else None
    return " ".join((text or label or node.get("aria-label") or node.get("title") or node.get("alt") or "").split())


def _is_disabled(node: HtmlElement) -> bool:
    if node.get("disabled") is not None or (node.get("aria-disabled") or "").lower() == "true":
        return True
    return bool(re.search(r"(?:^|[\s_-])disabled(?:\s|$)|sold-?out|out-?of-?stock", node.get("class") or ""))


def _belongs_to_product(view: View, owner: HtmlElement, anchor: HtmlElement | None) -> bool:
    """Close to the product's heading or price, and neither in a list of other products nor one of several options."""
    if any(_OPTION_NAME.search(describe(node)) for node in view.chain(owner)[:4]):
        return False
    if any(view.traits(node).is_hidden for node in view.chain(owner)[:6]) or view.is_elsewhere(owner):
        return False
    if anchor is None:
        return True
    return min(view.steps_to(owner, anchor), view.steps_to(anchor, owner)) <= _MAX_STEPS
