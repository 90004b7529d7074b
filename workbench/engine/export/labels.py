"""The labels of a checkpoint read as the workbench's.

The exported graph gives the checkpoint's own logits; model.toml names each by what it means here, and a name may
stand there twice: the runtime adds the probabilities of labels that mean the same.

- sentiment: 1 and 2 stars are negative, 3 are neutral, 4 and 5 positive. Labels without names (LABEL_0 …) are taken
  in order from negative to positive, with a warning. A checkpoint without a neutral label never answers neutral.
- topics: several a text (``problem_type`` multi_label_classification) or one a text.
- entities: BIO, IO, BIOES, BILOU and BMES tags; types that the workbench does not have become O.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workbench.engine.export.toml_text import toml_value
from workbench.errors import ModelError
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TASKS, TOPICS
from workbench.tasks.spec import OutputKind

__all__ = ["LabelPlan", "checkpoint_labels", "plan_labels"]

_LOG = logging.getLogger(__name__)

_SENTIMENT_NAMES: Final = {
    "negative": ("negative", "neg", "very negative", "strongly negative", "extremely negative", "somewhat negative",
                 "负面", "负向", "消极", "差评"),
    "neutral": ("neutral", "neu", "中性", "中立", "中评"),
    "positive": ("positive", "pos", "very positive", "strongly positive", "extremely positive", "somewhat positive",
                 "正面", "正向", "积极", "好评"),
}  # fmt: skip
_TOPIC_NAMES: Final = {
    "price": ("price", "prices", "pricing", "cost", "value for money", "价格"),
    "quality": ("quality", "product quality", "build quality", "质量"),
    "delivery": ("delivery", "shipping", "logistics", "物流", "配送"),
    "service": ("service", "customer service", "support", "customer support", "服务", "客服"),
    "usability": ("usability", "ease of use", "user experience", "ux", "易用性"),
    "feature request": ("feature request", "feature requests", "功能建议"),
    "bug": ("bug", "bugs", "bug report", "bug reports", "故障"),
    "other": ("other", "others", "misc", "miscellaneous", "其他"),
}
_ENTITY_NAMES: Final = {
    "product": ("product", "prod", "hccx", "商品", "产品"),
    "brand": ("brand", "hppx", "品牌"),
    "company": ("company", "org", "organization", "organisation", "corp", "corporation", "公司", "组织", "机构"),
    "model": ("model", "model number", "xh", "型号"),
}
_STARS: Final = re.compile(r"([1-5]) ?(?:stars?|星)|stars? ([1-5])")
_ORDERED: Final = re.compile(r"(?:label )?([0-9])")
_TAG: Final = re.compile(r"([BIESLUM])[-_](.+)")
_BY_STARS: Final = ("negative", "negative", "neutral", "positive", "positive")
_BY_ORDER: Final = {2: ("negative", "positive"), 3: SENTIMENTS, 5: _BY_STARS}


@dataclass(frozen=True)
class LabelPlan:
    """How the logits of a checkpoint are read: ``raw`` are its labels by index, ``labels`` what each means here."""

    task: str
    kind: OutputKind
    raw: tuple[str, ...]
    labels: tuple[str, ...]


def checkpoint_labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Labels by index, from a config.json. Raises ModelError when they are not numbered from 0 without a gap."""
    named = config.get("id2label")
    if not named:
        # The library leaves out names that are its own default.
        return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2)))
    try:
        labels = {int(index): str(label) for index, label in dict(named).items()}
    except (TypeError, ValueError):
        labels = {}
    if sorted(labels) != list(range(len(labels))) or not labels:
        raise ModelError(f"id2label in config.json is not a list of labels from 0 on: {named!r}. Mend it there.")
    return tuple(labels[index] for index in range(len(labels)))


def plan_labels(
    task: str, raw: Sequence[str], *, mapping: Mapping[str, str], problem_type: str | None, toml_line: str
) -> LabelPlan:
    """Read a checkpoint's labels as those of ``task``.

    ``mapping`` is the user's own (raw label, or entity type, to ours) and goes before the well-known names.
    ``toml_line`` names the checkpoint as workspace.toml does, for the message. Raises ModelError when the task is
    unknown, a label cannot be understood or the mapping names labels that do not exist.
    """
    if task not in TASKS:
        raise ModelError(f"There is no task {task!r}. Name one of: {', '.join(TASKS)}.")
    raw = tuple(raw)
    if task == "entities":
        return _plan_entities(raw, mapping, toml_line)
    several = problem_type == "multi_label_classification"
    if problem_type == "regression" or len(raw) < 2:
        raise ModelError(
            f"The checkpoint gives {len(raw)} label(s) and problem_type {problem_type or 'none'}: it measures, it "
            f"does not classify. Name a classifier for {task}."
        )
    ours = SENTIMENTS if task == "sentiment" else TOPICS
    if task == "sentiment" and several:
        raise ModelError(
            f"The checkpoint gives several labels a text ({', '.join(raw)}); sentiment needs exactly one. Name a "
            "checkpoint with one label a text."
        )
    _check_mapping(raw, mapping, ours, task=task)
    known = _read_sentiments(raw, mapping) if task == "sentiment" else _by_names(raw, _TOPIC_NAMES)
    found: dict[str, str | None] = {label: mapping.get(label, known.get(label)) for label in raw}
    labels = tuple(target for label in raw if (target := found[label]) is not None)
    if len(labels) < len(raw) or (task == "sentiment" and not {"negative", "positive"} <= set(labels)):
        raise _not_understood(task, found, ours, toml_line)
    return LabelPlan(task, "labels" if several else "classes", raw, labels)


