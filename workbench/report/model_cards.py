"""What the models of a report say of themselves: measured accuracy, training sets, limits.

A model folder's ``model.toml`` is its card. The runtime reads a few keys of it; the rest is free in form, so
whatever of it is missing or written in another way is left out here, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from workbench.errors import ModelError
from workbench.insight.proportions import share_interval
from workbench.report.html import clean, clip, plural, words
from workbench.report.tables import Column, table
from workbench.report.wording import language_word
from workbench.settings import settings
from workbench.tasks.spec import MODEL_FILES, ModelSpec, load_spec
from workbench.workspace import Workspace

__all__ = [
    "ModelCard",
    "card_from_spec",
    "card_notes",
    "cards_table",
    "find_cards",
    "limit_lines",
    "model_folders",
    "training_lines",
]

_ABOUT = ("language", "split")  # of a measured set, in words
_COUNTS = ("n", "rows")
_HEADLINES = ("f1_micro", "f1_product_brand")
"""F1 values that are of a whole set; ``f1_<label>`` of one label stands in JSON only."""
_MOST_LIMITS = 12
_LONGEST = 300  # characters of one limit


@dataclass(frozen=True)
class ModelCard:
    """A model's card as far as it could be read."""

    title: str
    """Name and version, as score rows carry them."""
    metrics: tuple[dict[str, Any], ...]
    """set, language, split, metric, value, n, low, high, precision; what the card does not say is None."""
    sets: tuple[dict[str, Any], ...]
    """Training sets: name, licence, origin, rows."""
    limits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "model": self.title,
            "metrics": list(self.metrics),
            "training_sets": list(self.sets),
            "limits": list(self.limits),
        }


def find_cards(workspace: Workspace, titles: Sequence[str]) -> dict[str, ModelCard]:
    """The cards of the models with these names and versions, as far as their folders are still there.

    Looked for in ``model_folders``.
    """
    found: dict[str, ModelCard] = {}
    for folder in model_folders(workspace):
        if not all((folder / name).is_file() for name in MODEL_FILES):
            continue
        try:
            spec = load_spec(folder)
        except ModelError:
            continue  # scoring says what is wrong with it
        if spec.title in titles and spec.title not in found:
            found[spec.title] = card_from_spec(spec)
    return found


def model_folders(workspace: Workspace) -> Iterator[Path]:
    """Where the workspace's models may stand: the folders it names, its exported checkpoints, ``engines/``."""
    chosen = [workspace.models.sentiment, workspace.models.topics, workspace.models.entities]
    for choice in chosen:
        if choice.path is not None:
            yield (workspace.root / Path(choice.path).expanduser()).resolve()
        elif choice.bundled is not None:
            yield settings().home / "engines" / choice.bundled
    yield from sorted((workspace.root / "models").glob("*/"))
    yield from sorted((settings().home / "engines").glob("*/"))


def card_from_spec(spec: ModelSpec) -> ModelCard:
    """The parts of ``spec.card`` that a report shows."""
    training = spec.card.get("training")
    sets = training.get("sets") if isinstance(training, Mapping) else None
    return ModelCard(
        title=spec.title,
        metrics=tuple(_metrics("", spec.card.get("metrics"), {})),
        sets=tuple(_sets(sets)),
        limits=tuple(_texts(spec.card.get("limits")))[:_MOST_LIMITS],
    )


