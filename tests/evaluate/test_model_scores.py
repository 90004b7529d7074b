"""Scores against examples worked by hand."""

import math

import numpy as np
import pytest

from tests.evaluate import model_scores as scores
from tests.evaluate.model_scores import Counts


def test_accuracy_with_its_wilson_interval():
    found = scores.accuracy(["a", "a", "b", "b"] * 5, ["a", "b", "b", None] * 5)
    assert (found.right, found.n, found.share) == (10, 20, 0.5)
    # Wilson: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964, p = 0.5, n = 20
    assert found.interval == pytest.approx((0.2993, 0.7007), abs=5e-5)
    with pytest.raises(ValueError, match="no texts"):
        scores.accuracy([], [])


def test_calibration_error_by_hand():
    # Two texts at 0.9 of which one is right: |0.5 - 0.9|; two at 0.6, both right: |1 - 0.6|. Each half of the texts.
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([True, False, True, True])
    assert scores.calibration_error(confidence, right) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    # In one bin they cancel out: mean confidence 0.75, share right 0.75.
    assert scores.calibration_error(confidence, right, bins=1) == pytest.approx(0.0)


def test_calibration_error_at_the_ends():
    assert scores.calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
    assert scores.calibration_error(np.array([1.0, 0.0]), np.array([False, False])) == pytest.approx(0.5)
    # 1/3 ends bin 5 of 15; as float32 it is a little more than 1/3.
    third = np.array([np.float32(1 / 3), 0.3], np.float32)
    assert scores.calibration_error(third, np.array([True, False])) == pytest.approx((1 - 1 / 3 - 0.3) / 2, abs=1e-6)
    assert math.isnan(scores.calibration_error(np.array([]), np.array([], bool)))


def test_confusion():
    table = scores.confusion(["a", "a", "b", "b"], ["a", "b", "b", None], ["a", "b"])
    assert table == {"a": {"a": 1, "b": 1, "none": 0}, "b": {"a": 0, "b": 1, "none": 1}}
    assert scores.confusion(["a"], ["a"], ["a", "b"]) == {"a": {"a": 1, "b": 0}, "b": {"a": 0, "b": 0}}


def test_counts():
    counts = Counts(hits=3, wrong=1, missed=2)
    assert (counts.precision, counts.recall, counts.there) == (0.75, 0.6, 5)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    assert Counts() == Counts(0, 0, 0)
    assert (Counts().precision, Counts().recall, Counts().f1) == (0, 0, 0)
    assert counts + Counts(1, 1, 1) == Counts(4, 2, 3)


def test_labels_of_a_text():
    counts = scores.count_labels(("price", "bug"), ("price", "service"), ("price", "bug", "service", "other"))
    assert counts == {
        "price": Counts(hits=1),
        "bug": Counts(missed=1),
        "service": Counts(wrong=1),
        "other": Counts(),
    }


def test_pairs_of_labels():
    table = scores.pairs_of_labels([("a", "b"), ("a",)], [("a",), ("b",)], ("a", "b"))
    assert table == {"a": {"a": 1, "b": 1}, "b": {"a": 1, "b": 0}}


def test_a_span_is_right_when_all_of_it_is():
    gold = [(0, 4, "brand"), (5, 9, "product"), (12, 15, "product"), (20, 22, "model")]
    found = [
        (0, 4, "product"),  # wrong type: a miss of one, a false one of the other
        (5, 9, "product"),
        (12, 16, "product"),  # one character too many
        (20, 22, "model"),  # a type that the set does not annotate
        (20, 22, "company"),
    ]
    assert scores.count_spans(gold, found, ("brand", "product")) == {
        "brand": Counts(missed=1),
        "product": Counts(hits=1, wrong=2, missed=1),
    }


def test_the_same_span_found_twice_counts_once():
    assert scores.count_spans([(0, 1, "a")], [(0, 1, "a"), (0, 1, "a")], ("a",)) == {"a": Counts(hits=1)}


def test_macro_f1_is_over_labels_that_are_there():
    by_label = {"a": Counts(1, 0, 0), "b": Counts(0, 0, 1), "never": Counts(0, 3, 0)}
    assert scores.macro_f1(by_label) == 0.5
    assert scores.macro_f1({"never": Counts(0, 1, 0)}) == 0


def test_interval_of_f1():
    # All texts alike: every draw has the same F1.
    assert scores.f1_interval([Counts(1, 1, 0)] * 30) == pytest.approx((2 / 3, 2 / 3))
    # Half of the texts right, half wrong: F1 of a draw is the share of right texts, so the interval is that of a
    # share of 100: 0.5 ± 1.96 · 0.05.
    low, high = scores.f1_interval([Counts(1, 0, 0), Counts(0, 1, 1)] * 50)
    assert low == pytest.approx(0.40, abs=0.02)
    assert high == pytest.approx(0.60, abs=0.02)
    assert scores.f1_interval([Counts()]) == (0, 0)
    few = [Counts(2, 1, 0), Counts(0, 0, 1)] * 20
    assert scores.f1_interval(few) == scores.f1_interval(few)