def _read_sentiments(raw: tuple[str, ...], mapping: Mapping[str, str]) -> dict[str, str]:
    known = _by_names(raw, _SENTIMENT_NAMES)
    plain = {label: _plain(label) for label in raw}
    for label, name in plain.items():
        if match := _STARS.fullmatch(name):
            known[label] = _BY_STARS[int(match[1] or match[2]) - 1]
    ordered = [_ORDERED.fullmatch(name) for name in plain.values()]
    if all(ordered) and not mapping:  # whoever maps one such label says what all mean
        numbers = [int(match[1]) for match in ordered if match]
        lowest = 1 if numbers == [1, 2, 3, 4, 5] else 0
        if len(raw) in _BY_ORDER and numbers == list(range(lowest, lowest + len(raw))):
            known = dict(zip(raw, _BY_ORDER[len(raw)], strict=True))
            _LOG.warning(
                "The checkpoint does not name its labels; %s are read in order, from negative to positive. If that "
                "is wrong, say it in workspace.toml: %s",
                ", ".join(raw),
                _labels_line(known),
            )
    return known


def _plan_entities(raw: tuple[str, ...], mapping: Mapping[str, str], toml_line: str) -> LabelPlan:
    tags = {label: _TAG.fullmatch(label) for label in raw if label.upper() != "O"}
    kinds = {label: match[2] if match else label for label, match in tags.items()}
    types: dict[str, str | None] = dict.fromkeys(kinds.values())
    _check_mapping((*types, *raw), mapping, (*ENTITY_TYPES, "O"), task="entities")
    known = _by_names(tuple(types), _ENTITY_NAMES)
    types = {kind: mapping.get(kind, known.get(kind)) for kind in types}
    targets: list[str] = []
    for label in raw:
        target = mapping[label] if label in mapping else types.get(kinds.get(label, ""))
        match = tags.get(label)
        # S and U are an entity of one token; a label without a prefix says only what it is inside of.
        prefix = "B" if match and match[1] in "BSU" else "I"
        targets.append("O" if target in (None, "O") else f"{prefix}-{target}")
    if "O" not in targets:
        raise ModelError(
            f"The checkpoint gives the tags {', '.join(map(repr, raw))} and none for words that are no entity. Map "
            "one of them to O with labels under [models.entities] in workspace.toml, or name another checkpoint."
        )
    if set(targets) == {"O"}:
        raise _not_understood("entities", types, (*ENTITY_TYPES, "O"), toml_line)
    dropped = [kind for kind, target in types.items() if target is None]
    if dropped:
        _LOG.info("Entity types without a counterpart are read as no entity: %s", ", ".join(dropped))
    return LabelPlan("entities", "tags", raw, tuple(targets))


def _check_mapping(raw: Sequence[str], mapping: Mapping[str, str], allowed: Sequence[str], *, task: str) -> None:
    unknown = [label for label in mapping if label not in raw]
    if unknown:
        raise ModelError(
            f"labels names {', '.join(map(repr, unknown))}, which the checkpoint does not give; it gives "
            f"{', '.join(map(repr, dict.fromkeys(raw)))}. Mend labels under [models.{task}] in workspace.toml."
        )
    wrong = [f"{label!r} = {target!r}" for label, target in mapping.items() if target not in allowed]
    if wrong:
        raise ModelError(
            f"labels has {', '.join(wrong)}; {task} knows {', '.join(repr(label) for label in allowed)}. Mend labels "
            f"under [models.{task}] in workspace.toml."
        )


def _by_names(raw: Sequence[str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    ours = {name: target for target, known in names.items() for name in known}
    return {label: ours[_plain(label)] for label in raw if _plain(label) in ours}


def _plain(label: str) -> str:
    """Case, separators and a remark in brackets do not matter: "Very_Negative (1-2)" is "very negative"."""
    bare = re.sub(r"[(（].*?[)）]", " ", label)
    return " ".join(re.split(r"[\s_-]+", bare.casefold().strip(" _-")))


def _not_understood(task: str, found: Mapping[str, str | None], ours: Sequence[str], toml_line: str) -> ModelError:
    unclear = [label for label, target in found.items() if target is None]
    what = (
        f"{', '.join(map(repr, unclear))} cannot be read as one of {', '.join(ours)}"
        if unclear
        else f"they do not cover what {task} needs"
    )
    leave = " (O is no entity)" if task == "entities" else ""
    return ModelError(
        f"The checkpoint gives the labels {', '.join(map(repr, found))}; {what}. Say what they mean in "
        f"workspace.toml, each ? being one of {', '.join(ours)}{leave}:\n"
        f"[models.{task}]\n{toml_line}\n{_labels_line(found)}"
    )


def _labels_line(found: Mapping[str, str | None]) -> str:
    pairs = (f"{toml_value(label)} = {toml_value(to or '?')}" for label, to in found.items())
    return f"labels = {{ {', '.join(pairs)} }}"
