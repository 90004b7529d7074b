"""Finding the names of known companies and products in texts.

Names and aliases come from workspace.toml. They are matched exactly, whatever their case (folded as Unicode does it:
STRASSE is Straße) and width, and:

- where a name begins or ends with a digit or a letter of a script with spaces, a word must begin or end there.
  Chinese, Japanese and Korean have no such borders: a name in them is found anywhere, and so is "Folio" between two
  of their characters. A blank between such a character and another script is there or not, as the writer likes:
  墨舒M2 is 墨舒 M2;
- the longest name wins: in "Ondine Cloud" only that is found, and neither "Ondine" nor "Cloud";
- one short Latin word (SHORT characters at most, such as "Slate" or "M2") may be a common word or a unit. It counts
  only with a capital letter where workspace.toml writes it with one.

What this cannot tell: a Chinese name from the same characters across two other words (墨舒 in 笔墨舒展), and a short
word with its capital at the beginning of a sentence from a name. Name such a company by a longer alias.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.workspace import Workspace

__all__ = ["SHORT", "Mention", "NameFinder", "normal", "whole_word"]

SHORT = 5
"""Characters of a single word that needs its capital letter."""

# Letters of scripts that are written without spaces, and their full stops and brackets.
_SPACELESS = "\u2e80-\u2fff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_LETTER = rf"[^\W{_SPACELESS}]"  # a letter, digit or underscore of any other script
_BORDER = re.compile(
    rf"(?<=[{_SPACELESS}]) | (?=[{_SPACELESS}])"
    rf"|(?<=[{_SPACELESS}])(?={_LETTER})|(?<={_LETTER})(?=[{_SPACELESS}])"
)


@dataclass(frozen=True)
class Mention:
    """A known name in a text; offsets are those of ``normal(text)``, end exclusive."""

    start: int
    end: int
    company_id: str
    name: str
    """The company's or product's own name, whichever alias was found."""


@dataclass(frozen=True)
class _Name:
    pattern: re.Pattern[str]
    capital: bool
    length: int
    company_id: str
    name: str


def normal(text: str) -> str:
    """``text`` as names are looked for in it: compatibility forms made equal, blanks run together, case kept."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def whole_word(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]`` begins and ends where a word does."""
    cut_before = start > 0 and _joined(text[start - 1], text[start : start + 1])
    cut_after = end < len(text) and _joined(text[end - 1 : end], text[end])
    return start < end and not cut_before and not cut_after


def _joined(left: str, right: str) -> bool:
    return re.fullmatch(_LETTER, left) is not None and re.fullmatch(_LETTER, right) is not None


class NameFinder:
    """Finds the names of a workspace's companies and products."""

    def __init__(self, workspace: Workspace) -> None:
        names: dict[str, _Name] = {}
        for company in workspace.companies:
            for own, variants in (
                (company.name, company.aliases),
                *((product.name, product.aliases) for product in company.products),
            ):
                for variant in (own, *variants):
                    text = normal(variant)
                    # The first company to claim a name keeps it.
                    if text and text.casefold() not in names:
                        names[text.casefold()] = _name(text, company.id, own)
        self._names = sorted(names.values(), key=lambda name: (-name.length, name.name, name.pattern.pattern))
        self._folded = tuple(sorted(names))

    def find(self, text: str) -> list[Mention]:
        """Every mention in ``text``, in order; no two overlap."""
        plain = normal(text)
        folded, places = _fold(plain)
        found: list[Mention] = []
        for name in self._names:
            for match in name.pattern.finditer(folded):
                start, end = places[match.start()], places[match.end() - 1] + 1
                if name.capital and not plain[start].isupper():
                    continue
                if all(end <= other.start or start >= other.end for other in found):
                    found.append(Mention(start, end, name.company_id, name.name))
        return sorted(found, key=lambda mention: mention.start)

    def companies(self, text: str) -> tuple[str, ...]:
        """Ids of the companies that ``text`` names, each once, sorted."""
        return tuple(sorted({mention.company_id for mention in self.find(text)}))

    def knows(self, text: str) -> bool:
        """Whether ``text`` is or holds a known name, or is a part of one in whole words, in any case."""
        folded = normal(text).casefold()
        if self.find(text) or folded in self._folded:
            return True
        inside = re.compile(_bounded(folded))
        return bool(folded) and any(inside.search(name) for name in self._folded)


def _fold(plain: str) -> tuple[str, Sequence[int]]:
    """``plain`` case-folded, and the place in ``plain`` of each of its characters: ß becomes two."""
    folded = plain.casefold()
    if len(folded) == len(plain):
        return folded, range(len(plain))
    return folded, [place for place, char in enumerate(plain) for _ in char.casefold()]


def _name(text: str, company_id: str, own: str) -> _Name:
    single = re.fullmatch(rf"{_LETTER}+", text) is not None
    capital = single and len(text) <= SHORT and text[0].isupper()
    return _Name(re.compile(_bounded(text.casefold())), capital, len(text), company_id, own)


def _bounded(folded: str) -> str:
    """A pattern for a folded name: whole words where its script has them, blanks as its scripts have them."""
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, folded) else ""
    after = rf"(?!{_LETTER})" if re.search(rf"{_LETTER}\Z", folded) else ""
    # A blank beside a character of a script without spaces, or the place for one where the scripts change.
    parts = _BORDER.split(folded)
    return f"{before}{' ?'.join(map(re.escape, parts))}{after}"
