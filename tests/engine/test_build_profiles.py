import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.build import make_profiles, model_target, parse_profile, profile_text
from workbench.engine.build.profiles import TOKENS, check_coverage
from workbench.errors import EngineError
from workbench.runtime.batching import bucket_length
from workbench.runtime.manifest import Profile

lengths = st.lists(st.integers(3, 600), max_size=50)


@given(lengths, st.integers(8, 512))
def test_profiles_take_every_text_and_grow(found, max_tokens):
    profiles = make_profiles(found, max_tokens=max_tokens)
    assert 1 <= len(profiles) <= 2
    assert profiles[-1].max[1] == max_tokens
    for length in [*found, 1, max_tokens]:
        assert any(item.fits(1, bucket_length(min(length, max_tokens), max_tokens)) for item in profiles)
    for item in profiles:
        for low, usual, high in zip(item.min, item.opt, item.max, strict=True):
            assert 1 <= low <= usual <= high
        assert item.max[0] == 1 or item.max[0] * item.max[1] <= TOKENS


def test_short_texts_have_a_profile_of_their_own():
    short, long = make_profiles([20] * 95 + [400] * 5, max_tokens=512)
    assert (short.opt[1], short.max) == (20, (256, 32))
    assert (long.opt[1], long.max) == (400, (32, 512))


def test_texts_of_one_length_need_one_profile():
    assert len(make_profiles([500] * 50, max_tokens=512)) == 1
    assert len(make_profiles([20] * 50, max_tokens=512)) == 1
    assert make_profiles([], max_tokens=64) == (Profile((1, 1), (32, 64), (256, 64)),)


def test_the_short_profile_is_for_nine_of_ten():
    short, long = make_profiles([30] * 80 + [90] * 12 + [300] * 8, max_tokens=512)
    assert (short.opt[1], short.max[1]) == (32, 96)
    assert (long.opt[1], long.max[1]) == (300, 512)


@given(
    st.builds(
        lambda a, b: Profile((1, 1), a, (a[0] + b[0], a[1] + b[1])), *[st.tuples(*[st.integers(1, 99)] * 2)] * 2
    )
)
def test_a_profile_comes_back_from_its_text(profile):
    assert parse_profile(profile_text(profile), max_tokens=512) == profile


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no profile"),
        ("1x1", "no profile"),
        ("1x1:8x32:16x64:1x1", "no profile"),
        ("1x1:32x32:16x64", "does not grow"),
        ("0x1:8x32:16x64", "does not grow"),
        ("1x1:8x32:16x1024", "beyond the 512 tokens"),
    ],
)
def test_profiles_that_are_none(text, problem):
    with pytest.raises(EngineError, match=problem):
        parse_profile(text, max_tokens=512)


def profiles_of(text):
    return [parse_profile(each) for each in text.split(",")]


@pytest.mark.parametrize("text", ["1x1:32x64:128x128", "1x1:8x256:32x500", "1x8:8x256:32x512", "2x1:8x256:32x512"])
def test_profiles_without_room_for_every_text_are_refused_with_some_that_have(text):
    with pytest.raises(EngineError, match=r"takes one text of \d+ tokens; the model reads up to 512") as caught:
        check_coverage(profiles_of(text), max_tokens=512)
    check_coverage(profiles_of(str(caught.value).partition("--profile ")[2]), max_tokens=512)


def test_the_readmes_profiles_take_every_text():
    readme = Path(__file__).resolve().parents[2] / "engines" / "README.md"
    [text] = re.findall(r"`--profile ([^`]+)`", readme.read_text(encoding="utf-8"))
    check_coverage(profiles_of(text), max_tokens=512)


@given(lengths, st.integers(8, 512))
def test_made_profiles_take_every_text(found, max_tokens):
    check_coverage(make_profiles(found, max_tokens=max_tokens), max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("text", "capability"), [("sm_89", "8.9"), ("SM89", "8.9"), ("8.9", "8.9"), ("sm_120", "12.0"), (" 75 ", "7.5")]
)
def test_targets(text, capability):
    assert model_target(text) == capability


def test_no_target():
    assert model_target(None) is None
    for text in ("", "ada", "sm_", "sm_8", "8.9.0", "sm_89a"):
        with pytest.raises(EngineError, match="is no target"):
            model_target(text)
