import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.runtime.batching import PADDING_BIAS, bucket_length, pad_batch, plan_batches

LENGTHS = st.lists(st.integers(1, 512), max_size=80)


@given(LENGTHS, st.integers(1, 4096))
def test_every_text_is_in_one_batch_with_others_of_its_bucket(lengths, budget):
    batches = plan_batches(lengths, max_tokens=512, token_budget=budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        buckets = {bucket_length(lengths[index], 512) for index in batch}
        assert len(buckets) == 1
        assert len(batch) == 1 or len(batch) * buckets.pop() <= budget


@given(LENGTHS, st.integers(512, 4096))
def test_batches_are_few_and_the_longest_come_first(lengths, budget):
    batches = plan_batches(lengths, max_tokens=512, token_budget=budget)
    sizes = [bucket_length(lengths[batch[0]], 512) for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    for size in set(sizes):
        of_size = [len(batch) for batch, at in zip(batches, sizes, strict=True) if at == size]
        assert of_size[:-1] == [budget // size] * (len(of_size) - 1)


@pytest.mark.parametrize(("tokens", "length"), [(1, 4), (4, 4), (5, 8), (500, 500), (509, 510), (510, 510)])
def test_bucket_length(tokens, length):
    assert bucket_length(tokens, 510) == length


def test_padding():
    rows = [np.array([2, 7, 3], np.int32), np.array([2, 3], np.int32)]
    input_ids, bias = pad_batch(rows, 4, pad_id=9)
    assert (input_ids.dtype, bias.dtype) == (np.int32, np.float32)
    assert input_ids.tolist() == [[2, 7, 3, 9], [2, 3, 9, 9]]
    assert bias.shape == (2, 1, 1, 4)
    assert bias[:, 0, 0].tolist() == [[0, 0, 0, PADDING_BIAS], [0, 0, PADDING_BIAS, PADDING_BIAS]]
