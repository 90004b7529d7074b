"""Bytes of a page to text: what browsers do, and a second look where the declaration cannot be true.

Order: byte order mark, the ``charset`` of the HTTP content type, ``<meta charset>`` (labels as the WHATWG Encoding
Standard reads them: ``gb2312`` is GBK, ``big5`` is Big5-HKSCS, ``iso-8859-1`` is windows-1252), then detection. A
declared encoding is doubted when it leaves many bytes unread, or when the text it gives is not what people write.
"""

from __future__ import annotations

import re

import webencodings
from charset_normalizer import from_bytes

__all__ = ["decode_page"]

# How far into the page a declaration is looked for. The standard says 1,024 bytes; real pages put scripts before it.
_PRESCAN_BYTES = 4096
# How much text detection looks at.
_SAMPLE_BYTES = 65_536

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,400}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_XML_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{2,40})""", re.IGNORECASE)
_CONTENT_TYPE = re.compile(r"""charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
# No pattern here may look further than the next bracket, or a page of brackets takes for ever.
_TAG = re.compile(rb"<[^<>]*>")
_UNSHOWN = ((b"<!--", b"-->"), (b"<script", b"</script"), (b"<style", b"</style"))
_HIGH_RUN = re.compile(rb"[\x80-\xff](?:[\x40-\x7e]?[\x80-\xff])*[\x40-\x7e]?")

