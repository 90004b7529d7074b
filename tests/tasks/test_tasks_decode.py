import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tests.runtime.tiny_model import ENTITY_LABELS, TOPIC_LABELS
from workbench.tasks.decode import (
    choose_all_topics,
    choose_topics,
    find_all_entities,
    find_entities,
    label_probabilities,
    pool_classes,
    pool_labels,
    sentiment_probabilities,
    topic_names,
    topic_probabilities,
)
from workbench.tasks.language import LANGUAGES
from workbench.tasks.spec import OutputSpec
from workbench.tasks.words import word_starts

TAGS = OutputSpec("entities", "tags", tuple(ENTITY_LABELS))
TOPICS = OutputSpec("topics", "labels", tuple(TOPIC_LABELS), thresholds=(0.5,) * 8)


def tag_logits(*names):
    logits = np.zeros((len(names), len(ENTITY_LABELS)), np.float32)
    for row, name in enumerate(names):
        logits[row, ENTITY_LABELS.index(name)] = 9
    return logits


def spans(text, pieces, tags, spec=TAGS):
    """Entities of ``text`` where ``pieces`` are its tokens, found one after the other."""
    offsets, at = [], 0
    for piece in pieces:
        start = text.index(piece, at)
        at = start + len(piece)
        offsets.append((start, at))
    found = find_entities(text, tag_logits(*tags), spec, offsets=np.array(offsets, np.int32).reshape(-1, 2))
    assert all(text[entity.start : entity.end] == entity.text for entity in found)
    return [(entity.label, entity.text) for entity in found]


def test_begin_and_inside_are_one_entity():
    pieces = ["The", "Larkpaper", "Slate", "10", "by", "Larkpaper"]
    tags = ["O", "B-product", "I-product", "I-product", "O", "B-company"]
    text = "The Larkpaper Slate 10 by Larkpaper"
    assert spans(text, pieces, tags) == [("product", "Larkpaper Slate 10"), ("company", "Larkpaper")]


def test_inside_without_begin_begins():
    assert spans("my Slate 10", ["my", "Slate", "10"], ["O", "I-product", "I-product"]) == [("product", "Slate 10")]


STRICT = replace(TAGS, strict=True)


