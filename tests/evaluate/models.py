"""A model folder on labelled texts, read the way users read: ``workbench.runtime``, onnxruntime, calibrated.

    python -m tests.evaluate models --data ../shared/data

``measure`` returns

    model     name, version, engine_id, backend, precision
    sample    texts a set at most, or None for all
    texts, seconds, texts_per_s
    metrics   metrics.<set>.<name>: flat, numbers, texts and truth values only, fit for a model card
    tables    tables.<set>.<name>: counts by row label, then by column label

Names in ``metrics.<set>``; shares are from 0 to 1, rounded to four digits:

    always      task, part, n (texts), unread (texts the model could not read; they count as wrong), sha256 (of the
                data, first 12 digits), headline (the name of the figure that counts); bar and met where there is one
    sentiment   accuracy, accuracy_low, accuracy_high (Wilson, 95 %), ece (15 bins), classes (2 or 3);
    topics      one topic a text (app reviews): accuracy, accuracy_low, accuracy_high, and <topic>_f1;
                several: micro_f1 with _low and _high, macro_f1, exact, <topic>_precision, _recall, _f1, _n;
    entities    f1 with f1_low and f1_high (bootstrap over texts), precision, recall: micro over the headline types,
                which stand in types; <type>_precision, _recall, _f1, _n

Where texts have a language and a stratum, the same figures also for each slice, with the slice's name at the end:
n_en, accuracy_en, accuracy_en_boundary; micro_f1_zh, macro_f1_zh; f1_zh, product_f1_zh.

On two-class sets the larger of p_negative and p_positive is the answer, and their shares of both are the
probabilities. Of topics the set does not have, none can be the answer. An entity is right when start, end and type
are; types that a set does not annotate do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tests.evaluate import model_scores as scores
from tests.evaluate.floors import Floor
from tests.evaluate.model_scores import Counts
from tests.evaluate.model_sets import PUBLIC, LabelledSet, own_sets, public_sets, take
from workbench.runtime import Session, open_session
from workbench.runtime.read import Reading, read_texts
from workbench.tasks.labels import SENTIMENTS

__all__ = ["BUNDLED", "FLOOR_SAMPLE", "columns_of", "floors_of", "measure", "measure_sets", "report"]

FLOOR_SAMPLE = 250
"""The gate in the tests takes so many texts a set."""

BUNDLED = Path(__file__).resolve().parents[2] / "engines" / "reviews"

_PART = 512
"""Texts read at once; the bar moves after each."""

Metrics = dict[str, Any]
Tables = dict[str, dict[str, dict[str, int]]]


def measure(
    folder: Path | str, data: Path | str, sample: int | None = None, *, progress: bool = True
) -> dict[str, Any]:
    """Measure the model in ``folder`` on the test parts under ``data`` and the project's validation sets.

    ``sample``: at most so many texts a set, always the same ones. Sets of tasks that the model does not have are left
    out. Raises FileNotFoundError when a set is missing, ModelError when the model cannot be loaded.
    """
    return measure_sets(folder, [*public_sets(Path(data)), *own_sets()], sample, progress=progress)


def measure_sets(
    folder: Path | str, sets: Sequence[LabelledSet], sample: int | None = None, *, progress: bool = True
) -> dict[str, Any]:
    """The same on any sets; see this module's docstring for what is returned."""
    metrics: dict[str, Metrics] = {}
    tables: dict[str, Tables] = {}
    with open_session(folder, backend="onnxruntime") as session:
        own = [take(each, sample) for each in sets if each.task in session.spec.outputs]
        read, start = 0, time.perf_counter()
        with tqdm(total=sum(len(each.texts) for each in own), unit="text", disable=not progress) as bar:
            for each in own:
                bar.set_description(each.name)
                reading = _read(session, each, bar.update)
                metrics[each.name], tables[each.name] = _SCORERS[each.task](each, reading)
                read += len(each.texts)
        seconds = time.perf_counter() - start
        return {
            "model": {
                "name": session.spec.name,
                "version": session.spec.version,
                "engine_id": session.engine_id,
                "backend": session.backend,
                "precision": session.precision,
            },
            "sample": sample,
            "texts": read,
            "seconds": round(seconds, 1),
            "texts_per_s": round(read / seconds, 1) if seconds else 0.0,
            "metrics": metrics,
            "tables": {name: table for name, table in tables.items() if table},
        }


