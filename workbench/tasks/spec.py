"""What a model folder says about itself: ``model.toml`` beside ``model.onnx`` and ``tokenizer.json``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from workbench.errors import ModelError
from workbench.tasks.labels import SENTIMENTS, TASKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["MODEL_FILES", "ModelSpec", "OutputKind", "OutputSpec", "load_spec"]

MODEL_FILES: Final = ("model.onnx", "tokenizer.json", "model.toml")
"""What a model folder holds."""

OutputKind = Literal["classes", "labels", "tags"]
"""classes: one of them; labels: any of them; tags: one BIO tag for each token."""

# What each task can be read from. A checkpoint that gives one topic a text is as good as one that gives several.
_KINDS: Final[Mapping[str, tuple[OutputKind, ...]]] = {
    "sentiment": ("classes",),
    "topics": ("labels", "classes"),
    "entities": ("tags",),
}


@dataclass(frozen=True)
class OutputSpec:
    """One output of a model.

    ``labels`` stand in the order of the logits. A label may stand there twice (a checkpoint with five stars has two
    that are negative): their probabilities are added. ``temperature`` divides the logits before the softmax;
    ``temperatures`` overrides it by language. ``thresholds`` has one probability for each label, for kind "labels".
    ``strict``, for kind "tags": every entity begins with a B tag (IOB2), so that likelier tags that break this are
    passed over; other tag schemes begin entities with I.
    """

    name: str
    kind: OutputKind
    labels: tuple[str, ...]
    temperature: float = 1.0
    temperatures: Mapping[str, float] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()
    strict: bool = False

    def temperature_of(self, language: str | None) -> float:
        """The temperature for a text in ``language``."""
        return self.temperatures.get(language or "", self.temperature)

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides how logits are read, in plain types; part of the engine id."""
        return {
            "name": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
            "temperature": self.temperature,
            "temperatures": dict(sorted(self.temperatures.items())),
            "thresholds": list(self.thresholds),
            "strict": self.strict,
        }


