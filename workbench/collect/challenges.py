"""Tell a page from the door in front of it: challenge and block pages that sites show to machines.

Some come with status 200, and archiving one as the page would look as if everything on the page had vanished. The
marks below stand in the challenge pages only, not in the scripts that the same vendors put on ordinary pages, and
are looked for in short HTML pages only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["challenge_name"]

_LONGEST = 150_000

_HEADERS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    # Cloudflare: "Detect a challenge page response" in its documentation.
    ("cf-mitigated", re.compile(r"challenge", re.I), "Cloudflare"),
    # AWS WAF: documented for the Challenge and CAPTCHA actions.
    ("x-amzn-waf-action", re.compile(r"challenge|captcha", re.I), "AWS WAF"),
)
_MARKS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"window\._cf_chl_opt|<title>Attention Required! \| Cloudflare</title>"), "Cloudflare"),
    (re.compile(rb"Request unsuccessful\. Incapsula incident ID"), "Imperva"),
    (re.compile(rb"""id=["']px-captcha["']"""), "HUMAN"),
    (re.compile(rb"https://(?:geo|ct)\.captcha-delivery\.com/"), "DataDome"),
    (re.compile(rb"sec-if-cpt-container"), "Akamai"),
    (re.compile(rb"sucuri_cloudproxy_js"), "Sucuri"),
    (re.compile(rb"window\.gokuProps\s*="), "AWS WAF"),
    (re.compile(rb"acw_sc__v2"), "Alibaba Cloud"),
    (re.compile(rb"/_____tmd_____/punish"), "Alibaba"),
    (re.compile("<title>百度安全验证</title>".encode()), "Baidu"),
    (re.compile(rb"""action=["']/errors/validateCaptcha"""), "Amazon"),
)
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|!--|html|head|body|script|meta|title|noscript)", re.I)


def challenge_name(headers: Mapping[str, str], payload: bytes) -> str | None:
    """Whose challenge or block page this is, or None for anything else. Header names in lower case."""
    for name, pattern, vendor in _HEADERS:
        if pattern.search(headers.get(name, "")):
            return vendor
    if len(payload) > _LONGEST or not _HTML.match(payload):
        return None
    return next((vendor for pattern, vendor in _MARKS if pattern.search(payload)), None)