def test_a_strict_output_has_no_entity_without_a_begin():
    assert spans("the Slate 10", ["the", "Slate", "10"], ["O", "I-product", "I-product"], STRICT) == [
        ("product", "Slate 10")
    ]
    # Nothing but I is likely: the likeliest way with a begin takes both words, though their B is unlikely.
    logits = tag_logits("O", "I-brand", "O")
    logits[1, TAGS.labels.index("O")] = logits[1].max() - 0.1
    text, offsets = "by Ondine now", np.array([[0, 2], [3, 9], [10, 13]], np.int32)
    assert find_entities(text, logits, STRICT, offsets=offsets) == []
    assert [e.text for e in find_entities(text, logits, TAGS, offsets=offsets)] == ["Ondine"]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_the_strict_reading_is_the_likeliest_that_begins_with_b(seed, count):
    logits = np.random.default_rng(seed).normal(0, 2, (count, len(TAGS.labels))).astype(np.float32)
    text = " ".join("abc"[:count])
    offsets = np.array([[2 * i, 2 * i + 1] for i in range(count)], np.int32)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = TAGS.labels

    def follows(before, tag):
        return not names[tag].startswith("I-") or names[before][2:] == names[tag][2:] != ""

    paths = (
        path
        for path in itertools.product(range(len(names)), repeat=count)
        if all(follows(*pair) for pair in itertools.pairwise((names.index("O"), *path)))
    )
    best = max(paths, key=lambda path: np.log([shares[at, tag] for at, tag in enumerate(path)]).sum())
    found = [(entity.start, entity.label) for entity in find_entities(text, logits, STRICT, offsets=offsets)]
    lenient = [(entity.start, entity.label) for entity in find_entities(text, logits, TAGS, offsets=offsets)]
    wanted = [(2 * at, names[tag][2:]) for at, tag in enumerate(best) if names[tag].startswith("B-")]
    # Where the lenient reading breaks no rule, it stands: it asks for the type first, and then where it begins.
    assert found in (wanted, lenient)
    if found != wanted:
        assert all(
            shares[at // 2, names.index(f"B-{kind}")] > shares[at // 2, names.index(f"I-{kind}")]
            for at, kind in found
        )


def test_a_second_begin_is_a_second_entity():
    assert spans("索尼佳能", list("索尼佳能"), ["B-brand", "I-brand"] * 2) == [("brand", "索尼"), ("brand", "佳能")]


def test_another_type_is_another_entity():
    assert spans("索尼A7", ["索", "尼", "A7"], ["B-brand", "I-brand", "I-model"]) == [
        ("brand", "索尼"),
        ("model", "A7"),
    ]


def test_pieces_of_a_word_are_one_word():
    pieces, text = ["Lark", "pap", "er", "is"], "Larkpaper is"
    assert spans(text, pieces, ["B-brand", "I-brand", "O", "O"]) == [("brand", "Larkpaper")]
    assert spans(text, pieces, ["O", "O", "B-brand", "O"]) == []
    assert spans("Ｓｌａｔｅ", ["Ｓｌ", "ａｔｅ"], ["B-brand", "B-model"])[0][1] == "Ｓｌａｔｅ"
    assert spans("DHP486", ["DHP", "486"], ["B-model", "B-brand"])[0][1] == "DHP486"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(Slate)", "Slate"),
        (" Slate 10 ,", "Slate 10"),
        ("Slate (2026)", "Slate (2026)"),
        ("《墨舒》", "墨舒"),
        ("《墨舒", "墨舒"),
        ("Wave+", "Wave+"),
        ("C#.", "C#"),
        ("墨舒。", "墨舒"),
    ],
)
def test_what_is_around_a_name_is_not_part_of_it(text, found):
    assert spans(text, [text], ["B-product"]) == [("product", found)]


def test_punctuation_alone_is_no_entity():
    assert spans("--- !", ["---", "!"], ["B-product", "B-brand"]) == []
    assert find_entities("", np.zeros((0, 9), np.float32), TAGS, offsets=np.zeros((0, 2), np.int32)) == []


def test_marks_belong_to_their_letter():
    text = "Cafe\u0301 good"
    found = find_entities(text, tag_logits("B-brand"), TAGS, offsets=np.array([[0, 4]], np.int32))
    assert [entity.text for entity in found] == ["Cafe\u0301"]


def test_the_score_is_the_probability_of_the_type():
    logits = np.zeros((1, 9), np.float32)
    logits[0, ENTITY_LABELS.index("B-brand")] = 2
    (entity,) = find_entities("Moshu", logits, TAGS, offsets=np.array([[0, 5]], np.int32))
    assert entity.score == pytest.approx((np.e**2 + 1) / (np.e**2 + 8), abs=1e-6)


@st.composite
def texts_with_tokens(draw):
    text = draw(st.text(st.characters(), min_size=1, max_size=40))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), min_size=2, max_size=12)) | {0})
    offsets = np.array(list(itertools.pairwise(cuts)), np.int32).reshape(-1, 2)
    logits = draw(st_numpy.arrays(np.float32, (len(offsets), 9), elements=st.floats(-8, 8, width=32)))
    return text, offsets, logits


@given(texts_with_tokens())
@settings(max_examples=200, deadline=None)
def test_spans_are_in_order_and_say_what_the_text_says(case):
    text, offsets, logits = case
    end = 0
    for entity in find_entities(text, logits, TAGS, offsets=offsets):
        assert end <= entity.start < entity.end <= len(text)
        assert text[entity.start : entity.end] == entity.text
        assert not entity.text[0].isspace()
        assert not entity.text[-1].isspace()
        assert 0 <= entity.score <= 1.0001
        end = entity.end


