"""What a price is for: a month or a year, a user or a device; and words that stand where a price would."""

from __future__ import annotations

import re

from workbench.extract.page import BillingPeriod

__all__ = ["asks_for_contact", "period_from_code", "read_period", "read_unit", "says_free"]

_PERIOD_WORDS: tuple[tuple[BillingPeriod, str], ...] = (
    ("hour", r"hours?|hr|h|stunde|heure|hora|ora|小时|小時|時間|시간"),
    ("day", r"days?|tag|jour|d[íi]a|giorno|天|日|일"),
    ("week", r"weeks?|wk|woche|semaine|semana|settimana|周|週|星期|주"),
    ("quarter", r"quarters?|quartal|trimestre?|季度?|分기"),
    (
        "month",
        r"months?|mos?\.?|mth|monat|mois|m[eê]s|mese|maand|m[åa]ned|månad|kuukausi|miesi[ąa]c|mies\.?|měsíc|"
        r"mesiac|ay|месяц|"
        r"мес\.?|місяць|个月|個月|月|ヶ月|か月|개월|월",
    ),
    ("year", r"years?|yrs?\.?|y|annum|jahr|ann?[ée]e?|an|año|anno|ano|jaar|år|vuosi|rok|roku|yıl|год|рік|年|년|연"),
)
_PER = r"(?:/|(?<![a-zà-ÿ])(?:per|a|an|each|every|pro|je|par|por|al|à\ la|all['’]|per\ il|w|na|za|в|на)|每|按|毎)"
_PERIODS: tuple[tuple[BillingPeriod, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"(?:{_PER}\s?)(?:{words})(?![a-zà-ÿ])", re.IGNORECASE)) for name, words in _PERIOD_WORDS
)
_ADVERB_WORDS: tuple[tuple[BillingPeriod, str], ...] = (
    ("hour", r"\bhourly\b"),
    ("day", r"\bdaily\b|täglich|包天"),
    ("week", r"\bweekly\b|wöchentlich|hebdomadaire|周付"),
    ("quarter", r"\bquarterly\b|vierteljährlich|trimestriel|季付|包季"),
    (
        "month",
        r"\bmonthly\b|monatlich|mensuel|mensual|mensile|mensal|maandelijks|ежемесячно|月付|包月|按月|月费|"
        r"連續包月",
    ),
    (
        "year",
        r"\b(?:annual(?:ly)?|yearly)\b|jährlich|annuel|anual|annuale|jaarlijks|ежегодно|年付|包年|按年|年费",
    ),
    (
        "once",
        r"\bone[\s-]?(?:time|off)\b|\bonce\b|\blifetime\b|pay once|einmalig|paiement unique|pago único|"
        r"una tantum|"
        r"одноразов|разов|一次性|买断|買斷|永久",
    ),
)
_ADVERBS: tuple[tuple[BillingPeriod, re.Pattern[str]], ...] = tuple(
    (name, re.compile(words, re.IGNORECASE)) for name, words in _ADVERB_WORDS
)
_ANY_PERIOD = re.compile(
    rf"{_PER}\s?(?:{'|'.join(words for _, words in _PERIOD_WORDS)})|{'|'.join(words for _, words in _ADVERB_WORDS)}",
    re.IGNORECASE,
)
# How the bill comes, not what the amount is for: "$12 a month, billed yearly".
_BILLED = re.compile(
    r"(?:,|\(|\bor\b|\bwhen\b|\bif\b)?\s*\b(?:billed|paid|invoiced|charged|payable|abgerechnet|facturé\w*|"
    r"facturado|fatturat\w)\b"
    r"(?:\s+\w+){0,2}?\s+(?:annually|yearly|monthly|quarterly|upfront|(?:per|every|each|once\sa|"
    r"by\sthe)\s+(?:month|year|quarter))|"
    r"(?:bei\s)?(?:jährliche[rn]?|monatliche[rn]?)\s(?:abrechnung|zahlung|zahlweise)|"
    r"(?:按|以)?[年月季](?:付|结算|計費|计费)(?:时|時)?",
    re.IGNORECASE,
)
_UNIT_WORDS: tuple[tuple[str, str], ...] = (
    (
        "user",
        r"users?|person|people|nutzer(?:in)?|benutzer|utilisateurs?|usuarios?|utente|gebruiker|användare|"
        r"użytkownika?|"
        r"пользовател\w+|用户|用戶|使用者|人|ユーザー|사용자|명",
    ),
    ("seat", r"seats?|sitz|arbeitsplatz|席位|座席|席"),
    ("member", r"members?|mitglied|membre|miembro|成员|成員|メンバー"),
    ("editor", r"editors?|编辑者|編輯者"),
    ("agent", r"agents?|坐席"),
    (
        "device",
        r"devices?|gerät|appareil|dispositivo|apparaat|urządzenie|устройств\w+|设备|設備|裝置|装置|台|デバイス|기기",
    ),
    ("team", r"teams?|équipe|equipo|团队|團隊|チーム"),
    ("workspace", r"workspaces?|organi[sz]ations?|工作区|工作空間|组织|組織|企业"),
    ("license", r"licen[sc]es?|lizenz|licence|licencia|许可|授权"),
    ("project", r"projects?|projekt|projet|proyecto|项目|項目"),
    ("store", r"stores?|shops?|filiale|店铺|店舗|門市|门店"),
    ("site", r"sites?|websites?|domains?|网站|網站"),
    ("employee", r"employees?|mitarbeiter(?:in)?|employés?|empleados?|员工|員工|従業員"),
    ("student", r"students?|learners?|pupils?|学生|學生"),
    ("host", r"hosts?|servers?|nodes?|instances?|服务器|主机|实例"),
    ("account", r"accounts?|konto|compte|cuenta|账号|帳號|账户"),
    ("contact", r"contacts?|subscribers?|联系人"),
    ("request", r"requests?|calls?|queries|次"),
    ("GB", r"gb|gigabytes?"),
)
_UNITS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"{_PER}\s?(?:active\s|additional\s|extra\s)?(?:{words})(?![a-zà-ÿ])", re.IGNORECASE))
    for name, words in _UNIT_WORDS
)
_FREE = re.compile(
    r"^\W*(?:always |completely |100% )?(?:free|gratis|kostenlos|gratuit[oe]?|grátis|za darmo|zdarma|zadarmo|"
    r"ingyenes|ilmainen|"
    r"ücretsiz|бесплатно|безкоштовно|免费|免費|無料|무료)(?:\s?(?:forever|for ever|for life|plan|tier|使用|体验|"
    r"版))?\W*$",
    re.IGNORECASE,
)
_CONTACT = re.compile(
    r"^\W*(?:contact (?:us|sales)|(?:please )?(?:talk|speak) to (?:us|sales|an expert)|let['’]s talk|"
    r"custom(?: pric(?:e|ing)| quote)?|"
    r"(?:get|request) a (?:custom )?quote|(?:price|pricing|available)?\s?(?:up)?on request|call us|ask (?:us|"
    r"sales)|by arrangement|"
    r"individual pricing|tailored(?: pricing)?|auf anfrage|preis auf anfrage|kontaktieren sie uns|individuell|"
    r"sur devis|nous contacter|"
    r"contactez[- ]nous|su richiesta|contattaci|a medida|bajo petición|contáctanos|sob consulta|op aanvraag|"
    r"по запросу|"
    r"联系我们|聯繫我們|聯絡我們|联系销售|聯絡業務|咨询|諮詢|定制|客製|面议|面議|询价|詢價|お問い合わせ|"
    r"要問い合わせ|문의)"
    r"(?: for (?:pricing|a quote|details))?\W*$",
    re.IGNORECASE,
)
_CODES: dict[str, BillingPeriod] = {
    "HUR": "hour", "DAY": "day", "WEE": "week", "MON": "month", "QAN": "quarter", "ANN": "year",
    "PT1H": "hour", "P1D": "day", "P1W": "week", "P7D": "week", "P1M": "month", "P30D": "month", "P3M": "quarter",
    "P12M": "year", "P1Y": "year", "P365D": "year",
}  # fmt: skip