def floors_of(measured: Mapping[str, Any], data: Path) -> dict[str, Floor]:
    """The headline figures as floors for the gate, one a public set; see tests.evaluate.floors."""
    kind = "models" if measured["sample"] is None else "models-sample"
    files = {each.name: data / "text" / f"{each.file}.parquet" for each in PUBLIC}
    return {
        f"{kind}/{name}": Floor(files[name], {metrics["headline"]: metrics[metrics["headline"]]})
        for name, metrics in measured["metrics"].items()
        if name in files
    }


def _read(session: Session, labelled: LabelledSet, done: Callable[[int], Any]) -> list[Reading]:
    """Readings of a set's texts, in parts, so that the bar moves."""
    texts = [each.text for each in labelled.texts]
    parts = []
    for start in range(0, len(texts), _PART):
        part = texts[start : start + _PART]
        parts.append(read_texts(session, part, (labelled.task,)))
        done(len(part))
    return parts


def _common(labelled: LabelledSet, parts: Sequence[Reading], headline: str) -> Metrics:
    column = {"sentiment": "sentiment", "topics": "topics", "entities": "entities"}[labelled.task]
    return {
        "task": labelled.task,
        "part": labelled.about,
        "n": len(labelled.texts),
        "unread": sum(answer is None for part in parts for answer in getattr(part, column)),
        "sha256": labelled.sha256[:12],
        "headline": headline,
    }


def _verdict(metrics: Metrics, bar: float | None) -> Metrics:
    if bar is not None:
        metrics |= {"bar": bar, "met": bool(metrics[metrics["headline"]] >= bar)}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in metrics.items()}


def _sentiment(labelled: LabelledSet, parts: Sequence[Reading]) -> tuple[Metrics, Tables]:
    columns = [SENTIMENTS.index(label) for label in labelled.labels]
    own = np.concatenate([part.p_sentiment for part in parts])[:, columns].astype(np.float64)
    gold = [text.label for text in labelled.texts]
    answers = _answers(own, labelled.labels)
    found = scores.accuracy(gold, answers)
    readable = ~np.isnan(own).any(1)
    total = own[readable].sum(1)
    confidence = np.divide(own[readable].max(1), total, out=np.zeros(len(total)), where=total > 0)
    right = np.array([a == b for a, b in zip(gold, answers, strict=True)])[readable]
    metrics = _common(labelled, parts, "accuracy") | {
        "accuracy": found.share,
        "accuracy_low": found.interval[0],
        "accuracy_high": found.interval[1],
        "ece": scores.calibration_error(confidence, right),
        "classes": len(labelled.labels),
    }
    tables = {"confusion": scores.confusion(gold, answers, labelled.labels)}
    for name, places in _slices(labelled).items():
        some = [gold[at] for at in places], [answers[at] for at in places]
        metrics |= {f"n_{name}": len(places), f"accuracy_{name}": scores.accuracy(*some).share}
        tables[f"confusion_{name}"] = scores.confusion(*some, labelled.labels)
    return _verdict(metrics, labelled.bar), tables


def _answers(probabilities: NDArray[np.float64], labels: Sequence[str]) -> list[str | None]:
    """The likeliest label of each row [N, K]; None where the model could not say."""
    return [None if np.isnan(row).any() else labels[int(row.argmax())] for row in probabilities]


def _slices(labelled: LabelledSet) -> dict[str, list[int]]:
    """Places of the texts of each language, of each stratum, and of both together."""
    found: dict[str, list[int]] = {}
    for at, text in enumerate(labelled.texts):
        for name in dict.fromkeys((text.language, text.stratum, f"{text.language}_{text.stratum}")):
            if name.strip("_") == name and name:
                found.setdefault(name, []).append(at)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("_"), item[0])))


def _topics(labelled: LabelledSet, parts: Sequence[Reading]) -> tuple[Metrics, Tables]:
    return _single_topic(labelled, parts) if labelled.single else _many_topics(labelled, parts)


def _single_topic(labelled: LabelledSet, parts: Sequence[Reading]) -> tuple[Metrics, Tables]:
    own = np.concatenate([columns_of(part, labelled.labels) for part in parts])
    gold = [text.label[0] for text in labelled.texts]
    answers = _answers(own, labelled.labels)
    found = scores.accuracy(gold, answers)
    metrics = _common(labelled, parts, "accuracy") | {
        "accuracy": found.share,
        "accuracy_low": found.interval[0],
        "accuracy_high": found.interval[1],
    }
    by_topic = _summed(
        [
            scores.count_labels((a,), () if b is None else (b,), labelled.labels)
            for a, b in zip(gold, answers, strict=True)
        ],
        labelled.labels,
    )
    metrics |= {f"{_key(topic)}_f1": counts.f1 for topic, counts in by_topic.items()}
    return _verdict(metrics, labelled.bar), {"confusion": scores.confusion(gold, answers, labelled.labels)}