# XML 1.0 characters; anything else (NUL, most controls, lone surrogates, noncharacters) cannot be kept in a tree.
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# The 200 or so most frequent characters of written Chinese, simplified and traditional, beside the kana. A text that
# is read with the right multi-byte encoding is full of them, one read with a wrong one is not.
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文"
    "无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很"
    "业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命"
    "张活难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题建南度统色字请"
    "价格购买商品元版套餐功能支持免费评价手机库存立即加入首页登录注册"
    "這來國個說們為時會著過家學對裡後麼發當無開見經頭動兩長樣現將與進實點種聲話問機給幾業間門東電體別處總場師書員報馬難數應車覺關氣產軍親務題統請"
    "價購買評論庫頁錄費結帳運貨訂單會員優惠產品"
)
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_HAN = re.compile("[\u4e00-\u9fff]")
_RARE = re.compile("[\u3400-\u4dbf\ue000-\uf8ff\uff66-\uff9f\ufffd\U00020000-\U0002ffff]")
_MULTI_BYTE = ("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949")
_SINGLE_BYTE = ("cp1251", "koi8_r", "iso8859_5", "cp1252", "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "cp874")
_LATIN_BY_LANGUAGE = dict.fromkeys(("pl", "cs", "sk", "hu", "sl", "hr", "ro"), "cp1250")
_LATIN_BY_LANGUAGE |= {"tr": "cp1254", "lt": "cp1257", "lv": "cp1257", "et": "cp1257"}
_LANG = re.compile(rb"""<html[^<>]{0,300}?\blang\s*=\s*["']?([a-z]{2})\b""", re.IGNORECASE)
# Of the letters of a western text, fewer than one in five has an accent.
_MAX_ACCENTED = 0.45


def decode_page(html: str | bytes, *, content_type: str | None = None) -> tuple[str, list[str]]:
    """Text of a page, and warnings about how it was read. Never raises.

    Characters that no document may hold (NUL, controls, lone surrogates) are left out.
    """
    if isinstance(html, str):
        text = html
        warnings: list[str] = []
    else:
        text, warnings = _decode_bytes(html, content_type)
    text = text.removeprefix("\ufeff")
    text, removed = _UNREADABLE.subn("", text)
    if removed:
        warnings.append(f"encoding: {removed} control or unpaired characters left out")
    return text, warnings


def _decode_bytes(data: bytes, content_type: str | None) -> tuple[str, list[str]]:
    for bom, boms_codec in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(boms_codec, "replace"), []
    label, codec, source = _find_declaration(data, content_type)
    if label is not None and codec is None:
        return _detect(data, f"encoding: {source} says {label!r}, which is no known encoding")
    if codec in ("utf-16-le", "utf-16-be"):
        return data.decode(codec, "replace"), []
    sample = _sample(data)
    if codec is None:
        return _detect(data, None, sample=sample)
    if not sample:
        return data.decode(codec, "replace"), []
    if codec != "utf-8" and len(sample) >= 8 and _is_utf8(data):
        return data.decode("utf-8"), [f"encoding: {source} says {label!r}, the bytes are UTF-8; read as UTF-8"]
    if _is_believable(sample, codec) and not (codec == "cp1252" and _is_mostly_high(data)):
        text = data.decode(codec, "replace")
        return text, _count_unread(text, codec)
    return _detect(
        data, f"encoding: {source} says {label!r}, which does not fit the bytes", sample=sample, declared=codec
    )


def _find_declaration(data: bytes, content_type: str | None) -> tuple[str | None, str | None, str]:
    """The declared label, the Python codec it means (None if unknown), and who declares it."""
    unknown: tuple[str | None, str | None, str] = (None, None, "")
    match = _CONTENT_TYPE.search(content_type or "")
    if match:
        codec = _codec_from_label(match[1])
        if codec:
            return match[1], codec, "the HTTP header"
        unknown = (match[1], None, "the HTTP header")
    head = _COMMENT.sub(b"", data[:_PRESCAN_BYTES])
    for pattern, source in ((_META, "the page"), (_XML_DECLARATION, "the XML declaration")):
        found = pattern.search(head)
        if found:
            label = found[1].decode("ascii", "replace")
            codec = _codec_from_label(label)
            # A page whose ASCII declaration could be read is not UTF-16; the standard says UTF-8 then.
            codec = "utf-8" if codec in ("utf-16-le", "utf-16-be") else codec
            if codec:
                return label, codec, source
            unknown = (label, None, source)
    return unknown


def _codec_from_label(label: str) -> str | None:
    encoding = webencodings.lookup(label)
    if encoding is None or encoding.name in ("replacement", "x-user-defined"):
        return None
    # GB18030 is a superset of GBK, and what browsers use to read both.
    return "gb18030" if encoding.name == "gbk" else str(encoding.codec_info.name)


def _sample(data: bytes) -> bytes:
    """Runs of non-ASCII text, without markup and scripts, that detection can look at."""
    shown = _strip_markup(data[: 8 * _SAMPLE_BYTES])
    runs = b" ".join(_HIGH_RUN.findall(shown))
    if not runs:  # all there is may sit in attributes or scripts, or far down
        runs = b" ".join(_HIGH_RUN.findall(data))
    return runs[:_SAMPLE_BYTES]


def _strip_markup(data: bytes) -> bytes:
    for start, end in _UNSHOWN:
        lowered, parts, position = data.lower(), [], 0
        while (opened := lowered.find(start, position)) >= 0:
            closed = lowered.find(end, opened)
            parts.append(data[position:opened])
            position = len(data) if closed < 0 else closed + len(end)
        data = b" ".join((*parts, data[position:]))
    return _TAG.sub(b" ", data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unread_share(sample: bytes, codec: str) -> float:
    text = sample.decode(codec, "replace")
    shown = [character for character in text if ord(character) > 0x7F]
    return sum(character == "\ufffd" for character in shown) / max(1, len(shown))


def _is_believable(sample: bytes, codec: str) -> bool:
    if codec == "utf-8":
        # Truncated or spliced pages have a few broken sequences; a page in another encoding has almost only those.
        return _unread_share(sample, codec) < 0.2
    if codec in _MULTI_BYTE:
        own = _plausibility(sample, codec)
        return own > 0.15 and not any(
            _plausibility(sample, other) > own + 0.25 for other in _MULTI_BYTE if other != codec
        )
    if _unread_share(sample, codec) > 0.05:
        return False
    # One byte for each letter: East Asian text shows as long runs of accented letters and signs.
    best = max(_MULTI_BYTE, key=lambda other: _plausibility(sample, other))
    return _plausibility(sample, best) < 0.5


def _is_mostly_high(data: bytes) -> bool:
    """Whether most letters are not ASCII: then this is no western text."""
    shown = _strip_markup(data[: 8 * _SAMPLE_BYTES])
    high = sum(byte > 0xBF for byte in shown)
    plain = sum(0x41 <= byte <= 0x5A or 0x61 <= byte <= 0x7A for byte in shown)
    return high > _MAX_ACCENTED * (high + plain)


def _plausibility(sample: bytes, codec: str) -> float:
    """How much the sample, read with a multi-byte codec, looks like Chinese, Japanese or Korean: 0 to 1."""
    sample = sample[:8192]
    text = sample.decode(codec, "replace")
    signs = [character for character in text if ord(character) > 0x7F]
    if len(signs) < 4:
        return 0.0
    shown = "".join(signs)
    han = _HAN.findall(shown)
    rare = len(_RARE.findall(shown)) / len(shown)
    kana = len(_KANA.findall(shown)) / len(shown)
    hangul = len(_HANGUL.findall(shown)) / len(shown)
    common = sum(sign in _COMMON_HAN for sign in han) / max(1, len(han))
    score = (len(han) / len(shown)) * min(1.0, common * 2.5)
    if codec in ("cp932", "euc_jp"):
        score = score * 0.5 + kana * 1.5
    elif codec == "cp949":
        score = hangul
    return max(0.0, min(1.0, score) - 2 * rare)


def _detect(
    data: bytes, reason: str | None, *, sample: bytes | None = None, declared: str | None = None
) -> tuple[str, list[str]]:
    """Text in the encoding that fits best, windows-1252 where nothing does."""
    sample = _sample(data) if sample is None else sample
    warnings: list[str] = []
    if not sample or _is_utf8(data) or _unread_share(sample, "utf-8") < 0.05:
        codec = "utf-8"
    else:
        codec = max(_MULTI_BYTE, key=lambda name: _plausibility(sample, name))
        if _plausibility(sample, codec) < 0.3:
            codec = _detect_single_byte(data) or declared or "cp1252"
    if reason:
        warnings.append(f"{reason}; read as {codec}")
    elif sample and codec != "utf-8":
        warnings.append(f"encoding: not declared; read as {codec}")
    text = data.decode(codec, "replace")
    return text, warnings + _count_unread(text, codec)


def _detect_single_byte(data: bytes) -> str | None:
    shown = _strip_markup(data[: 8 * _SAMPLE_BYTES])
    words = [word for word in shown.split() if any(byte > 0x7F for byte in word)]
    text = b" ".join(words)[:_SAMPLE_BYTES] or data[:_SAMPLE_BYTES]
    best = from_bytes(text, cp_isolation=list(_SINGLE_BYTE)).best()
    codec = None if best is None else best.encoding
    if codec is None:
        return None
    letters = [
        character for character in text.decode(codec, "replace") if ord(character) > 0x7F and character.isalpha()
    ]
    latin = sum(character < "\u0250" for character in letters)
    if latin > 0.5 * len(letters):
        # Western and Central European encodings differ in a few signs that no statistic tells apart in one page.
        match = _LANG.search(data[:_PRESCAN_BYTES])
        return _LATIN_BY_LANGUAGE.get(match[1].decode("ascii").lower() if match else "", "cp1252")
    return codec


def _count_unread(text: str, codec: str) -> list[str]:
    unread = text.count("\ufffd")
    return [f"encoding: {unread} places could not be read as {codec}"] if unread else []