def test_sentiment_is_calibrated_by_language():
    spec = OutputSpec("sentiment", "classes", ("negative", "neutral", "positive"), 1.0, {"zh": 4.0})
    logits = np.array([[4, 0, 0], [4, 0, 0]], np.float32)
    english, chinese = sentiment_probabilities(logits, spec, ["en", "zh"])
    assert english[0] == pytest.approx(np.e**4 / (np.e**4 + 2), abs=1e-5)
    assert chinese[0] == pytest.approx(np.e / (np.e + 2), abs=1e-5)


def test_sentiment_of_stars_and_of_two_classes():
    stars = OutputSpec("sentiment", "classes", ("negative", "negative", "neutral", "positive", "positive"))
    shares = sentiment_probabilities(np.zeros((1, 5), np.float32), stars, [None])
    assert shares[0] == pytest.approx([0.4, 0.2, 0.4], abs=1e-6)
    two = OutputSpec("sentiment", "classes", ("positive", "negative"))
    assert sentiment_probabilities(np.array([[2, 0]], np.float32), two, ["en"])[0].tolist()[1] == 0


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, -1e4, 0, 0, 0, 0, 0, 0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = label_probabilities(logits, TOPICS, ["en"])
    assert found[0, :3].tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("over", "chosen"),
    [
        ({"price": 0.9, "bug": 0.6}, ("price", "bug")),
        ({"price": 0.6, "bug": 0.9, "service": 0.7}, ("bug", "service", "price")),
        ({"bug": 0.7, "price": 0.7}, ("price", "bug")),  # of equals, the first label
        ({"price": 0.9, "other": 0.95}, ("price",)),
        ({"other": 0.95}, ("other",)),
        ({"quality": 0.4, "bug": 0.3}, ("quality",)),
    ],
)
def test_topics(over, chosen):
    probabilities = np.array([over.get(label, 0.01) for label in TOPIC_LABELS], np.float32)
    assert choose_topics(probabilities, TOPICS) == chosen


def test_thresholds_decide_which_topics_and_probabilities_their_order():
    spec = OutputSpec("topics", "labels", ("price", "bug", "bug"), thresholds=(0.2, 0.8, 0.6))
    assert choose_topics(np.array([0.3, 0.7, 0.65], np.float32), spec) == ("bug", "price")
    assert choose_topics(np.array([0.1, 0.3, 0.2], np.float32), spec) == ("bug",)
    assert choose_topics(np.array([0.2, 0, 0], np.float32), spec) == ("price",)  # the threshold itself is over


def test_one_window_says_it_all():
    shares = np.array([[0.3, 0.7, 0.123456]], np.float32)
    assert pool_labels(shares, [17]).tolist() == shares[0].tolist()
    assert pool_classes(shares, [17]).tolist() == shares[0].tolist()


def test_a_topic_is_what_a_third_of_a_text_is_about():
    sizes = [100] * 6
    shares = np.full((6, 3), 0.1, np.float32)
    shares[:2, 0] = 0.9  # a third of the text
    shares[4, 1] = 0.9  # one window of six
    assert pool_labels(shares, sizes) == pytest.approx([0.9, 0.5, 0.1])
    # A part of a window counts for as much: 100 tokens of 900, of the 300 that count.
    assert pool_labels(np.array([[0.9], [0.1]], np.float32), [100, 800]) == pytest.approx([(0.9 + 2 * 0.1) / 3])
    assert pool_classes(np.array([[0.9], [0.3]], np.float32), [100, 200]) == pytest.approx([0.5])


@given(
    st_numpy.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(8)), elements=st.floats(0, 1, width=32)),
    st.integers(1, 12),
)
def test_a_text_said_again_and_again_keeps_its_topics(shares, times):
    sizes = list(range(50, 50 + len(shares)))
    once, often = pool_labels(shares, sizes), pool_labels(np.tile(shares, (times, 1)), sizes * times)
    assert often == pytest.approx(once, abs=1e-6)
    assert (once <= shares.max(0) + 1e-6).all()
    assert (once >= pool_classes(shares, sizes) - 1e-6).all()