def columns_of(part: Reading, topics: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities [N, K] of ``topics``; a topic that the model does not have has probability 0."""
    result = np.zeros((len(part.p_topics), len(topics)))
    for at, topic in enumerate(topics):
        if topic in part.topic_names:
            result[:, at] = part.p_topics[:, part.topic_names.index(topic)]
    result[np.isnan(part.p_topics).any(1)] = np.nan
    return result


def _many_topics(labelled: LabelledSet, parts: Sequence[Reading]) -> tuple[Metrics, Tables]:
    gold = [text.label for text in labelled.texts]
    answers = [answer or () for part in parts for answer in part.topics]
    by_text = [scores.count_labels(a, b, labelled.labels) for a, b in zip(gold, answers, strict=True)]
    metrics = _common(labelled, parts, "micro_f1") | _micro("micro_f1", by_text, labelled.labels)
    by_topic = _summed(by_text, labelled.labels)
    metrics["macro_f1"] = scores.macro_f1(by_topic)
    metrics["exact"] = scores.accuracy(
        ["+".join(sorted(a)) for a in gold], ["+".join(sorted(b)) for b in answers]
    ).share
    metrics |= _by_label(by_topic)
    for name, places in _slices(labelled).items():
        if "_" not in name:
            some = _summed([by_text[at] for at in places], labelled.labels)
            metrics |= {f"n_{name}": len(places), f"micro_f1_{name}": sum(some.values(), Counts()).f1}
            metrics |= {f"macro_f1_{name}": scores.macro_f1(some)}
    return _verdict(metrics, labelled.bar), {"pairs": scores.pairs_of_labels(gold, answers, labelled.labels)}


def _entities(labelled: LabelledSet, parts: Sequence[Reading]) -> tuple[Metrics, Tables]:
    gold = [text.label for text in labelled.texts]
    answers = [
        [(each.start, each.end, each.label) for each in found or ()] for part in parts for found in part.entities
    ]
    by_text = [scores.count_spans(a, b, labelled.labels) for a, b in zip(gold, answers, strict=True)]
    by_type = _summed(by_text, labelled.labels)
    together = sum((by_type[label] for label in labelled.headline), Counts())
    metrics = _common(labelled, parts, "f1") | _micro("f1", by_text, labelled.headline)
    metrics |= {"precision": together.precision, "recall": together.recall, "types": "+".join(labelled.headline)}
    metrics |= _by_label(by_type)
    for name, places in _slices(labelled).items():
        if "_" not in name:
            some = _summed([by_text[at] for at in places], labelled.labels)
            metrics |= {f"n_{name}": len(places), f"f1_{name}": sum(some.values(), Counts()).f1}
            metrics |= {f"{_key(label)}_f1_{name}": counts.f1 for label, counts in some.items()}
    return _verdict(metrics, labelled.bar), {}


def _micro(name: str, by_text: Sequence[Mapping[str, Counts]], labels: Sequence[str]) -> Metrics:
    """Micro F1 over ``labels`` with its interval."""
    each = [sum((counts[label] for label in labels), Counts()) for counts in by_text]
    low, high = scores.f1_interval(each)
    return {name: sum(each, Counts()).f1, f"{name}_low": low, f"{name}_high": high}


def _summed(by_text: Sequence[Mapping[str, Counts]], labels: Sequence[str]) -> dict[str, Counts]:
    return {label: sum((counts[label] for counts in by_text), Counts()) for label in labels}


def _by_label(counts: Mapping[str, Counts]) -> Metrics:
    found: Metrics = {}
    for label, each in counts.items():
        found |= {f"{_key(label)}_precision": each.precision, f"{_key(label)}_recall": each.recall}
        found |= {f"{_key(label)}_f1": each.f1, f"{_key(label)}_n": each.there}
    return found


def _key(label: str) -> str:
    return label.replace(" ", "_")


_SCORERS: Mapping[str, Callable[[LabelledSet, Sequence[Reading]], tuple[Metrics, Tables]]] = {
    "sentiment": _sentiment,
    "topics": _topics,
    "entities": _entities,
}


# --- Markdown ----------------------------------------------------------------------------------------------------


def report(measured: Mapping[str, Any]) -> str:
    """What was measured, as Markdown."""
    model = measured["model"]
    part = "" if measured["sample"] is None else f", at most {measured['sample']} texts a set"
    lines = [
        f"Model {model['name']} {model['version']}, engine {model['engine_id']} ({model['backend']}, "
        f"{model['precision']}); {measured['texts']} texts in {measured['seconds']:.0f} s "
        f"({measured['texts_per_s']:.0f} a second){part}.",
        "",
        *_headlines(measured["metrics"]),
    ]
    for name, metrics in measured["metrics"].items():
        tables = measured["tables"].get(name, {})
        if metrics["task"] == "sentiment" and metrics["classes"] == 3:
            lines += ["", f"### {name}", "", *_counts("gold \\ answer", tables["confusion"])]
            if len(tables) > 1:
                lines += ["", *_slice_rows(metrics, tables)]
        elif metrics["task"] == "topics":
            lines += ["", f"### {name}", ""]
            if "pairs" in tables:
                lines += [*_by_label_rows(metrics), "", *_counts("texts: gold \\ found", tables["pairs"])]
            else:
                lines += _counts("gold \\ answer", tables["confusion"])
        elif metrics["task"] == "entities":
            lines += ["", f"### {name}", "", *_by_label_rows(metrics)]
    return "\n".join(lines)


def _headlines(metrics: Mapping[str, Metrics]) -> list[str]:
    lines = [
        "| set | part | n | figure | value | 95 % interval | ECE | bar | data SHA-256 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, each in metrics.items():
        headline = each["headline"]
        figure = f"F1 of {each['types'].replace('+', ', ')}" if headline == "f1" else headline.replace("_", " ")
        bar = f"{each['bar']:.2f} {'met' if each['met'] else '**not met**'}" if "bar" in each else "–"
        lines.append(
            f"| {name} | {each['part']} | {each['n']:,} | {figure} | {each[headline]:.3f} "
            f"| {each[f'{headline}_low']:.3f} to {each[f'{headline}_high']:.3f} "
            f"| {format(each['ece'], '.3f') if 'ece' in each else '–'} | {bar} | {each['sha256']} |"
        )
    unread = {name: each["unread"] for name, each in metrics.items() if each["unread"]}
    if unread:
        said = ", ".join(f"{name} {count}" for name, count in unread.items())
        lines += ["", f"Texts without a readable word, counted as wrong or as without answer: {said}."]
    return lines


def _by_label_rows(metrics: Metrics) -> list[str]:
    labels = [key.removesuffix("_n") for key in metrics if key.endswith("_n")]
    ends = "precision", "recall", "f1"
    languages = [
        language for language in ("en", "zh") if any(f"{label}_f1_{language}" in metrics for label in labels)
    ]
    rows = [
        f"| label | in the gold | {' | '.join([*ends, *(f'f1, {language}' for language in languages)])} |",
        "|---" * (5 + len(languages)) + "|",
    ]
    for label in labels:
        values = [metrics[f"{label}_{end}"] for end in ends]
        values += [metrics[f"{label}_f1_{language}"] for language in languages]
        shown = " | ".join(f"{value:.3f}" for value in values)
        rows.append(f"| {label.replace('_', ' ')} | {metrics[f'{label}_n']} | {shown} |")
    if "macro_f1" in metrics:
        rows += ["", f"Macro F1 {metrics['macro_f1']:.3f}, all topics of a text right {metrics['exact']:.3f}."]
    of = {key: metrics[key] for key in metrics if key.startswith(("micro_f1_", "f1_"))}
    slices = [f"{key.split('f1_')[-1]} {value:.3f}" for key, value in of.items() if not key.endswith(("low", "high"))]
    if slices:
        rows += ["", f"Micro F1: {', '.join(slices)}."]
    return rows


def _slice_rows(metrics: Metrics, tables: Tables) -> list[str]:
    """One row for each slice: accuracy and what became of each gold class."""
    classes = list(tables["confusion"])
    among = " / ".join(classes)
    rows = [
        f"| slice | n | accuracy | {' | '.join(f'{label}: {among}' for label in classes)} |",
        "|---" * (3 + len(classes)) + "|",
    ]
    for table, counts in tables.items():
        name = table.removeprefix("confusion_")
        if name != table:
            cells = " | ".join(" / ".join(str(counts[gold][label]) for label in classes) for gold in classes)
            shown = name.replace("_", ", ")
            rows.append(f"| {shown} | {metrics[f'n_{name}']} | {metrics[f'accuracy_{name}']:.3f} | {cells} |")
    return rows


def _counts(corner: str, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = list(next(iter(counts.values())))
    return [
        f"| {corner} | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {row} | {' | '.join(str(cells[column]) for column in columns)} |" for row, cells in counts.items()),
    ]