def read_period(text: str) -> BillingPeriod | None:
    """What stretch of time the amount before this text is for: the one named first, how the bill comes set aside."""
    if not _ANY_PERIOD.search(text):
        return None
    for candidate in (_BILLED.sub(" ", text), text):
        found: list[tuple[int, int, BillingPeriod]] = [
            (match.start(), order, name)
            for order, (name, pattern) in enumerate((*_PERIODS, *_ADVERBS))
            if (match := pattern.search(candidate))
        ]
        if found:
            return min(found)[2]
    return None


def read_unit(text: str) -> str | None:
    """What the amount before this text is for one of: user, seat, device, … (named in English)."""
    found = [(match.start(), name) for name, pattern in _UNITS if (match := pattern.search(text))]
    return min(found)[1] if found else None


def period_from_code(code: str | None) -> BillingPeriod | None:
    """From a UN/CEFACT unit code (MON) or an ISO 8601 duration (P1M), as schema.org uses them; or from words."""
    if not code:
        return None
    return _CODES.get(code.strip().upper()) or read_period(f"per {code}") or read_period(code)


def says_free(text: str) -> bool:
    """Whether the text says "free" and nothing else."""
    return bool(_FREE.match(text))


def asks_for_contact(text: str) -> bool:
    """Whether the text asks to get in touch instead of giving a price."""
    return bool(_CONTACT.match(text))
