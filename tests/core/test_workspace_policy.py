"""[policy.<task>] in workspace.toml."""

import pytest
from test_workspace import GOOD, write

from workbench.errors import WorkspaceError
from workbench.workspace import Policies, load_workspace


def test_without_a_policy_the_gate_decides(tmp_path):
    policy = load_workspace(write(tmp_path, GOOD)).policy
    assert policy == Policies()
    assert [policy.sentiment.allows(name) for name in ("fp32", "fp16", "int8", "mixed")] == [True] * 4
    assert [policy.entities.allows(name) for name in ("fp32", "fp16", "int8", "mixed")] == [True] * 4
    assert policy.topics.budget is None
    assert not policy.topics.allow_inconclusive


def test_a_policy_is_read(tmp_path):
    text = GOOD + (
        '[policy.entities]\nprecisions = ["fp32", "mixed"]\nbudget = 1.5\nallow_inconclusive = true\n'
        '[policy.topics]\nmetric = "accuracy"\n'
    )
    policy = load_workspace(write(tmp_path, text)).policy
    assert policy.entities.budget == 1.5
    assert policy.entities.allow_inconclusive
    assert [policy.entities.allows(name) for name in ("fp32", "fp16", "int8", "mixed")] == [True, False, False, True]
    assert policy.topics.metric == "accuracy"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('[policy.sentiment]\nprecisions = ["int4"]', "'int4' is not allowed; use 'fp32', 'fp16', 'int8' or 'mixed'"),
        ("[policy.sentiment]\nbudget = 0", "line 19, policy.sentiment.budget: input should be greater than 0"),
        ('[policy.entities]\nmetric = "accuracy"', "line 19, policy.entities.metric: 'accuracy' is not allowed"),
        (
            "[policy.entities]\nbudgets = 1",
            "unknown key; allowed here: precisions, budget, metric, allow_inconclusive",
        ),
        ("[policy.ocr]\nbudget = 1", "unknown key; allowed here: sentiment, topics, entities"),
    ],
)
def test_a_wrong_policy_is_told_with_its_line(tmp_path, lines, problem):
    with pytest.raises(WorkspaceError) as caught:
        load_workspace(write(tmp_path, GOOD + lines + "\n"))
    assert problem in "\n".join(caught.value.problems)
