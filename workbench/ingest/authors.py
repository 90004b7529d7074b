"""Review authors at the lake's edge: a keyed hash instead of the name, which is taken out of the page's texts.

The archive keeps pages as they were, as evidence. The lake is for analysis, and there a name is never needed: the
hash tells whether two reviews are by the same author. The hash is keyed with the workspace's salt, so it cannot be
looked up in a list of hashed names, nor compared across workspaces.

What this does not find: a name that stands on the page in another form than the one given as the author, and the
names of people who are not review authors.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial

from workbench.extract.page import Page
from workbench.workspace import Workspace

__all__ = ["MASK", "fold", "hash_author", "redactor", "vocabulary"]

MASK = "[name]"
"""Stands where a name was."""


def fold(text: str | None) -> str:
    """``text`` with width, case and spacing evened out (NFKC, casefold), for comparing."""
    return " ".join(unicodedata.normalize("NFKC", text or "").casefold().split())


def hash_author(name: str | None, salt: bytes) -> str | None:
    """HMAC-SHA-256 of the folded name, the first 32 hex digits; None without a name."""
    folded = fold(name)
    return hmac.new(salt, folded.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32] if folded else None


def vocabulary(workspace: Workspace) -> frozenset[str]:
    """Names of companies and products and the words in them, folded: never taken for a person's name."""
    names: list[str] = []
    for company in workspace.companies:
        names += [company.name, *company.aliases]
        names += [name for product in company.products for name in (product.name, *product.aliases)]
    return frozenset(word for name in names for word in (fold(name), *fold(name).split()))


def redactor(page: Page, *, keep: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that masks the names of the page's review authors in a text.

    ``keep``: folded words that stay even when an author is called so. A name of one character stays too: it names
    nobody, and a lone "A" is mostly a word. Names of one word are found as written, so that an author called Will
    does not cost every "will"; longer ones in any case and spacing.
    """
    kept = set(keep)
    names = {" ".join((review.author or "").split()) for review in page.reviews}
    wanted = sorted((n for n in names if len(n) > 1 and fold(n) not in kept), key=lambda n: (-len(n), n))
    if not wanted:
        return str
    return partial(re.compile("|".join(map(_pattern, wanted))).sub, MASK)


def _pattern(name: str) -> str:
    words = name.split(" ")
    found = r"\s+".join(map(re.escape, words))
    if len(words) > 1:
        found = f"(?i:{found})"
    # Chinese and Japanese are written without spaces: there a name has no edges to look for.
    before = r"(?<!\w)" if _has_edge(name[0]) else ""
    after = r"(?!\w)" if _has_edge(name[-1]) else ""
    return f"{before}{found}{after}"


def _has_edge(character: str) -> bool:
    return bool(re.match(r"\w", character)) and not re.match(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]", character)
