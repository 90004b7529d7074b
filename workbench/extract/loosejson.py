"""JSON as pages really carry it: with comments, trailing commas, entities, several values, or cut short."""

from __future__ import annotations

import html
import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

__all__ = ["read_json_values", "read_value_after"]

_WRAPPING = re.compile(
    r"^\s*(?:<!--|//\s*<!\[CDATA\[|/\*\s*<!\[CDATA\[\s*\*/|<!\[CDATA\[)|(?:-->|//\s*\]\]>|\]\]>)\s*$"
)
# A string, a comment, a comma before a closing bracket: one pass tells them apart, so a URL's // is no comment. What
# is opened and never closed runs to the end, which keeps the pass linear.
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*(?:"|\Z)'
    r"|/\*.*?(?:\*/|\Z)|<!--.*?(?:-->|\Z)|(?<![:\w])//[^\n]*"
    r"|,(?=\s*[}\]])"
    r"|\b(?:undefined|NaN|-?Infinity)\b|!0\b|!1\b",
    re.DOTALL,
)
_LITERALS = {"undefined": "null", "NaN": "null", "Infinity": "null", "-Infinity": "null", "!0": "true", "!1": "false"}
_BAD_ESCAPE = re.compile(r'\\(?!["\\/bfnrtu]|u[0-9a-fA-F]{4})')
_DECODER = json.JSONDecoder(strict=False)
_MAX_NESTING = 200
_MAX_ENDS = 40


def read_json_values(text: str) -> tuple[list[Any], bool]:
    """All JSON values in a script's text, and whether they had to be repaired.

    Values that cannot be read even after repair are left out; no values and ``True`` means nothing could be read.
    """
    try:
        return [_DECODER.decode(text.strip())], False
    except (ValueError, RecursionError):
        pass
    cleaned = _WRAPPING.sub("", _WRAPPING.sub("", text)).strip().rstrip(";").strip()
    if not cleaned:
        return [], bool(text.strip())
    for candidate in (cleaned, html.unescape(cleaned)):
        values = _decode_all(_repair(candidate))
        if values:
            return values, True
    for candidate in _close(_repair(cleaned)):
        values = _decode_all(candidate)
        if values:
            return values, True
    return [], True


def read_value_after(text: str, start: int) -> Any | None:
    """The JSON object or array that begins at or after ``start``; None if what follows is not JSON.

    Meant for state in scripts, such as ``window.__STATE__ = {…}``: what comes after the value is not looked at.
    """
    found = re.compile(r"\s*([{\[])").match(text, start)
    if not found:
        return None
    try:
        return _DECODER.raw_decode(text, found.start(1))[0]
    except (ValueError, RecursionError):
        return None


def _repair(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        part = match.group(0)
        if part.startswith('"'):
            return _BAD_ESCAPE.sub(r"\\\\", part) if "\\" in part else part
        return _LITERALS.get(part, "")

    return _TOKEN.sub(replace, text)


def _decode_all(text: str) -> list[Any]:
    """Values one after the other, with or without commas between them."""
    values: list[Any] = []
    position = 0
    while True:
        starts = [index for index in (text.find("{", position), text.find("[", position)) if index >= 0]
        if not starts:
            return values
        try:
            value, position = _DECODER.raw_decode(text, min(starts))
        except (ValueError, RecursionError):
            return values
        values.append(value)


def _close(text: str) -> Iterator[str]:
    """A value that broke off, ended after one of its last complete members and closed; longest first."""
    stack: list[str] = []
    ends: deque[tuple[int, str]] = deque(maxlen=_MAX_ENDS)
    for match in re.finditer(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[{}\[\],]', text, re.DOTALL):
        mark = match.group(0)
        if mark in "{[":
            if len(stack) >= _MAX_NESTING:
                break
            stack.append("}" if mark == "{" else "]")
        elif mark in "}]":
            if not stack or stack.pop() != mark:
                break
            ends.append((match.end(), "".join(reversed(stack))))
        elif mark == "," and stack:
            ends.append((match.start(), "".join(reversed(stack))))
    for end, brackets in reversed(ends):
        yield text[:end] + brackets
