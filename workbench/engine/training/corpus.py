"""Labelled and unlabelled texts from the data folder, in one form.

Every set keeps its own labels; this module says how each maps to the workbench's. A label that a set does not
annotate is unknown, not negative: sentiment is None, a topic is ``UNKNOWN``, and an entity type outside
``Example.entity_types`` may hide in any unmarked character.

Test parts and the sets kept for evaluation (zh_takeaway, en_sentences) are read for evaluation only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TOPICS

__all__ = [
    "NEGATIVE",
    "NEUTRAL",
    "POSITIVE",
    "UNKNOWN",
    "Example",
    "Span",
    "read_examples",
    "read_own",
    "read_unlabelled",
    "read_written",
]

UNKNOWN = -1
"""A topic a set says nothing about."""

NEGATIVE, NEUTRAL, POSITIVE = range(3)


@dataclass(frozen=True)
class Span:
    """An entity: code-point offsets, ``end`` exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Example:
    """One text with what is known about it.

    ``sentiment``: index into SENTIMENTS, or None. ``two_class``: the set knows no neutral. ``topics``: 0, 1 or
    UNKNOWN for each of TOPICS, or None. ``app_class``: for app reviews, the index into TOPICS of its single class.
    ``entity_types``: the types the set annotates; empty means no entity labels at all. ``shares``: fixed
    probabilities of SENTIMENTS in place of a label. ``group``: texts of one group stay in one fold.
    """

    text: str
    source: str
    split: str
    sentiment: int | None = None
    two_class: bool = False
    topics: tuple[int, ...] | None = None
    app_class: int | None = None
    entities: tuple[Span, ...] = ()
    entity_types: tuple[str, ...] = ()
    shares: tuple[float, float, float] | None = None
    group: str = ""


def read_examples(data: Path) -> Iterator[Example]:
    """All labelled texts under ``data``/text, every split. Raises FileNotFoundError when a set is missing."""
    folder = data / "text"
    for reader in (
        _shopping, _amazon, _clothing, _takeaway, _sentences, _restaurants, _mams, _app_reviews,
        _tagged_english, _spans_chinese,
    ):  # fmt: skip
        yield from reader(folder)