def _metrics(name: str, found: Any, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Both ``accuracy = 0.94`` with ``n`` beside it and ``accuracy = {value = 0.94, n = 3000}``, at any depth."""
    if not isinstance(found, Mapping):
        return
    about = {**about, **{key: found[key] for key in (*_ABOUT, "precision") if isinstance(found.get(key), str)}}
    for key, value in found.items():
        if _is_number(value) and key not in _COUNTS:
            yield _metric(name, key, {**found, "value": value}, about)
        elif isinstance(value, Mapping) and _is_number(value.get("value")):
            yield _metric(name, key, value, about)
        elif isinstance(value, Mapping):
            yield from _metrics(f"{name} {key}".strip(), value, about)


def _metric(name: str, key: str, found: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    value = float(found["value"])
    counts = [found[count] for count in _COUNTS if _is_number(found.get(count))]
    n = int(counts[0]) if counts and counts[0] > 0 else None
    interval = found.get("interval")
    low = high = None
    if isinstance(interval, Sequence) and len(interval) == 2 and all(_is_number(end) for end in interval):
        low, high = (float(end) for end in interval)
    elif key.startswith("accuracy") and n and 0 <= value <= 1:
        low, high = share_interval(round(value * n), n)
    return {
        "set": name or None,
        **{field: about.get(field) for field in (*_ABOUT, "precision")},
        "metric": key,
        "value": value,
        "n": n,
        "low": low,
        "high": high,
    }


def _sets(found: Any) -> Iterator[dict[str, Any]]:
    for item in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            texts = {key: item[key] if isinstance(item.get(key), str) else None for key in ("licence", "origin")}
            yield {"name": item["name"], **texts, "rows": int(item["rows"]) if _is_number(item.get("rows")) else None}


def _texts(found: Any) -> Iterator[str]:
    if isinstance(found, str) and found.strip():
        yield " ".join(found.split())
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _texts(value)
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for value in found:
            yield from _texts(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def card_notes(used: Sequence[Mapping[str, Any]], cards: Mapping[str, ModelCard]) -> list[str]:
    """What a reader must know before the values of ``cards``; ``used`` has model and precision for each task."""
    precisions: dict[str, set[str]] = {}
    for row in used:
        precisions.setdefault(row["model"] or "A model without a name", set()).add(row["precision"] or "not said")
    notes = []
    for title, here in precisions.items():
        card = cards.get(title)
        if card is None:
            notes.append(
                f"How good {title} is cannot be shown: its folder is not there any more, or holds another version."
            )
        elif not card.metrics:
            notes.append(f"The card of {title} says nothing of how good it is. Check answers first.")
        elif other := sorted({row["precision"] for row in card.metrics if row["precision"]} - here):
            notes.append(
                f"The values of {title} were measured in {words(other)}; here it computed in {words(sorted(here))}."
            )
    return notes


def cards_table(cards: Sequence[ModelCard]) -> Markup:
    """What was measured on whole sets, one row a value; empty when no card says anything."""
    rows = [(card, row) for card in cards for row in card.metrics if _is_headline(row["metric"])]
    if not rows:
        return Markup("")
    columns = [
        Column("set", "Set"),
        Column("language", "Language"),
        Column("metric", "Measure"),
        Column("value", "Value", "right"),
        Column("interval", "95 % interval", "right"),
        Column("n", "n", "right"),
    ]
    made = [
        {
            "model": card.title,
            "set": " ".join(filter(None, (_words(row["set"]) if row["set"] else None, row["split"]))),
            "language": language_word(row["language"]) if row["language"] else None,
            "metric": _words(row["metric"])[:1].upper() + _words(row["metric"])[1:],
            "value": _number(row["value"]),
            "interval": None if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}",
            "n": None if row["n"] is None else f"{row['n']:,}",
        }
        for card, row in rows
    ]
    return table("t-cards", "How good the models are, as their cards say.", columns, made, group="model")


def training_lines(card: ModelCard) -> list[str]:
    """One line a training set: name, rows, licence, origin."""
    lines = []
    for item in card.sets:
        rows = f", {plural(item['rows'], 'text')}" if item["rows"] is not None else ""
        licence = f"licence: {item['licence'] or 'not said'}"
        origin = f"; from {item['origin']}" if item["origin"] else ""
        lines.append(clip(clean(f"{_words(item['name'])}{rows}; {licence}{origin}"), _LONGEST))
    return lines


def limit_lines(card: ModelCard) -> list[str]:
    """The card's limits, clipped."""
    return [clip(clean(text), _LONGEST) for text in card.limits]


def _is_headline(metric: str) -> bool:
    return not metric.startswith("f1_") or metric in _HEADLINES


def _words(name: str) -> str:
    return name.replace("_", " ").replace("f1 product brand", "F1 on product and brand").replace("f1", "F1")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:,.1f}"
