"""The language of a page, as an ISO 639-1 code."""

from __future__ import annotations

import re
from collections import Counter

from workbench.extract.document import Document

__all__ = ["language_from_text", "read_language"]

_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee
el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is
it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms
mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk
sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi
yo za zh zu
"""
_CODES = frozenset(_ISO_639_1.split())
# Three-letter codes and old ones that pages use.
_ALIASES = {"eng": "en", "zho": "zh", "chi": "zh", "cmn": "zh", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr"}
_ALIASES |= {"spa": "es", "ita": "it", "por": "pt", "jpn": "ja", "kor": "ko", "rus": "ru", "nld": "nl", "dut": "nl"}
_ALIASES |= {"iw": "he", "in": "id", "ji": "yi", "cn": "zh", "jp": "ja", "kr": "ko", "gb": "en", "us": "en"}

_SCRIPTS = {
    "kana": re.compile("[\u3040-\u30ff]"),
    "hangul": re.compile("[\uac00-\ud7a3]"),
    "han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "cyrillic": re.compile("[\u0400-\u04ff]"),
    "greek": re.compile("[\u0370-\u03ff]"),
    "arabic": re.compile("[\u0600-\u06ff]"),
    "hebrew": re.compile("[\u0590-\u05ff]"),
    "thai": re.compile("[\u0e00-\u0e7f]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f]"),
}
# Languages a script may stand for; a declared one outside the list is not believed against the text.
_LANGUAGES_OF_SCRIPT = {
    "kana": ("ja",),
    "hangul": ("ko",),
    "han": ("zh", "ja"),
    "greek": ("el",),
    "hebrew": ("he", "yi"),
    "thai": ("th",),
    "devanagari": ("hi", "mr", "ne", "sa"),
    "arabic": ("ar", "fa", "ur", "ps", "ug", "ku", "sd"),
    "cyrillic": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn", "tg", "uz", "tt"),
}
_STOP_WORDS = {
    "en": "the and of to in is for with that this are you your on it as from be or an by at we can",
    "de": "der die und das ist nicht mit ein eine für auf den von dem sie zu im sich auch werden wir oder bei",
    "fr": "le la les et des une est pour dans que qui sur vous pas avec votre nous ce au du plus ou par",
    "es": "el la los las y de que en una es para con por del se su al más como lo sus o pero",
    "it": "il di che la e per con una è del non sono della si gli le da nel più anche dei alla come",
    "pt": "o a os as e de que em uma é para com por do da não se no na mais como ao dos ou",
    "nl": "de het een en van is voor op met niet dat te zijn je in die aan ook bij uw of wij",
    "sv": "och att det som är för en på med av inte till den har ett om vi du kan från",
    "da": "og at det er en for på med af ikke til den har et som vi du kan fra de",
    "no": "og det er en for på med av ikke til den har et som vi du kan fra som eller",
    "fi": "ja on ei se että hän oli mutta kun niin myös tai voi ovat sen joka mukaan kanssa",
    "pl": "i w na z do nie się to jest że dla od jak przez po oraz są lub za",
    "cs": "a se na je v že to s z do pro není jako jsou nebo také když by však",
    "ro": "și de la în cu pe este nu un pentru din că mai sau care sunt o",
    "hu": "a az és hogy nem is egy van vagy meg ez de csak el már mint",
    "tr": "ve bir bu için ile de da çok olarak daha en ne gibi olan veya kadar",
    "id": "yang dan di untuk dengan ini dari tidak pada adalah dalam anda atau akan kami juga",
    "vi": "và của là có cho các không được trong một với những khi này người đã",
    "ru": "и в не на что с по это как для из от вы или мы но при за",
    "uk": "і в не на що з по це як для та від ви або ми але при за є",
    "bg": "и в не на че с по това като за от ви или ние но при се са",
}
_WORDS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_SAMPLE = 20_000


def read_language(document: Document, text: str) -> str | None:
    """Language of a page whose main text is ``text``: what it declares, else what the text looks like.

    A declaration (``<html lang>``, ``content-language``, ``og:locale``) is overruled only where the script
    contradicts it, as where a template says ``en`` on a Chinese page.
    """
    if len(text) < 40:
        body = document.tree.find(".//body")
        text = f"{text} {' '.join((body if body is not None else document.tree).text_content().split())}"
    text = text[:_SAMPLE]
    script = _main_script(text)
    for declared in _declarations(document):
        code = _code_from_tag(declared)
        if code is None:
            continue
        expected = _LANGUAGES_OF_SCRIPT.get(script or "")
        # Latin letters are everywhere (names, code), so they contradict nothing.
        if expected is not None and code not in expected:
            return language_from_text(text) or code
        return code
    return language_from_text(text)


def language_from_text(text: str) -> str | None:
    """Language by script, then by stop words; None where neither is sure."""
    text = text[:_SAMPLE]
    script = _main_script(text)
    if script is None:
        return None
    if script not in ("latin", "cyrillic"):
        return _LANGUAGES_OF_SCRIPT[script][0]
    words = Counter(_WORD.findall(text.lower()))
    total = sum(words.values())
    candidates = [name for name in _WORDS if (name in ("ru", "uk", "bg")) == (script == "cyrillic")]
    hits = {name: sum(words[word] for word in _WORDS[name]) for name in candidates}
    ranked = sorted(hits, key=lambda name: (-hits[name], name))
    best, second = ranked[0], ranked[1]
    # Running text is a third stop words; names and menus are not text in any language.
    if hits[best] < max(3, 0.08 * total) or hits[best] == hits[second]:
        return None
    return best


def _main_script(text: str) -> str | None:
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    # Japanese mixes kana with Han characters; a Chinese page may quote a few kana.
    if counts["kana"] * 10 >= counts["han"] > 0 or (counts["kana"] and not counts["han"]):
        counts["kana"] += counts["han"]
        counts["han"] = 0
    # A Chinese sentence has a third of the characters that the same sentence has in Latin letters.
    for name in ("han", "kana", "hangul"):
        counts[name] *= 3
    total = sum(counts.values())
    if total < 8:
        return None
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > 0.5 * total else None


def _declarations(document: Document) -> list[str]:
    tree = document.tree
    found = [tree.get("lang"), tree.get("{http://www.w3.org/XML/1998/namespace}lang"), tree.get("xml:lang")]
    body = tree.find(".//body")
    found.append(None if body is None else body.get("lang"))
    metas = list(tree.iter("meta"))
    found += [
        meta.get("content")
        for meta in metas
        if (meta.get("http-equiv") or meta.get("name") or "").lower() == "content-language"
    ]
    found += [meta.get("content") for meta in metas if meta.get("property") == "og:locale"]
    return [text for text in found if text]


def _code_from_tag(tag: str) -> str | None:
    """``zh-Hans-CN`` or ``zh_CN`` is ``zh``; None for what is no language tag."""
    first = re.split(r"[-_,;\s]", tag.strip().lower())[0]
    first = _ALIASES.get(first, first)
    return first if first in _CODES else None
