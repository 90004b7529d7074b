"""What a page states about itself in markup for machines: JSON-LD, microdata, RDFa, OpenGraph and other meta tags.

All syntaxes come out in one form: a dict whose ``@type`` is a tuple of short names (``Product``, ``Offer``) and whose
other keys are schema.org's property names. Values are strings, numbers, booleans, such dicts, or lists of them.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from extruct.jsonld import JsonLdExtractor
from extruct.w3cmicrodata import MicrodataExtractor
from lxml import etree
from lxml.html import HtmlElement

from workbench.extract.document import Document
from workbench.extract.loosejson import read_json_values
from workbench.extract.view import View, view_page

__all__ = [
    "Item",
    "Structured",
    "find_items",
    "first",
    "list_of",
    "number_text_of",
    "read_structured",
    "text_of",
    "types_of",
]

log = logging.getLogger(__name__)

Item = dict[str, Any]

_MAX_ITEMS = 2000
_MAX_DEPTH = 30
_JSON_LD = re.compile(r"^\s*application/(?:[\w.]+\+)?ld\+json", re.IGNORECASE)
_SCHEMA_PREFIX = re.compile(
    r"^(?:https?://(?:www\.)?schema\.org/|https?://data-vocabulary\.org/|schema:|gr:)", re.IGNORECASE
)
_TAG = re.compile(r"<[a-zA-Z/!][^>]*>")
# Types are written in any case on real pages; these are the ones the readers look for.
_TYPE_NAMES = {
    name.lower(): name
    for name in re.findall(
        r"\w+",
        """Product ProductGroup ProductModel IndividualProduct SomeProducts Vehicle Car Book Event Service Offer
        SoftwareApplication WebApplication MobileApplication AggregateOffer Review AggregateRating Rating Person
        Organization Brand UnitPriceSpecification PriceSpecification CompoundPriceSpecification QuantitativeValue
        ItemList ListItem WebPage ItemPage FAQPage Article BreadcrumbList UserReview CriticReview EmployerReview""",
    )
}
_xpath_microdata_head = etree.XPath("//*[@itemprop][not(ancestor::*[@itemscope])][not(@itemscope)]")
_xpath_rdfa = etree.XPath("//*[@typeof and not(ancestor::*[@typeof])]")


@dataclass(frozen=True)
class Structured:
    """Everything stated for machines.

    ``items`` are the top-level items of JSON-LD, microdata and RDFa, in that order. ``meta`` maps the lower-cased
    name or property of every meta tag to its first content; ``loose`` holds itemprop values outside of any item.
    """

    items: tuple[Item, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    loose: Mapping[str, str] = field(default_factory=dict)
    view: View | None = field(default=None, compare=False, repr=False)
    """The walk over the visible page, made once for the readers of offers, plans and reviews."""

    def seen(self, document: Document) -> View:
        """The walk over the page; made now where it was not made with the rest."""
        return self.view or view_page(document, self.meta.get("og:title"))


def read_structured(document: Document) -> Structured:
    """Read all markup for machines from the shared tree. Unreadable parts become warnings on the document."""
    json_ld = _guard(document, "JSON-LD", lambda: _read_json_ld(document)) or []
    microdata = _guard(document, "microdata", lambda: _read_microdata(document)) or []
    rdfa = _guard(document, "RDFa", lambda: _read_rdfa(document)) or []
    meta = _guard(document, "meta tags", lambda: _read_meta(document.tree)) or {}
    loose = _guard(document, "itemprop", lambda: _read_loose(document.tree)) or {}
    return Structured(
        items=tuple([*json_ld, *microdata, *rdfa][:_MAX_ITEMS]),
        meta=meta,
        loose=loose,
        view=_guard(
            document, "the visible page", lambda: view_page(document, meta.get("og:title") or _title(document))
        ),
    )


def _title(document: Document) -> str | None:
    return next((text for node in document.tree.iter("title") if (text := node.text_content().strip())), None)


def types_of(item: Any) -> tuple[str, ...]:
    """Short type names of an item; empty for anything that is no item."""
    types = item.get("@type", ()) if isinstance(item, dict) else ()
    return types if isinstance(types, tuple) else ()


def list_of(value: Any) -> list[Any]:
    """A property's values as a list, whatever form it came in; None and empty strings are left out."""
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if entry is not None and entry != "" and entry != {}]


