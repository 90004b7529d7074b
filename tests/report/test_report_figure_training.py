"""The figure of the training notebook."""

import pytest
from lxml import html

from workbench.report.figure_training import loss_figure


def described(made):
    tree = html.fromstring(str(made))
    return tree.findtext(".//figcaption"), tree.findtext(".//desc"), [text.text for text in tree.iter("text")]


def test_title_and_description_say_what_the_lines_show():
    tasks = [{"sentiment": 1.0, "app": 1.4}, {"sentiment": 0.5, "app": 1.3}]
    title, description, texts = described(loss_figure([6.9078, 2.3026], tasks, every=(100, 50)))
    assert title.startswith("A hidden word is one of 1,000 before training, of 10 after it;")
    assert "that of sentiment falls by 50%" in title
    assert "masked words: 6.91 at step 0, 2.30 at step 100" in description
    assert "app reviews: 1.40 at step 0, 1.30 at step 50" in description
    assert {"sentiment 0.50", "app reviews 1.30", "2.30", "1. Guessing masked words"} <= set(texts)


def test_a_batch_without_a_tasks_labels_is_passed_over():
    tasks = [{"sentiment": 1.0, "entities": 1.0}, {"sentiment": 0.9, "entities": -0.0}, {"entities": 0.7}]
    _, description, _ = described(loss_figure([5.0, 4.0], tasks))
    assert "entities: 1.00 at step 0, 0.70 at step 2" in description
    assert "sentiment: 1.00 at step 0, 0.90 at step 1" in description


@pytest.mark.parametrize(("masked", "tasks"), [([], []), ([3.0], [{"topics": 0.5}])])
def test_too_few_steps_are_said_so(masked, tasks):
    assert described(loss_figure(masked, tasks))[0] == "Too few steps to see the losses move"


def test_losses_that_rise_are_not_called_a_fall():
    title, *_ = described(loss_figure([2.0, 3.0], [{"topics": 0.5}, {"topics": 0.6}]))
    assert "that of topics does not fall" in title