def test_topics_of_a_classifier_with_several_names_for_one():
    spec = OutputSpec("topics", "classes", ("price", "delivery", "delivery"))
    shares = label_probabilities(np.log(np.array([[0.4, 0.3, 0.3]], np.float32)), spec, [None])
    assert choose_topics(shares[0], spec) == ("delivery",)
    assert topic_names(spec) == ("price", "delivery")
    assert topic_probabilities(shares, spec)[0] == pytest.approx([0.4, 0.6], abs=1e-6)


@given(st.lists(texts_with_tokens(), max_size=6), st.booleans())
@settings(max_examples=120, deadline=None)
def test_entities_of_many_texts_are_those_of_each(cases, strict):
    spec = replace(TAGS, strict=strict)
    cases = [(text, offsets, logits) for text, offsets, logits in cases if len(offsets)]
    each = [find_entities(text, logits, spec, offsets=offsets) for text, offsets, logits in cases]
    if not cases:
        return
    texts, offsets, logits = zip(*cases, strict=True)
    starts = np.cumsum([0, *map(len, offsets)], dtype=np.int32)
    together = np.concatenate(offsets)
    words = word_starts(texts, together, starts)
    found = find_all_entities(texts, np.concatenate(logits), spec, offsets=together, starts=starts, words=words)
    assert found == each  # scores to the last bit


def test_texts_that_plainly_name_nothing_are_passed_over():
    texts = ["good", "by Moshu", "bad one"]
    offsets = np.array([[0, 4], [0, 2], [3, 8], [0, 3], [4, 7]], np.int32)
    logits = tag_logits("O", "O", "B-brand", "O", "O")
    found = find_all_entities(
        texts, logits, STRICT, offsets=offsets, starts=np.array([0, 1, 3, 5], np.int32), words=np.ones(5, bool)
    )
    assert [[(entity.label, entity.text) for entity in own] for own in found] == [[], [("brand", "Moshu")], []]


@pytest.mark.parametrize("strict", [False, True])
def test_the_probability_decides_where_many_types_share_it(strict):
    # Outside is likelier than any single tag, but less likely than the two tags of one type.
    logits = np.log(np.array([[0.4, 0, 0, 0.35, 0.25, 0, 0, 0, 0]], np.float32) + 1e-9).astype(np.float32)
    (entity,) = find_entities("Moshu", logits, replace(TAGS, strict=strict), offsets=np.array([[0, 5]], np.int32))
    assert (entity.label, round(entity.score, 3)) == ("brand", 0.6)


SHARES = st_numpy.arrays(
    np.float32,
    st.tuples(st.integers(0, 12), st.just(8)),
    elements=st.sampled_from([0.0, 0.125, 0.5, 0.625, 0.875, 1.0]),
)


@given(SHARES, st.sampled_from([TOPICS, replace(TOPICS, labels=("a", "b", "a", "other", "c", "d", "b", "e"))]))
@settings(max_examples=150, deadline=None)
def test_topics_of_many_texts_are_those_of_each(shares, spec):
    names, by_name = topic_names(spec), topic_probabilities(shares, spec)
    places, counts = choose_all_topics(shares, by_name, spec)
    chosen = [names[place] for place in places]
    for row, count in enumerate(counts):
        own, chosen = tuple(chosen[:count]), chosen[count:]
        assert own == choose_topics(shares[row], spec)
        over = {label for label, share in zip(spec.labels, shares[row], strict=True) if share >= 0.5}
        wanted = sorted(over, key=lambda name: (-by_name[row][names.index(name)], names.index(name)))
        wanted = [name for name in wanted if name != "other"] or wanted
        assert own == (tuple(wanted) or (names[by_name[row].argmax()],))
    assert not chosen


def test_languages_may_be_given_as_codes():
    spec = OutputSpec("sentiment", "classes", ("negative", "neutral", "positive"), 2.0, {"zh": 4.0, "en": 0.5})
    logits = np.array([[4, 0, 0], [4, 0, 0], [4, 1, 0]], np.float32)
    codes = np.array([LANGUAGES.index("zh"), LANGUAGES.index("en"), -1], np.int8)
    by_code = sentiment_probabilities(logits, spec, codes)
    assert by_code.tobytes() == sentiment_probabilities(logits, spec, ["zh", "en", None]).tobytes()