@dataclass(frozen=True)
class ModelSpec:
    """A model folder's ``model.toml``. ``card`` is the whole file, for showing."""

    name: str
    version: str
    max_tokens: int
    pad_id: int
    outputs: Mapping[str, OutputSpec]
    folder: Path
    card: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def title(self) -> str:
        """Name and version, as score rows carry them."""
        return f"{self.name} {self.version}"

    @property
    def onnx(self) -> Path:
        """The network."""
        return self.folder / "model.onnx"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer, in the form of the tokenizers library."""
        return self.folder / "tokenizer.json"


def load_spec(folder: Path | str) -> ModelSpec:
    """Read and check ``folder``/model.toml.

    Raises ModelError when the folder or one of its three files is missing, or with one line for each key that is
    wrong.
    """
    root = Path(folder)
    missing = [name for name in MODEL_FILES if not (root / name).is_file()]
    if missing:
        what = f"{root} is not a folder" if not root.is_dir() else f"{root} has no {' and no '.join(missing)}"
        raise ModelError(
            f"{what}. A model folder holds {', '.join(MODEL_FILES)}; name another one in workspace.toml, "
            "or get the bundled one back with: git checkout -- engines"
        )
    path = root / "model.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8 and try again.") from None
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{path} is not valid TOML: {error}. Mend that line and try again.") from None
    reader = _Reader(data)
    spec = ModelSpec(
        name=reader.text("name"),
        version=reader.text("version"),
        max_tokens=reader.integer("max_tokens", least=8),
        pad_id=reader.integer("pad_id", least=0),
        outputs=MappingProxyType(reader.outputs()),
        folder=root,
        card=MappingProxyType(data),
    )
    if reader.problems:
        lines = "\n".join(f"  {problem}" for problem in reader.problems)
        raise ModelError(f"{path} is wrong:\n{lines}\nMend it, or export the model again.")
    return spec


class _Reader:
    """Takes values out of the parsed file and notes what is wrong, so that one run shows every problem."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.problems: list[str] = []

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not value.strip():
            self.problems.append(f"{key}: must be a text, got {value!r}")
            return ""
        return value.strip()

    def integer(self, key: str, *, least: int) -> int:
        value = self.data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.problems.append(f"{key}: must be a whole number of at least {least}, got {value!r}")
            return least
        return value

    def outputs(self) -> dict[str, OutputSpec]:
        tables = self.data.get("outputs")
        if not isinstance(tables, dict) or not tables:
            self.problems.append(f"outputs: needs at least one table, [outputs.<task>]; tasks: {', '.join(TASKS)}")
            return {}
        found = {}
        for name, table in tables.items():
            if name not in TASKS:
                self.problems.append(f"outputs.{name}: no such task; tasks: {', '.join(TASKS)}")
            elif not isinstance(table, dict):
                self.problems.append(f"outputs.{name}: must be a table")
            else:
                spec = self._output(name, table)
                if spec is not None:
                    found[name] = spec
        return found

    def _output(self, name: str, table: Mapping[str, Any]) -> OutputSpec | None:
        before = len(self.problems)
        where = f"outputs.{name}"
        unknown = sorted(set(table) - {"kind", "labels", "temperature", "temperatures", "thresholds", "strict"})
        if unknown:
            self.problems.append(f"{where}.{unknown[0]}: unknown key")
        kind, labels = table.get("kind"), table.get("labels")
        if kind not in _KINDS[name]:
            self.problems.append(f"{where}.kind: must be {' or '.join(_KINDS[name])}, got {kind!r}")
        if not _is_list(labels, str) or not labels:
            self.problems.append(f"{where}.labels: must be a list of texts, got {labels!r}")
            return None
        self._check_labels(name, labels)
        temperature = table.get("temperature", 1.0)
        temperatures = table.get("temperatures", {})
        if not isinstance(temperatures, dict):
            self.problems.append(f"{where}.temperatures: must be a table of languages")
            temperatures = {}
        for key, value in [("temperature", temperature), *temperatures.items()]:
            if not _is_number(value) or value <= 0:
                self.problems.append(f"{where}, {key}: a temperature must be a number above 0, got {value!r}")
        thresholds = table.get("thresholds", [0.5] * len(labels) if kind == "labels" else [])
        if not isinstance(thresholds, list) or not all(_is_number(value) and 0 <= value <= 1 for value in thresholds):
            self.problems.append(f"{where}.thresholds: must be a list of numbers from 0 to 1, got {thresholds!r}")
        elif kind == "labels" and len(thresholds) != len(labels):
            self.problems.append(f"{where}.thresholds: {len(thresholds)} thresholds for {len(labels)} labels")
        strict = table.get("strict", False)
        if not isinstance(strict, bool):
            self.problems.append(f"{where}.strict: must be true or false, got {strict!r}")
        elif strict and kind != "tags":
            self.problems.append(f"{where}.strict: is for kind tags")
        elif strict and any(tag[:2] == "I-" and f"B-{tag[2:]}" not in labels for tag in labels):
            self.problems.append(f"{where}.strict: needs a B tag for each I tag in labels")
        if len(self.problems) > before:
            return None
        return OutputSpec(
            name=name,
            kind=cast(OutputKind, kind),
            labels=tuple(labels),
            temperature=float(temperature),
            temperatures=MappingProxyType({key: float(value) for key, value in temperatures.items()}),
            thresholds=tuple(float(value) for value in thresholds),
            strict=strict,
        )

    def _check_labels(self, name: str, labels: Sequence[str]) -> None:
        where = f"outputs.{name}.labels"
        if name == "sentiment":
            wrong = [label for label in labels if label not in SENTIMENTS]
            if wrong:
                self.problems.append(f"{where}: {wrong[0]!r} is none of {', '.join(SENTIMENTS)}; map it with labels")
            elif len(set(labels)) < 2:
                self.problems.append(f"{where}: all are {labels[0]!r}, which tells nothing apart")
        elif name == "entities":
            wrong = [tag for tag in labels if tag != "O" and not (tag[:2] in ("B-", "I-") and tag[2:])]
            if wrong:
                self.problems.append(f"{where}: {wrong[0]!r} is no BIO tag; write O, B-<type> or I-<type>")
            elif "O" not in labels:
                self.problems.append(f"{where}: O, the tag of words outside, is missing")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