def read_own(calibration: Path) -> Iterator[Example]:
    """The project's own texts: calibration sets to train on, validation sets (split "test") to judge by."""
    for task, kind in ((t, k) for t in ("sentiment", "topics", "entities") for k in ("calibration", "validation")):
        split = "train" if kind == "calibration" else "test"
        for path in sorted((calibration / task).glob(f"{kind}*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                source = f"own_{task}_{row['language']}"
                if task == "sentiment":
                    yield Example(row["text"], source, split, sentiment=SENTIMENTS.index(row["label"]))
                elif task == "topics":
                    named = tuple(int(topic in row["labels"]) for topic in TOPICS)
                    yield Example(row["text"], source, split, topics=named)
                else:
                    spans = tuple(Span(e["start"], e["end"], e["label"]) for e in row["entities"])
                    yield Example(row["text"], source, split, entities=spans, entity_types=ENTITY_TYPES)


def read_written(calibration: Path) -> Iterator[Example]:
    """The texts written for training, ``calibration``/training: each has a sentiment, topics and entities."""
    for path in sorted((calibration / "training").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Example(
                row["text"],
                f"written_{row['language']}",
                "train",
                sentiment=SENTIMENTS.index(row["sentiment"]),
                topics=tuple(int(topic in row["topics"]) for topic in TOPICS),
                entities=tuple(Span(e["start"], e["end"], e["label"]) for e in row["entities"]),
                entity_types=ENTITY_TYPES,
            )


def read_unlabelled(data: Path) -> Iterator[str]:
    """Texts without labels, for pre-training."""
    yield from map(_clean, pl.read_parquet(data / "text" / "unlabelled_zh_products.parquet")["sentence"])
    opinions = pl.read_parquet(data / "text" / "topics_feature_opinions.parquet")
    yield from map(
        _clean, opinions.group_by("app", "review", maintain_order=True).agg(pl.col("text").str.join(" "))["text"]
    )


def _clean(text: str) -> str:
    return text.replace("\ufeff", "").strip()


def _topics(known: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(known.get(topic, UNKNOWN) for topic in TOPICS)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    yield from pl.read_parquet(path).iter_rows(named=True)


# --- sentiment ---------------------------------------------------------------------------------------------------

# The Chinese sets have no topic labels. Words that can hardly mean anything else serve as weak ones: a hit is a
# positive label for its topic; no hit leaves the topic unknown, except where none of any topic's words occurs in a
# long text.
_WEAK = {
    "price": r"价格|价钱|便宜|太贵|很贵|贵了|性价比|划算|降价|优惠|打折|涨价|差价|保价|实惠|多少钱|不值这|物美价廉",
    "quality": r"质量|做工|材质|正品|假货|掉色|起球|褪色|面料|口感|味道|不新鲜|新鲜|坏的|烂的|烂了|画质|音质|品质|"
    r"异味|味儿|效果",
    "delivery": r"物流|快递|发货|送货|到货|配送|送餐|送达|包装|运输|收到货|签收|京东快递|顺丰|骑手|外卖小哥",
    "service": r"客服|售后|服务态度|服务员|卖家态度|退货|退款|换货|态度|店家|前台|投诉|保修|发票",
    "usability": r"操作|好用|不好用|易用|方便|使用感|上手|安装|说明书|界面|手感|舒适|难用|简单",
    "bug": r"死机|蓝屏|闪退|卡顿|黑屏|重启|系统崩溃|崩溃|连不上|失灵|没反应|不能用|用不了|故障|自动关机",
    "feature request": r"希望(能|可以|增加|加|以后|下次|有)|建议(增加|加|改进|能|可以|出)|要是能|如果能(再|有|加|增)|"
    r"期待(增加|加入|更新)",
}  # fmt: skip
_WEAK_PATTERNS = {topic: re.compile(pattern) for topic, pattern in _WEAK.items()}


def weak_topics(text: str) -> tuple[int, ...] | None:
    """Topics by unmistakable words (Chinese). None where nothing can be said."""
    hits = {topic: 1 for topic, pattern in _WEAK_PATTERNS.items() if pattern.search(text)}
    if not hits:
        return None
    # A word list finds what is there; what it does not find in a short text is probably not there either.
    if len(text) <= 60:
        return _topics({**dict.fromkeys(TOPICS, 0), **hits})
    return _topics({"other": 0, **hits})


def _shopping(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "sentiment_zh_shopping.parquet"):
        text = _clean(row["text"])
        yield Example(
            text,
            "zh_shopping",
            row["split"],
            sentiment=POSITIVE if row["label"] else NEGATIVE,
            two_class=True,
            topics=weak_topics(text),
        )


def _amazon(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "sentiment_en_amazon.parquet"):
        label = POSITIVE if row["label"] else NEGATIVE
        yield Example(_clean(row["text"]), "en_amazon", row["split"], sentiment=label, two_class=True)


def _clothing(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "sentiment_en_clothing.parquet"):
        text = _clean(f"{row['title'] or ''}. {row['text']}" if row["title"] else row["text"])
        yield Example(text, "en_clothing", row["split"], sentiment=row["label"])


def _takeaway(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "sentiment_zh_takeaway.parquet"):
        label = POSITIVE if row["label"] else NEGATIVE
        yield Example(_clean(row["text"]), "zh_takeaway", "test", sentiment=label, two_class=True)


def _sentences(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "sentiment_en_sentences.parquet"):
        label = POSITIVE if row["label"] else NEGATIVE
        yield Example(_clean(row["text"]), "en_sentences", "test", sentiment=label, two_class=True)


# --- topics ------------------------------------------------------------------------------------------------------

_RESTAURANT_TOPICS = {
    "price": ("price_level", "price_cost_effective", "price_discount"),
    "quality": ("dish_taste", "dish_look", "dish_portion"),
    "service": ("service_waiters_attitude", "service_wait_time", "service_serving_speed"),
}
_NOT_MENTIONED = -2


def _restaurants(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "aspects_zh_restaurants.parquet"):
        known = {
            topic: int(any(row["aspects"][aspect] != _NOT_MENTIONED for aspect in aspects))
            for topic, aspects in _RESTAURANT_TOPICS.items()
        }
        stars = float(row["star"])
        sentiment = NEGATIVE if stars <= 2 else POSITIVE if stars >= 4 else NEUTRAL
        yield Example(
            _clean(row["text"]),
            "zh_restaurants",
            row["split"],
            sentiment=sentiment,
            topics=_topics({"other": 0, **known}),
        )


_MAMS_TOPICS = {"food": "quality", "menu": "quality", "service": "service", "staff": "service", "price": "price"}


def _mams(folder: Path) -> Iterator[Example]:
    for name, split in (("train", "train"), ("val", "dev"), ("test", "test")):
        for row in _rows(folder / f"aspects_en_mams_{name}.parquet"):
            found = {_MAMS_TOPICS[a["category"]] for a in row["aspects"] if a["category"] in _MAMS_TOPICS}
            known = {topic: int(topic in found) for topic in ("price", "quality", "service")}
            # Delivery, bugs and feature requests do not occur in restaurants' reviews.
            known |= {"delivery": 0, "bug": 0, "feature request": 0, "other": int(not found)}
            polarities = {a["polarity"] for a in row["aspects"]} - {"neutral"}
            # A sentence with one polarity has it; a mixed one is left out of sentiment, for its weighing is unknown.
            sentiment = {
                frozenset({"positive"}): POSITIVE,
                frozenset({"negative"}): NEGATIVE,
                frozenset(): NEUTRAL,
            }.get(frozenset(polarities))
            yield Example(_clean(row["text"]), "en_mams", split, sentiment=sentiment, topics=_topics(known))


APP_CLASSES = {
    "bug report": "bug",
    "feature request": "feature request",
    "user experience": "usability",
    "rating": "other",
}
"""The four classes of the app reviews as topics. "rating" is praise or blame without a reason: our ``other``."""


def _app_reviews(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "topics_app_reviews.parquet"):
        topic = APP_CLASSES[row["label"]]
        label = TOPICS.index(topic)
        yield Example(
            _clean(row["text"]), "app_reviews", row["split"], app_class=label, group=f"app_reviews {row['group']}"
        )


# --- entities ----------------------------------------------------------------------------------------------------


def _tagged_english(folder: Path) -> Iterator[Example]:
    wnut = {"corporation": "company", "product": "product"}
    twitter = {"ORG": "company"}
    for name, file, split, labels, types in (
        ("en_wnut17", "entities_en_wnut17_train", "train", wnut, ("product", "company")),
        ("en_wnut17", "entities_en_wnut17_dev", "test", wnut, ("product", "company")),
        ("en_broad_twitter", "entities_en_broad_twitter", None, twitter, ("company",)),
        ("en_wikigold", "entities_en_wikigold", "train", twitter, ("company",)),
    ):
        for row in _rows(folder / f"{file}.parquet"):
            text, spans = _join(row["tokens"], row["tags"], labels)
            # Sections h and f are the set's usual dev and test parts.
            part = split or {"h": "dev", "f": "test"}.get(row["section"], "train")
            yield Example(text, name, part, entities=spans, entity_types=types)


def _join(tokens: Sequence[str], tags: Sequence[str], labels: Mapping[str, str]) -> tuple[str, tuple[Span, ...]]:
    """Tokens with BIO or IO tags as one text with spans."""
    text, spans = "", []
    open_label, start, end = None, 0, 0
    for token, tag in zip(tokens, tags, strict=True):
        if text:
            text += " "
        begin = len(text)
        text += token
        label = labels.get(tag[2:]) if tag != "O" else None
        if open_label is not None and (label != open_label or tag.startswith("B-")):
            spans.append(Span(start, end, open_label))
            open_label = None
        if label is not None and open_label is None:
            open_label, start = label, begin
        end = len(text)
    if open_label is not None:
        spans.append(Span(start, end, open_label))
    return text, tuple(spans)


def _spans_chinese(folder: Path) -> Iterator[Example]:
    shop = {"product": "product", "brand": "brand", "model": "model"}
    for name, file, split, labels, types in (
        ("zh_ecommerce", "entities_zh_ecommerce_train", "train", shop, ("product", "brand", "model")),
        ("zh_ecommerce", "entities_zh_ecommerce_dev", "test", shop, ("product", "brand", "model")),
        ("zh_hphc", "entities_zh_ecommerce_hphc_train", "train", shop, ("product", "brand")),
        ("zh_hphc", "entities_zh_ecommerce_hphc_dev", "test", shop, ("product", "brand")),
        ("zh_cluener", "entities_zh_cluener_train", "train", {"company": "company"}, ("company",)),
    ):
        for row in _rows(folder / f"{file}.parquet"):
            spans = tuple(
                Span(e["start"], e["end"], labels[e["label"]]) for e in row["entities"] if e["label"] in labels
            )
            # Nested and overlapping spans cannot be written as BIO; the longer one is kept.
            yield Example(row["text"], name, split, entities=_flat(spans), entity_types=types)


def _flat(spans: Sequence[Span]) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda s: s.start))