def first(value: Any) -> Any | None:
    """The first value of a property."""
    values = list_of(value)
    return values[0] if values else None


def text_of(value: Any, *, depth: int = 0) -> str | None:
    """A property as one line of plain text: an item gives its name, a list its first readable member."""
    if depth > _MAX_DEPTH:
        return None
    for entry in list_of(value):
        if isinstance(entry, dict):
            named = next((entry[key] for key in ("name", "@value", "value", "@id") if entry.get(key)), None)
            text = text_of(named, depth=depth + 1)
        elif isinstance(entry, list):
            text = text_of(entry, depth=depth + 1)
        elif isinstance(entry, bool):
            text = None
        else:
            text = _plain(str(entry))
        if text:
            return text
    return None


def number_text_of(value: Any) -> str | None:
    """A property that should be a number, as text; numbers keep their decimals."""
    entry = first(value)
    if isinstance(entry, bool):
        return None
    if isinstance(entry, (int, float)):
        return repr(entry) if isinstance(entry, float) else str(entry)
    return text_of(entry)


def find_items(structured: Structured, *types: str) -> Iterator[Item]:
    """All items of the given types, nested ones included, in page order; each once."""
    wanted = set(types)
    seen: set[int] = set()

    def walk(value: Any, depth: int) -> Iterator[Item]:
        if depth > _MAX_DEPTH:
            return
        if isinstance(value, list):
            for entry in value:
                yield from walk(entry, depth + 1)
        elif isinstance(value, dict):
            if id(value) in seen:
                return
            seen.add(id(value))
            if wanted.intersection(types_of(value)):
                yield value
            for key, entry in value.items():
                if key != "@type":
                    yield from walk(entry, depth + 1)

    for item in structured.items:
        yield from walk(item, 0)


def _guard(document: Document, what: str, read: Any) -> Any:
    try:
        return read()
    except Exception as error:  # Pages hold anything; one broken syntax must not take the others with it.
        log.debug("%s failed", what, exc_info=True)
        document.warnings.append(f"structured data: {what} could not be read ({type(error).__name__})")
        return None


def _read_json_ld(document: Document) -> list[Item]:
    extractor = JsonLdExtractor()
    raw: list[Any] = []
    for script in document.tree.iter("script"):
        if not _JSON_LD.match(script.get("type") or ""):
            continue
        try:
            # The extractor is called for each script on its own, so that a broken one does not hide the others.
            found = extractor.extract_items(script)
        except Exception:  # What it raises depends on how the text is broken.
            found = []
        if not found:
            text = script.text_content()
            values, repaired = read_json_values(text)
            found = values
            if repaired and text.strip():
                state = "was repaired" if values else "could not be read"
                document.warnings.append(f"structured data: a JSON-LD block {state}")
        raw += found
    by_id: dict[str, Item] = {}
    roots: list[Item] = []
    for entry in raw:
        for value in entry if isinstance(entry, list) else [entry]:
            item = _normalize(value, by_id, 0)
            if isinstance(item, dict):
                graph = item.pop("@graph", None)
                if len(item) > 2 or (item and not graph):
                    roots.append(item)
                roots += [member for member in list_of(graph) if isinstance(member, dict)]
    for root in roots:
        _resolve(root, by_id, frozenset(), 0)
    return roots


