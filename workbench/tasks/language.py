"""The language of a sentence, as an ISO 639-1 code.

Scripts decide first: most of the world's scripts stand for one language. Latin and Cyrillic letters are told apart by
the small words that every sentence has, and by letters that only some alphabets have. Reviews in Chinese and English
are what the workbench reads: a few Latin letters that say nothing else are English, a few Han characters Chinese.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LANGUAGES", "detect_language", "detect_languages"]

# Enough of a text to tell; a long one is looked at in its beginning, middle and end.
_SAMPLE: Final = 3000

# Ranges of letters, in code-point order of their usual block. Han is last among the three it shares texts with.
_SCRIPTS: Final = {
    "kana": "\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d",
    "hangul": "\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e",
    "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
    "bopomofo": "\u3105-\u312f",
    "cyrillic": "\u0400-\u052f",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "arabic": "\u0620-\u064a\u066e-\u06d3\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc",
    "hebrew": "\u05d0-\u05ea",
    "thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "lao": "\u0e81-\u0eae\u0ec0-\u0ec4",
    "devanagari": "\u0900-\u0963\u0971-\u097f",
    "bengali": "\u0980-\u09e5",
    "gurmukhi": "\u0a00-\u0a65",
    "gujarati": "\u0a80-\u0ae5",
    "tamil": "\u0b80-\u0be5",
    "telugu": "\u0c00-\u0c65",
    "kannada": "\u0c80-\u0ce5",
    "malayalam": "\u0d00-\u0d65",
    "sinhala": "\u0d80-\u0de5",
    "burmese": "\u1000-\u103f",
    "georgian": "\u10a0-\u10ff",
    "armenian": "\u0530-\u058f",
    "khmer": "\u1780-\u17d3",
    "amharic": "\u1200-\u137f",
    "latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a",
}
_SCRIPT_NAMES: Final = tuple(_SCRIPTS)
_LANGUAGE_OF_SCRIPT: Final = {
    "kana": "ja",
    "hangul": "ko",
    "han": "zh",
    "bopomofo": "zh",
    "greek": "el",
    "hebrew": "he",
    "thai": "th",
    "lao": "lo",
    "bengali": "bn",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "sinhala": "si",
    "burmese": "my",
    "georgian": "ka",
    "armenian": "hy",
    "khmer": "km",
    "amharic": "am",
}
# A Chinese character or a kana says as much as three Latin letters, a Korean syllable as two.
_WEIGHTS: Final = {"han": 3, "kana": 3, "hangul": 2, "bopomofo": 2}
_SCRIPT_WEIGHTS: Final = np.array([_WEIGHTS.get(name, 1) for name in _SCRIPT_NAMES])
_KINDS: Final = len(_SCRIPT_NAMES) + 1  # and the characters of none
_KANA: Final = _SCRIPT_NAMES.index("kana")
_HAN: Final = _SCRIPT_NAMES.index("han")

_COMMON_WORDS: Final = {
    "en": "a the and of to in is for with that this are you your on it as from be or an by at we can was were not "
    "but have has had my i they he she its so very just all good great no if when what which would will do does did "
    "don't it's too than then after only one out up about there love nice bad works work product price fast slow "
    "who how why where while any every more most new used needs get got been their them some off over his her "
    "into between during without also can't didn't i'm i've made make still even per month "
    "year us save free off days",
    "de": "der die und das ist nicht mit ein eine für auf den von dem sie zu im sich auch werden wir oder bei ich es "
    "sehr gut aber war als noch nur schon habe hat wie nach aus man einen mein schlecht alles",
    "fr": "le la les et des une est pour dans que qui sur vous pas avec votre nous ce au du plus ou par je il mais "
    "très bien trop cette mon ma ne se son être fait bon c'est produit j'ai tout",
    "es": "el la los las y de que en una es para con por del se su al más como lo sus o pero muy no me mi este esta "
    "todo bien bueno ha está producto son sin fue cuando",
    "it": "il di che la e per con una è del non sono della si gli le da nel più anche dei alla come ma molto ho mi "
    "questo questa buono prodotto ottimo tutto bene ha",
    "pt": "o a os as e de que em uma é para com por do da não se no na mais como ao dos ou muito bom eu mas foi meu "
    "minha está produto isso ele bem são tem",
    "nl": "de het een en van is voor op met niet dat te zijn je in die aan ook bij uw of wij ik maar heel goed erg "
    "was heb heeft naar dit wel geen mijn nog",
    "sv": "och att det som är för en på med av inte till den har ett om vi du kan från jag men mycket bra var så min",
    "da": "og at det er en for på med af ikke til den har et som vi du kan fra de jeg men meget godt var så min",
    "no": "og det er en for på med av ikke til den har et som vi du kan fra som eller jeg men veldig bra var så min",
    "fi": "ja on ei se että hän oli mutta kun niin myös tai voi ovat sen joka mukaan kanssa minä hyvä todella tämä",
    "pl": "i w na z do nie się to jest że dla od jak przez po oraz są lub za ale bardzo mi dobry tak jestem był",
    "cs": "a se na je v že to s z do pro není jako jsou nebo také když by však ale velmi mi jsem bylo dobrý",
    "ro": "și de la în cu pe este nu un pentru din că mai sau care sunt o foarte dar am bun",
    "hu": "a az és hogy nem is egy van vagy meg ez de csak el már mint nagyon jó volt",
    "tr": "ve bir bu için ile de da çok olarak daha en ne gibi olan veya kadar ama güzel iyi değil var yok ürün",
    "id": "yang dan di untuk dengan ini dari tidak pada adalah dalam anda atau akan kami juga saya bagus sangat tapi",
    "vi": "và của là có cho các không được trong một với những khi này người đã rất tôi nhưng tốt hàng",
    "ru": "и в не на что с по это как для из от вы или мы но при за я очень он все так был есть хорошо только у меня",
    "uk": "і в не на що з по це як для та від ви або ми але при за є я дуже він все так був добре тільки у мене",
    "bg": "и в не на че с по това като за от ви или ние но при се са аз много той всичко беше добре само е",
    "ar": "في من على إلى هذا هذه التي الذي لا ما أن كان مع عن جدا المنتج جيد هو هي كل غير ولكن",
    "fa": "و در به از که این را با است برای آن خیلی بود نیست هم خوب من اما یک می کیفیت",
    "ur": "کے کا کی میں ہے اور سے کو یہ نہیں پر ہیں بہت اچھا نے بھی تھا لیکن",
    "hi": "है और के का की में से को यह नहीं पर हैं बहुत अच्छा ने भी था लेकिन ही हो",
    "mr": "आहे आणि हे मध्ये नाही खूप चांगले पण मी ते या ची चा चे होते",
}
_CANDIDATES: Final = {
    "cyrillic": ("ru", "uk", "bg"),
    "arabic": ("ar", "fa", "ur"),
    "devanagari": ("hi", "mr"),
}
_LATIN: Final = tuple(
    language for language in _COMMON_WORDS if not any(language in others for others in _CANDIDATES.values())
)
# What a text is when none of its words is known: the language most people write the script in.
_USUAL: Final = {"cyrillic": "ru", "arabic": "ar", "devanagari": "hi"}
# Letters that only these alphabets have, among the candidates of the script.
_OWN_LETTERS: Final = {
    "de": "ßẞ",
    "es": "ñ¿¡",
    "pt": "ãõ",
    "fr": "œêûî",
    "pl": "ąęłśźż",
    "cs": "ěřů",
    "ro": "șțţ",
    "hu": "őű",
    "tr": "ğış",
    "vi": "ơưđạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    "da": "æ",
    "sv": "",
    "ru": "ыэё",
    "uk": "іїєґ",
    "fa": "پچژگ",
    "ur": "ٹڈڑںھہےۓ",
}

LANGUAGES: Final = tuple(sorted({*_COMMON_WORDS, *_LANGUAGE_OF_SCRIPT.values()}))
"""Every code that ``detect_language`` gives."""

_PLACES: Final[dict[str | None, int]] = {None: -1, **{code: at for at, code in enumerate(LANGUAGES)}}


# What a word says; English gets as much for nothing.
_WORD_POINTS: Final = 5


class _Group:
    """Languages that share a script: who uses which word and which letter."""

    def __init__(self, languages: tuple[str, ...], usual: str | None) -> None:
        self.languages = languages
        self.usual = usual
        self.english = languages.index("en") if "en" in languages else -1
        self.words: dict[str, tuple[int, list[int]]] = {}
        self.letters: dict[str, list[int]] = {}
        for place, language in enumerate(languages):
            for word in dict.fromkeys(_COMMON_WORDS[language].split()):
                # One letter is a word in many languages, and a unit, a size or a list's mark in the others: it counts
                # two fifths of a word.
                points = 2 if len(word) == 1 and word.isascii() else _WORD_POINTS
                self.words.setdefault(word, (points, []))[1].append(place)
            for letter in dict.fromkeys(_OWN_LETTERS.get(language, "")):
                self.letters.setdefault(letter, []).append(place)
        self.foreign = frozenset(word for word, (_, places) in self.words.items() if self.english not in places)


_GROUPS: Final[Mapping[str, _Group]] = {
    "latin": _Group(_LATIN, None),
    **{script: _Group(languages, _USUAL[script]) for script, languages in _CANDIDATES.items()},
}
_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_ASCII_WORD: Final = re.compile("[a-z]+(?:'[a-z]+)?")
_ASCII_LETTER: Final = re.compile("[A-Za-z]")
# All but the characters of a usual Chinese or English text, whose compatibility forms are they themselves or commas,
# brackets and the like. Saves most texts the normalization.
_MAY_LOOK_ALIKE: Final = re.compile(
    "[^\\x00-\\x7f\u4e00-\u9fff\u3001\u3002\u300a-\u3011\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\u2014\u2018-\u201d]"
)
# Addresses, mail and handles are Latin in every language.
_NOT_WORDS: Final = re.compile(r"https?://[!-~]+|www\.[!-~]+|\S+@\S+\.\S+|[@#]\w+|<[^>]{0,200}>|&[a-z]+;", re.ASCII)
# What stands between the words of an ASCII text that has no apostrophes.
_BETWEEN: Final = {point: " " for point in range(0x80) if not chr(point).isalpha()}


def detect_language(text: str) -> str | None:
    """The language most of ``text`` is written in, or None where it has no letters or they do not tell.

    A text in two languages is of the one that says more in it.
    """
    text = _plain(text)
    if text.isascii():
        return _by_words(text, _GROUPS["latin"]) if _ASCII_LETTER.search(text) else None
    script = _main_script(np.bincount(_SCRIPT_OF[_points(text)], minlength=_KINDS)[:-1] * _SCRIPT_WEIGHTS, text)
    return _by_script(text, script)


def detect_languages(texts: Sequence[str]) -> NDArray[np.int8]:
    """``detect_language`` of N texts, faster: for each a place in LANGUAGES, or -1; int8 [N]."""
    plain = list(map(_plain, texts))
    latin, letter = _GROUPS["latin"], _ASCII_LETTER.search
    found = [_by_words(text, latin) if text.isascii() and letter(text) else None for text in plain]
    others = [place for place, text in enumerate(plain) if not text.isascii()]
    if others:
        scripts = _main_scripts([plain[place] for place in others])
        for place, script in zip(others, scripts, strict=True):
            found[place] = _by_script(plain[place], script)
    return np.array([_PLACES[language] for language in found], np.int8)


def _by_script(text: str, script: str | None) -> str | None:
    if script is None:
        return None
    return _LANGUAGE_OF_SCRIPT.get(script) or _by_words(text, _GROUPS[script])


def _plain(text: str) -> str:
    """What of a text is looked at."""
    if len(text) > _SAMPLE:
        part, middle = _SAMPLE // 3, len(text) // 2
        text = f"{text[:part]} {text[middle : middle + part]} {text[-part:]}"
    # Full-width letters and ligatures are the letters they look like.
    if not text.isascii() and _MAY_LOOK_ALIKE.search(text):
        text = unicodedata.normalize("NFKC", text)
    # One of these is in every match.
    if "&" in text or "<" in text or "@" in text or "#" in text or "://" in text or "www." in text:
        text = _NOT_WORDS.sub(" ", text)
    return text


def _script_table() -> NDArray[np.uint8]:
    """For each code point the place of its script in _SCRIPT_NAMES, and one past the last where it has none."""
    table = np.full(0x110000, len(_SCRIPTS), np.uint8)
    for place, ranges in enumerate(_SCRIPTS.values()):
        for first, last in re.findall("(.)-(.)|.", ranges):
            if first:
                table[ord(first) : ord(last) + 1] = place
    for single in "\u00aa\u00ba":
        table[ord(single)] = _SCRIPT_NAMES.index("latin")
    return table


_SCRIPT_OF: Final = _script_table()


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _main_script(counts: NDArray[np.int64], text: str) -> str | None:
    """The script that says most in ``text``, None where none does; ``counts`` is what each says, in their order."""
    kana = int(counts[_KANA])
    if kana:
        # A Japanese sentence has Han characters too, but never without kana for its endings; a Chinese one has the
        # odd の in a shop's name.
        han = int(counts[_HAN])
        if kana * 6 >= han and not (kana == _WEIGHTS["kana"] and "の" in text and han >= 2 * kana):
            counts[_KANA], counts[_HAN] = kana + han, 0
        else:
            counts[_KANA], counts[_HAN] = 0, han + kana
    best = int(counts.argmax())
    return _SCRIPT_NAMES[best] if counts[best] else None


def _main_scripts(texts: Sequence[str]) -> list[str | None]:
    """``_main_script`` of each text, counted at once."""
    firsts = np.arange(0, len(texts) * _KINDS, _KINDS)
    cells = firsts.repeat(np.fromiter(map(len, texts), np.intp, len(texts))) + _SCRIPT_OF[_points("".join(texts))]
    counts = np.bincount(cells, minlength=len(texts) * _KINDS).reshape(-1, _KINDS)[:, :-1] * _SCRIPT_WEIGHTS
    best, most = counts.argmax(axis=1).tolist(), counts.max(axis=1).tolist()
    scripts = [_SCRIPT_NAMES[at] if times else None for at, times in zip(best, most, strict=True)]
    for at in counts[:, _KANA].nonzero()[0].tolist():
        scripts[at] = _main_script(counts[at], texts[at])
    return scripts


def _by_words(text: str, group: _Group) -> str | None:
    lower, ascii_only = text.lower(), text.isascii()
    if not ascii_only:
        words = _WORD.findall(lower.replace("’", "'"))
    elif "'" in lower:
        words = _ASCII_WORD.findall(lower)
    else:
        words = lower.translate(_BETWEEN).split()
    if ascii_only and group.english >= 0:
        foreign = group.foreign.intersection(words)
        # What is a word in English too gives no other language more than English, which gets one word for nothing.
        if not foreign or sum(group.words[word][0] * min(words.count(word), 4) for word in foreign) <= _WORD_POINTS:
            return "en"
    known: dict[str, int] = {}
    for word in filter(group.words.__contains__, words):
        known[word] = known.get(word, 0) + 1
    hits = [0] * len(group.languages)
    for word, times in known.items():
        points, places = group.words[word]
        # A word said over and over says no more than one said a few times.
        points *= times if times < 4 else 4
        for place in places:
            hits[place] += points
    if not ascii_only:
        for letter in group.letters.keys() & set(lower):
            points = 10 * lower.count(letter)
            for place in group.letters[letter]:
                hits[place] += points
    best = max(hits)
    if best == 0:
        # A name, a word, an exclamation: English where nothing speaks against it.
        return group.usual or ("en" if "".join(words).isascii() else None)
    if group.english >= 0:
        hits[group.english] += _WORD_POINTS
        # English comes first among equals: "no", "in" and "me" are words in half of Europe.
        if hits[group.english] >= best:
            return "en"
    return group.languages[hits.index(best)]
