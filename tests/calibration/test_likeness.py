"""No near-duplicates, no template families, nothing taken from elsewhere; and each search finds what is planted."""

import os
import random
import re
from pathlib import Path

import pytest
from calibration_sets import LANGUAGES, SETS, names_of, read_rows, read_training
from likeness import (
    find_families,
    find_near_duplicates,
    find_same_openings,
    find_taken,
    fold,
    jaccard,
    shingles,
    skeleton,
)

from workbench.tasks.labels import TASKS


@pytest.fixture(scope="module")
def rows():
    return {row["id"]: row for task in TASKS for kind in SETS for row in read_rows(task, kind)}


@pytest.fixture(scope="module")
def texts(rows):
    return {key: row["text"] for key, row in rows.items()}


@pytest.fixture(scope="module")
def some(texts):
    """Enough texts to hide what is planted among."""
    return dict(list(texts.items())[::8])


@pytest.fixture(scope="module")
def names(rows):
    return {key: names_of(row) for key, row in rows.items()}


@pytest.fixture(scope="module")
def training():
    return {row["id"]: row for language in LANGUAGES for row in read_training(language)}


@pytest.fixture(scope="module")
def training_texts(training):
    return {key: row["text"] for key, row in training.items()}


@pytest.fixture(scope="module")
def training_names(training):
    return {key: names_of(row) for key, row in training.items()}


def _shown(texts, keys):
    return "\n".join(f"{key}: {texts[key][:100]}" for key in keys)


# --- the sets ----------------------------------------------------------------------------------------------------


def test_no_near_duplicates_inside_or_across_the_sets_and_the_training_texts(
    texts, names, training_texts, training_names
):
    # A training text near one that is judged by would flatter the judgement.
    texts = {**texts, **training_texts}
    pairs = find_near_duplicates(texts, names={**names, **training_names})
    assert not pairs, "\n\n".join(f"{pair.likeness:.2f}\n{_shown(texts, (pair.one, pair.other))}" for pair in pairs)


def test_no_training_text_lies_in_a_text_of_the_sets_nor_the_other_way_round(texts, training_texts):
    for some, others in ((training_texts, texts), (texts, training_texts)):
        keys = list(others)
        planted = {f"planted {keys[at]}": others[keys[at]].upper() for at in _draw(6, _long(others), 20)}
        found = {(key, keys[at]) for key, at, _ in find_taken({**some, **planted}, list(others.values()))}
        assert {(key, key.removeprefix("planted ")) for key in planted} <= found
        assert not {pair for pair in found if pair[0] in some}


def _long(texts):
    return [at for at, text in enumerate(texts.values()) if 60 < len(text) < 200]


def test_no_template_families(texts, names, training_texts, training_names):
    for some, labels in ((texts, names), (training_texts, training_names)):
        families = find_families(some, names=labels)
        assert not families, "\n\n".join(_shown(some, keys) for keys in families)


def test_no_more_than_two_texts_begin_alike(texts, training_texts):
    for some in (texts, training_texts):
        groups = find_same_openings(some)
        assert not groups, "\n\n".join(_shown(some, keys) for keys in groups)


@pytest.mark.data
def test_nothing_is_taken_from_the_labelled_data(texts, training_texts):
    folder = os.environ.get("WORKBENCH_DATA")
    if not folder:
        pytest.skip("needs the labelled data: set WORKBENCH_DATA to the folder that has text/")
    from workbench.engine.training.corpus import read_examples, read_unlabelled

    texts = {**texts, **training_texts}
    data = Path(folder)
    corpus = sorted({example.text for example in read_examples(data)} | set(read_unlabelled(data)))
    assert len(corpus) > 100_000
    # A few of its own texts go in as well: a search that finds nothing there has not searched.
    drawn = _draw(5, [text for text in corpus if 60 < len(text) < 200], 20)
    planted = {f"planted {at}": _with_other_digits(text) for at, text in enumerate(drawn)}
    found = find_taken({**texts, **planted}, corpus)
    assert planted.keys() <= {key for key, _, _ in found}
    ours = [(f"{likeness:.2f}", key, texts[key], corpus[at][:150]) for key, at, likeness in found if key in texts]
    assert not ours, "\n".join(map(str, ours))


def _with_other_digits(text):
    return re.sub(r"\d", "7", text).upper()


# --- what is planted is found ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # digits
        (
            "Heated to 200 degrees the tray buckles with a bang.",
            "Heated to 180 degrees the tray buckles with a bang!",
        ),
        # names
        (
            "My Dyson V8 vacuum started pulsing after two years.",
            "My Shark IZ300 vacuum started pulsing after two years.",
        ),
        # a word more, a word less
        (
            "The zip on this rucksack gave out after three weekends in the hills.",
            "The zip on this old rucksack gave out after three weekends in the wet hills.",
        ),
        ("用了不到两个月，键帽上的字母就磨没了。", "用了不到三个月，键帽上的字母全磨没了！"),
        ("我的Garmin手表游泳时不计圈数，来电话就停。", "我的Suunto手表游泳时不计圈数，来电话就停"),
        ("好好好好好好好", "好好好好好好好好好好好好"),
        ("👍👍👍", "👍👍👍"),
        ("Nope.", "nope"),
    ],
)
def test_planted_near_duplicates_are_found(some, one, other):
    pairs = find_near_duplicates({**some, "planted one": one, "planted other": other})
    assert ("planted one", "planted other") in {(pair.one, pair.other) for pair in pairs}