def _normalize(value: Any, by_id: dict[str, Item], depth: int) -> Any:
    """JSON-LD or extruct's microdata with short types; deep nesting is cut."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_normalize(entry, by_id, depth + 1) for entry in value]
    if not isinstance(value, dict):
        return value
    item: Item = {}
    for key, entry in value.items():
        if key in ("@context", "@type"):
            continue
        item[_SCHEMA_PREFIX.sub("", str(key))] = _normalize(entry, by_id, depth + 1)
    types = _short_types(value.get("@type"))
    if types:
        item["@type"] = types
    identifier = item.get("@id")
    if isinstance(identifier, str) and len(item) > 2 and identifier not in by_id:
        by_id[identifier] = item
    return item


def _resolve(item: Item, by_id: Mapping[str, Item], above: frozenset[str], depth: int) -> None:
    """Put the item that ``{"@id": …}`` points to in its place; a circle stays a bare reference."""
    if depth > _MAX_DEPTH:
        return
    own = item.get("@id")
    above = above | {own} if isinstance(own, str) else above
    for key, value in list(item.items()):
        members = value if isinstance(value, list) else [value]
        for index, member in enumerate(members):
            if not isinstance(member, dict):
                continue
            identifier = member.get("@id")
            if isinstance(identifier, str) and len(member) <= 2 and identifier in by_id and identifier not in above:
                if isinstance(value, list):
                    value[index] = by_id[identifier]
                else:
                    item[key] = by_id[identifier]
            elif len(member) > 1:
                _resolve(member, by_id, above, depth + 1)


def _short_types(value: Any) -> tuple[str, ...]:
    names: list[str] = []
    for entry in list_of(value):
        if isinstance(entry, str):
            for word in entry.split():
                short = _SCHEMA_PREFIX.sub("", word).strip("/#")
                names.append(_TYPE_NAMES.get(short.lower(), short))
    return tuple(dict.fromkeys(name for name in names if name))


def _read_microdata(document: Document) -> list[Item]:
    raw = MicrodataExtractor().extract_items(document.tree, document.base_url or "")
    return [item for entry in raw if isinstance(item := _from_microdata(entry, 0), dict)]


def _from_microdata(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_from_microdata(entry, depth + 1) for entry in value]
    if not isinstance(value, dict) or not ({"type", "properties", "value"} & value.keys()):
        return value
    item: Item = {
        _SCHEMA_PREFIX.sub("", str(key)): _from_microdata(entry, depth + 1)
        for key, entry in (value.get("properties") or {}).items()
    }
    if "id" in value:
        item["@id"] = value["id"]
    if not item and isinstance(value.get("value"), str):
        item["name"] = value["value"]
    types = _short_types(value.get("type"))
    if types:
        item["@type"] = types
    return item


def _read_rdfa(document: Document) -> list[Item]:
    """RDFa Lite: ``typeof`` and ``property``, in the nesting of the page. Taken to be schema.org."""
    return [
        item
        for node in cast("list[HtmlElement]", _xpath_rdfa(document.tree))
        if (item := _rdfa_item(node, 0)).get("@type")
    ]


def _rdfa_item(node: HtmlElement, depth: int) -> Item:
    item: Item = {}
    types = _short_types(node.get("typeof"))
    if types:
        item["@type"] = types
    stack = [child for child in reversed(node) if isinstance(child.tag, str)]
    while stack and depth < _MAX_DEPTH:
        child = stack.pop()
        nested = child.get("typeof") is not None
        prop = child.get("property")
        if prop:
            value: Any = _rdfa_item(child, depth + 1) if nested else _rdfa_value(child)
            for name in prop.split():
                item.setdefault(_SCHEMA_PREFIX.sub("", name), []).append(value)
        if not nested:
            stack += [grandchild for grandchild in reversed(child) if isinstance(grandchild.tag, str)]
    return item


def _rdfa_value(node: HtmlElement) -> str:
    for attribute in ("content", "resource", "href", "src", "datetime"):
        value = node.get(attribute)
        if value is not None:
            return value
    return " ".join(node.text_content().split())


def _read_meta(tree: HtmlElement) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in tree.iter("meta"):
        name = node.get("property") or node.get("name") or node.get("itemprop") or node.get("http-equiv")
        content = node.get("content")
        if name and content and content.strip():
            found.setdefault(name.strip().lower(), _plain(content))
    for node in tree.iter("link"):
        if (node.get("rel") or "").lower() == "canonical" and node.get("href"):
            found.setdefault("canonical", (node.get("href") or "").strip())
    return found


def _read_loose(tree: HtmlElement) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in cast("list[HtmlElement]", _xpath_microdata_head(tree)):
        value = node.get("content") or node.get("href") or node.get("value") or ""
        if not value and node.tag != "meta":
            value = node.text_content()
        value = _plain(value)
        if value and len(value) < 300:
            for name in (node.get("itemprop") or "").split():
                found.setdefault(name, value)
    return found


def _plain(text: str) -> str:
    """One line without tags and entities: descriptions and names often carry both."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    return " ".join(text.split())
