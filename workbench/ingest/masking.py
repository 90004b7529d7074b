"""Masking the names of very many review authors in very many texts.

``workbench.ingest.authors.redactor`` tries every name of a page in every text of it. An export has a hundred thousand
names, many of them nicknames that are plain words ("Good", "great app"), so here

- an author's own reviews are masked as on a page;
- in the reviews of others a name is masked unless more than WORD of them hold it: then it is a word, and masking it
  would take it out of what people say;
- a text is looked through once for what begins a name, and only those names are tried.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from workbench.extract.page import Page, Review
from workbench.ingest.authors import redactor

__all__ = ["WORD", "NameMask"]

WORD: Final = 5
"""A name that stands in more texts than this is taken for a word."""

# Scripts in which a name has no edges (as in authors.py), and runs of all other letters and digits.
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SPACELESS_START = re.compile(f"[{_SPACELESS}]")
_RUNS = re.compile(rf"[{_SPACELESS}]+|[^\W{_SPACELESS}]+")


class NameMask:
    """Masks the ``names`` of authors in the ``texts`` they and others wrote; ``keep`` as for ``redactor``."""

    def __init__(self, names: Iterable[str | None], texts: Iterable[str], *, keep: Iterable[str] = ()) -> None:
        self._keep = frozenset(keep)
        self._by_key: dict[str, set[str]] = defaultdict(set)
        self._unlettered: set[str] = set()
        for name in names:
            plain = _plain(name)
            if len(plain) < 2:  # the redactor leaves these alone
                continue
            key = _key_of_name(plain)
            if key is None:
                self._unlettered.add(plain)
            else:
                self._by_key[key].add(plain)
        counts = Counter(name for text in texts for name in self._names_in(text))
        self._words = {name for name, count in counts.items() if count > WORD}

    def __call__(self, text: str, author: str | None = None) -> str:
        """``text``, written by ``author``, with the names in it masked."""
        found = self._names_in(text) - self._words
        # An author's own name is tried wherever it may stand; most reviews do not hold it.
        if len(own := _plain(author)) > 1 and own.casefold() in _folded(text):
            found.add(own)
        if not found:
            return text
        page = Page(reviews=tuple(Review(author=name) for name in sorted(found)))
        return redactor(page, keep=self._keep)(text)

    def _names_in(self, text: str) -> set[str]:
        """The names that may stand in ``text``: all that do, and a few that do not."""
        if not self._by_key and not self._unlettered:
            return set()
        folded = _folded(text)
        keys = self._by_key.keys() & set(_keys_of_text(text))
        found = {name for key in keys for name in self._by_key[key] if name.casefold() in folded}
        return found | {name for name in self._unlettered if name.casefold() in folded}


def _plain(name: str | None) -> str:
    return " ".join((name or "").split())


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _key_of_name(name: str) -> str | None:
    """What a text must hold for the name to be in it; None for a name without letters and digits."""
    runs: list[str] = _RUNS.findall(name)
    if not runs:
        return None
    # A run of letters stands alone in the text too, because there a name must begin and end at a word's edge; Chinese
    # characters may have any others around them.
    lettered = next((run for run in runs if not _is_spaceless(run)), None)
    return lettered.casefold() if lettered is not None else runs[0][:2]


def _keys_of_text(text: str) -> Iterator[str]:
    for run in _RUNS.findall(text):
        if not run.isascii() and _is_spaceless(run):
            yield from run
            yield from (run[place : place + 2] for place in range(len(run) - 1))
        else:
            yield run.casefold()


def _is_spaceless(run: str) -> bool:
    return _SPACELESS_START.match(run) is not None
