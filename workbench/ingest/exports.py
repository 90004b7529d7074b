"""Files of reviews as records: CSV, JSON lines, JSON, Parquet, RSS and Atom.

A record is a dict, possibly of dicts and lists; a column is named with dots: ``user.name``, ``ratings.0.value``.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import lxml.html
import polars as pl
from charset_normalizer import from_bytes
from lxml import etree

from workbench.errors import ParameterError

__all__ = ["FORMATS", "columns_of", "read_records", "value_at"]

FORMATS: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xml", ".rss", ".atom")
"""What can be read, by suffix."""

Record = Mapping[str, Any]


def read_records(payload: bytes, name: str, *, records: str | None = None) -> list[Record]:
    """The records of a file. ``name``: its name, for the suffix and for errors.

    ``records``: the path of the list inside a JSON file, such as ``data.reviews``; None finds it when there is only
    one. Items of feeds have the columns title, text, author, date and url, beside all of their own.
    Raises ParameterError when the file is none of FORMATS or cannot be read.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in FORMATS:
        raise ParameterError(
            f"Cannot read {name}: its name must end in one of {', '.join(FORMATS)}. Export it as CSV and try again."
        )
    if records is not None and suffix != ".json":
        raise ParameterError(f"{name} has no list inside a document to choose; leave --records out.")
    try:
        if suffix in (".csv", ".tsv"):
            return _read_csv(_text(payload))
        if suffix in (".jsonl", ".ndjson"):
            return _read_lines(_text(payload), name)
        if suffix == ".json":
            return _read_json(json.loads(_text(payload)), name, records)
        if suffix == ".parquet":
            return list(pl.read_parquet(io.BytesIO(payload)).iter_rows(named=True))
        return _read_feed(payload)
    except json.JSONDecodeError as error:
        raise ParameterError(
            f"{name} is not valid JSON: {error}. A file with one document a line must be named .jsonl."
        ) from None
    except (pl.exceptions.PolarsError, etree.XMLSyntaxError, UnicodeError, csv.Error, RecursionError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ParameterError(f"{name} cannot be read: {first}. Export it again and try again.") from None


def value_at(record: Record, column: str) -> Any:
    """The value of a column, None where the record has none. A key that holds dots itself goes before a path."""
    if column in record:
        return record[column]
    value: Any = record
    for part in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def columns_of(records: Sequence[Record]) -> list[str]:
    """Every column that a record has, in order of appearance."""
    found: dict[str, None] = {}
    for record in records:
        found.update(dict.fromkeys(_paths(record)))
    return list(found)


def _paths(value: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    if isinstance(value, Mapping) and value and depth < 6:
        for key, inner in value.items():
            yield from _paths(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value[:3]) and depth < 6:
        for place, item in enumerate(value[:3]):
            yield from _paths(item, f"{prefix}.{place}", depth + 1)
    elif prefix:
        yield prefix


def _text(payload: bytes) -> str:
    """The text of a file: UTF-8 or what its bytes look like; spreadsheets write UTF-16 and GB 18030."""
    if payload.startswith((b"\xff\xfe", b"\xfe\xff")):
        return payload.decode("utf-16")
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    best = from_bytes(payload[:1_000_000]).best()
    encoding = best.encoding if best is not None else "cp1252"
    # What was guessed from a part may not fit the whole; every GBK text is a GB 18030 text.
    encoding = "gb18030" if encoding in ("gb2312", "gbk", "cp936", "hz") else encoding
    return payload.decode(encoding, "replace")


def _read_csv(text: str) -> list[Record]:
    first = text[: text.find("\n")] if "\n" in text else text
    outside_quotes = re.sub(r'"[^"]*"', "", first)
    separator = max(",;\t|", key=outside_quotes.count)
    # A long comment is a field too; the module's limit is 128 KiB.
    csv.field_size_limit(1 << 27)
    rows = csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=separator)
    header = next(rows, [])
    return [dict(zip(header, row, strict=False)) for row in rows if any(row)]


def _read_lines(text: str, name: str) -> list[Record]:
    found: list[Record] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ParameterError(f"{name}, line {number} is not valid JSON: {error}. Mend that line.") from None
            if not isinstance(record, dict):
                raise ParameterError(f"{name}, line {number} is no JSON object. Write one object a line.")
            found.append(record)
    return found


def _read_json(document: Any, name: str, path: str | None) -> list[Record]:
    lists = dict(_lists(document))
    if path is not None:
        if path not in lists:
            known = ", ".join(key or "(the document itself)" for key in lists) or "none"
            raise ParameterError(f"{name} has no list of objects at {path!r}. Lists there: {known}.")
        return lists[path]
    if "" in lists:
        return lists[""]
    if not lists:
        raise ParameterError(f"{name} holds no list of objects, so there are no reviews in it.")
    if len(lists) > 1:
        raise ParameterError(
            f"{name} holds several lists: {', '.join(lists)}. Name the one with the reviews, for example "
            f"--records {next(iter(lists))}"
        )
    return next(iter(lists.values()))


def _lists(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, list[Record]]]:
    """Lists of objects with their paths; what lies inside a record is part of it."""
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            yield prefix, value
        elif not value and not prefix:
            yield prefix, []
    elif isinstance(value, dict) and depth < 6:
        for key, inner in value.items():
            yield from _lists(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)


# Feeds


_ITEMS: Final = ("item", "entry")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("encoded", "content", "description", "summary"),
    "author": ("creator", "author.name", "author"),
    "date": ("pubdate", "published", "date", "updated"),
    "url": ("link",),
    "title": ("title",),
}


def _read_feed(payload: bytes) -> list[Record]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    tree = etree.fromstring(payload, parser)
    return [_item(node) for node in tree.iter() if isinstance(node.tag, str) and _local(node) in _ITEMS]


def _item(node: Any) -> Record:
    own: dict[str, Any] = {}
    for child in node:
        if not isinstance(child.tag, str):
            continue
        name = _local(child)
        inner = {_local(part): _words(part) for part in child if isinstance(part.tag, str) and not _is_markup(part)}
        own.setdefault(name, inner or child.get("href") or _words(child))
    record = {
        field: value
        for field, names in _FIELDS.items()
        if isinstance(value := next((v for n in names if (v := value_at(own, n))), None), str)
    }
    # An author of RSS may be an address with the name behind it: a@b.example (Name).
    if (author := record.get("author")) and (match := re.fullmatch(r"\S+@\S+\s+\((.+)\)", author)):
        record["author"] = match[1]
    return {**own, **record}


def _local(node: Any) -> str:
    return str(etree.QName(node).localname).lower()


def _is_markup(node: Any) -> bool:
    return etree.QName(node).namespace == "http://www.w3.org/1999/xhtml"


def _words(node: Any) -> str:
    """The text of an element: markup in it, as elements or escaped, is taken out."""
    text = "".join(node.itertext()).strip()
    if "<" not in text:
        return text
    try:
        fragment = lxml.html.fragment_fromstring(text, create_parent="div")
    except (etree.ParserError, ValueError):
        return text
    for part in fragment.iter("br", "p", "li", "div"):
        part.tail = "\n" + (part.tail or "")
    return re.sub(r"\s*\n\s*", "\n", fragment.text_content()).strip()
