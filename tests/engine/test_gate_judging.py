"""From answers to a verdict: metrics by hand, slices, flips, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.gate import GateResult, judge, read_validation
from workbench.errors import ParameterError
from workbench.tasks.labels import SENTIMENTS, TASKS, TOPICS


def test_accuracy_flips_and_slices_by_hand():
    gold = ["positive", "positive", "negative", "neutral", "negative", "negative"]
    reference = ["positive", "negative", "negative", "neutral", "positive", "negative"]
    candidate = ["positive", "positive", "negative", "negative", "neutral", None]
    result = judge(
        "sentiment",
        gold,
        reference,
        candidate,
        budget=1.0,
        slices={"language": ["en", "en", "en", "zh", "zh", "zh"]},
        data_sha256="abc",
    )
    assert result.metric == "accuracy"
    assert (result.reference, result.candidate) == pytest.approx((400 / 6, 300 / 6), abs=1e-5)
    assert result.delta == pytest.approx(-100 / 6, abs=1e-5)
    assert (result.lost, result.gained) == (2, 1)
    assert result.flips.n == 4  # one of them from wrong to wrong
    assert result.mcnemar_p == 1.0
    english, chinese = result.slices["language=en"], result.slices["language=zh"]
    assert (english.n, round(english.reference, 3), english.candidate) == (3, 66.667, 100.0)
    assert (chinese.n, chinese.delta) == (3, pytest.approx(-66.666667, abs=1e-5))
    assert result.slices["label=negative"].n == 3
    assert result.slices["label=negative"].candidate == pytest.approx(100 / 3, abs=1e-5)
    assert result.verdict == "inconclusive"
    assert result.data_sha256 == "abc"


def test_macro_f1_of_topics_by_hand():
    gold = [["price"], ["price", "bug"], ["bug"], ["other"]]
    reference = [["price"], ["price"], ["bug"], ["other"]]
    candidate = [["price"], ["price", "bug"], ["price"], []]
    result = judge("topics", gold, reference, candidate, budget=1.0)
    # Reference: price 1, bug 2/3, other 1. Candidate: price 4/5, bug 2/3, other 0. Topics nobody has do not count.
    assert result.reference == pytest.approx(100 * (1 + 2 / 3 + 1) / 3, abs=1e-5)
    assert result.candidate == pytest.approx(100 * (4 / 5 + 2 / 3 + 0) / 3, abs=1e-5)
    assert result.slices["label=price"].candidate == pytest.approx(80, abs=1e-5)
    assert (result.lost, result.gained, result.flips.n) == (2, 1, 3)
    exact = judge("topics", gold, reference, candidate, budget=1.0, metric="accuracy")
    assert (exact.reference, exact.candidate) == (75, 50)


def test_entity_f1_counts_whole_spans_of_annotated_types():
    gold = [[(0, 4, "brand"), (5, 9, "model")], [], [(2, 6, "brand")]]
    reference = [[(0, 4, "brand"), (5, 9, "model")], [(0, 3, "company")], [(2, 6, "brand")]]
    candidate = [[(0, 4, "brand"), (5, 8, "model")], [(0, 3, "brand")], None]
    result = judge("entities", gold, reference, candidate, budget=1.0)
    assert result.reference == 100  # nobody annotated companies here: finding one is no mistake
    assert result.candidate == pytest.approx(100 * 2 / (2 + 2 + 2), abs=1e-5)
    assert result.slices["label=brand"].n == 2
    assert result.flips.n == 3
    assert result.lost == 3


def test_an_answer_of_none_is_wrong_but_no_crash():
    result = judge("entities", [[(0, 1, "brand")]] * 3, [[(0, 1, "brand")]] * 3, [None] * 3, budget=1.0)
    assert result.candidate == 0
    assert result.delta == -100
    assert result.verdict == "fail"


@given(
    st.lists(st.tuples(*[st.sampled_from(SENTIMENTS)] * 3), min_size=1, max_size=60),
    st.sampled_from(["accuracy", "macro_f1"]),
)
def test_the_same_answers_never_differ_and_exchange_turns_the_sign(rows, metric):
    gold, first, second = (list(column) for column in zip(*rows, strict=True))
    same = judge("sentiment", gold, first, first, budget=1.0, metric=metric)
    assert (same.delta, same.flips.n, same.mcnemar_p) == (0, 0, 1)
    assert same.interval[0] < 0 < same.interval[1]
    one = judge("sentiment", gold, first, second, budget=1.0, metric=metric)
    other = judge("sentiment", gold, second, first, budget=1.0, metric=metric)
    assert one.delta == pytest.approx(-other.delta, abs=1e-5)
    assert one.flips == other.flips
    assert (one.lost, one.gained) == (other.gained, other.lost)
    assert one.interval[0] - 1e-5 <= one.delta <= one.interval[1] + 1e-5


def test_verdicts_need_enough_texts():
    """The same share of flips, more texts: inconclusive, then pass; a real loss: fail."""

    def verdict(times, lost, gained, budget=1.0):
        gold = ["positive"] * 1000 * times
        reference = ["positive"] * (1000 - gained) * times + ["negative"] * gained * times
        candidate = ["negative"] * lost * times + ["positive"] * (1000 - lost) * times
        return judge("sentiment", gold, reference, candidate, budget=budget)

    assert verdict(1, 20, 20).verdict == "inconclusive"
    assert verdict(5, 20, 20).verdict == "pass"
    assert verdict(5, 20, 20, budget=0.3).verdict == "inconclusive"
    assert verdict(2, 60, 20).verdict == "fail"
    few = verdict(1, 20, 20)
    # (1.96 + 0.84)² · 0.04 / 0.01², and a little more, for the interval rests on the restricted estimate.
    assert few.needed == pytest.approx(3140, rel=0.07)
    assert verdict(5, 20, 20).needed is None


def test_the_verdict_at_another_budget_needs_no_texts():
    gold = ["positive"] * 5000
    result = judge("sentiment", gold, gold, ["negative"] * 20 + gold[20:], budget=1.0)
    assert result.verdict == "pass"
    assert result.verdict_at(0.3) == "fail"
    assert result.verdict_at(0.5) == "inconclusive"
    assert GateResult.unmeasured("topics", "macro_f1", budget=1, reason="no GPU").verdict_at(100) == "unmeasured"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "ocr"}, "No task is named 'ocr'"),
        ({"metric": "entity_f1"}, "cannot be judged by entity_f1"),
        ({"candidate": ["positive"]}, "do not belong together"),
        ({"gold": [], "reference": [], "candidate": []}, "do not belong together"),
        ({"slices": {"language": ["en"]}}, "slice language has 1 values for 2 texts"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    usual = {"task": "sentiment", **{key: ["positive", "negative"] for key in ("gold", "reference", "candidate")}}
    with pytest.raises(ParameterError, match=message):
        judge(**{**usual, "budget": 1.0, **values})


def test_a_result_survives_json_and_a_damaged_one_is_told():
    gold = ["positive", "negative"] * 30
    result = judge(
        "sentiment", gold, gold, ["neutral", *gold[1:]], budget=0.3, slices={"language": ["en", "zh"] * 30}
    )
    result = result.with_speed(120.5, 60.25, measured_on="here")
    assert result.speed_ratio == 2
    data = json.loads(json.dumps(result.to_dict()))
    assert GateResult.from_dict(data) == result
    assert "60 answers differ" in result.summary()
    for damage in ({"verdict": "good"}, {"metric": "entity_f1"}, {"interval": 3}, {"flips": None}, {"extra": 1}):
        with pytest.raises(ParameterError, match="workbench engines compare"):
            GateResult.from_dict({**data, **damage})


@pytest.mark.parametrize("task", TASKS)
def test_the_projects_validation_sets_are_read(task):
    texts = read_validation(task)
    assert len(texts) == len(texts.gold) > 400
    assert set(texts.slices) == {"language", "stratum"}
    assert set(texts.slices["language"]) == {"en", "zh"}
    assert len(texts.labels) == {"sentiment": 3, "topics": len(TOPICS), "entities": 4}[task]
    assert len(texts.sha256) == 64
    perfect = judge(task, texts.gold, texts.gold, texts.gold, budget=1.0, slices=texts.slices)
    assert (perfect.reference, perfect.candidate) == (100, 100)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', "line 2: 'label' is missing"),
        ('{"text": "", "label": "positive"}', "line 2: text is '', not a text"),
        ('{"text": "a", "label": "good"}', "line 2: 'good' is none of negative"),
        ("{", "line 2: "),
        ("[1]", "line 2: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "set.jsonl"
    path.write_text('{"text": "a", "label": "positive"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ParameterError, match=message):
        read_validation("sentiment", path)


def test_other_files_may_leave_slices_out(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"text": "a", "label": "positive"}\n\n{"text": "b", "label": "negative"}\n', encoding="utf-8")
    texts = read_validation("sentiment", path)
    assert (len(texts), texts.slices, texts.labels) == (2, {}, ("negative", "positive"))
    path.write_text("\n")
    with pytest.raises(ParameterError, match="holds no text"):
        read_validation("sentiment", path)
    with pytest.raises(ParameterError, match="no validation set"):
        read_validation("topics", tmp_path / "none.jsonl")


def test_halves_of_a_set_are_told_by_the_texts_alone():
    whole = read_validation(
        "sentiment", Path(__file__).resolve().parents[2] / "calibration/sentiment/validation.jsonl"
    )
    one, two = whole.halves()
    assert sorted([*one.texts, *two.texts]) == sorted(whole.texts)
    assert min(len(one), len(two)) > 0.4 * len(whole)
    assert len({one.sha256, two.sha256, whole.sha256}) == 3
    gold = dict(zip(whole.texts, whole.gold, strict=True))
    assert [gold[text] for text in two.texts] == list(two.gold)
    assert {name: len(values) for name, values in one.slices.items()} == dict.fromkeys(whole.slices, len(one))
    fewer = replace(whole, texts=whole.texts[:300], gold=whole.gold[:300], slices={})
    assert fewer.halves() is None  # 150 texts and more are needed in each
    more = replace(whole, texts=whole.texts[50:], gold=whole.gold[50:], slices={})
    assert set(more.halves()[0].texts) < set(one.texts)
    assert replace(whole, gold=("neutral", *["positive"] * (len(whole) - 1))).halves() is None