def test_every_text_with_a_changed_number_and_a_changed_word_is_found(rows, texts, names):
    usual = [key for key in _usual(rows, 40) if not key.startswith("e")]  # of a shop's title little is left
    drawn = _draw(3, usual, 300)
    copies = {f"copy of {key}": _disturbed(texts[key]) for key in drawn}
    labels = {**names, **{f"copy of {key}": names[key] for key in drawn}}
    found = {
        frozenset((pair.one, pair.other))
        for pair in find_near_duplicates({key: texts[key] for key in drawn} | copies, names=labels)
    }
    missed = [key for key in drawn if frozenset((key, f"copy of {key}")) not in found]
    assert not missed, _shown(texts, missed)


def _draw(seed, population, count):
    return random.Random(seed).sample(population, count)  # noqa: S311 - a reproducible draw


def _usual(rows, length):
    return [key for key, row in rows.items() if row["stratum"] == "normal" and len(row["text"]) > length]


def _disturbed(text):
    half = len(text) // 2
    return re.sub(r"\d", "3", text[:half]) + "也 really 还" + text[half + 4 :]


def test_a_planted_template_family_is_found(some):
    frame = "I have had this {} for {} weeks now and it is still as {} as it was on the first day."
    words = [
        ("kettle", "six", "shiny"),
        ("umbrella", "eleven", "sturdy"),
        ("notebook", "two", "white"),
        ("sofa", "40", "firm"),
    ]
    planted = {f"planted {at}": frame.format(*word) for at, word in enumerate(words)}
    assert find_families({**some, **planted}) == [tuple(planted)]
    del planted["planted 3"], planted["planted 2"]
    assert not find_families({**some, **planted}), "two are no family yet"


def test_a_planted_template_family_in_chinese_is_found(some):
    frame = "这个{}我已经用了{}，真的是很{}，就是{}有点太{}了。"
    words = [
        ("水壶", "半年", "耐用", "盖子", "紧"), ("耳机", "两个月", "舒服", "线", "短"),
        ("台灯", "三周", "明亮", "开关", "硬"), ("背包", "一学期", "能装", "肩带", "窄"),
    ]  # fmt: skip
    planted = {f"planted {at}": frame.format(*word) for at, word in enumerate(words)}
    assert find_families({**some, **planted}) == [tuple(planted)]


def test_a_family_with_variations_is_found(some):
    planted = {
        "planted 0": "If you are looking for a kettle that is quick and not too loud, this is the one for you.",
        "planted 1": "If you are looking for some earbuds that are light and not too dear, this is the one for you.",
        "planted 2": "If you are looking for a tablet that is thin and not too slow, then this is the one for you!",
    }
    assert find_families({**some, **planted}) == [tuple(planted)]


def test_planted_openings_are_found():
    texts = {
        "a": "I bought two of these for my mother.",
        "b": "I bought two of these. For a trip",
        "c": "I bought, two of these: for Emma, yes",
    }
    assert find_same_openings(texts) == [("a", "b", "c")]
    assert not find_same_openings(dict(list(texts.items())[:2]))


def test_planted_copies_are_found_in_a_corpus(rows, texts):
    corpus = [f"{text} And so it went on for a while, with nothing else to tell." for text in texts.values()]
    drawn = _draw(4, _usual(rows, 40), 100)
    found = find_taken({key: texts[key].upper() for key in drawn}, corpus)
    places = {key: at for at, key in enumerate(texts)}
    assert {key for key, at, _ in found if places[key] == at} == set(drawn)
    whole = find_taken({"short": "Well, yes", "digits": "12"}, ["Nothing.", "well yes!", "77"])
    assert whole == [("short", 1, 1.0)]
    assert not find_taken({"phrase": "Never again"}, ["I will never again go there, whatever they offer me."])


# --- parts -------------------------------------------------------------------------------------------------------


def test_folding():
    assert fold("On 3 May the Larkpaper Slate 10 cost me exactly 499.00!") == "on 0 ○ the ○ ○ 0 cost me exactly 0"
    assert fold("I think that I paid Anna's friend.") == "i think that i paid ○ friend"
    assert fold("我的Slate 10用了3天，真好！！") == "我的○0用了0天真好"
    assert fold("Canon > Nikon") == "canon ○"
    assert fold("soooooo gooood") == "so god"
    assert fold("墨舒很好", names=["墨舒"]) == "○很好"
    assert fold("🙃🙃") == "🙃🙃"


def test_shingles():
    assert shingles("abcdefg") == {"abcde", "bcdef", "cdefg"}
    assert shingles("很好用的笔") == {"很好用", "好用的", "用的笔"}
    assert shingles("ok") == {"ok"}
    assert jaccard(frozenset("ab"), frozenset("bc")) == pytest.approx(1 / 3)


def test_skeletons():
    assert skeleton("The battery of the Slate is not good.") == ("the", "_", "of", "the", "_", "is", "not", "_")
    assert skeleton("这支笔不是很好用") == ("这", "_", "不", "是", "很", "_")
