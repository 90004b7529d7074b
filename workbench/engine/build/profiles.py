"""Optimization profiles: the shapes an engine is built for, from the lengths of representative texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from workbench.errors import EngineError
from workbench.runtime.batching import bucket_length
from workbench.runtime.manifest import Profile

__all__ = [
    "PACKED_TOKENS",
    "TOKENS",
    "check_coverage",
    "check_profile",
    "make_packed_profiles",
    "make_profiles",
    "parse_profile",
    "profile_text",
]

TOKENS: Final = 16384
"""Tokens of the largest batch, padding included: enough to keep a large GPU busy (one H100 needs about 4,000)."""

PACKED_TOKENS: Final = 32768
"""Tokens of the largest packed batch."""

_PACKED: Final = ((80, 1024), (4096, PACKED_TOKENS))
"""Texts and tokens of the largest batch of each packed profile: one text or a few, filled up to shapes that a graph
is kept for (workbench.runtime.device_plan.few_texts), and as many as there are."""

_WIDE: Final = 512
"""A wider network is busy with half as many tokens: on an H100 12 layers of 768 read 16,384 tokens a batch at 0.98 of
the speed of 32,768 (two slots), 6 layers of 256 at 0.66. Each context takes half the memory."""

_ONE_TEXT: Final = 128
"""Tokens of the text that the first packed profile chooses kernels for."""

_MOST_TEXTS: Final = 256
_USUAL_TEXTS: Final = 32
_STEP: Final = 32
_SHORT: Final = 0.9
"""Share of the texts that the profile for short texts is for."""

_FORM: Final = re.compile(r"(\d+)x(\d+):(\d+)x(\d+):(\d+)x(\d+)")


def make_profiles(lengths: Sequence[int], *, max_tokens: int) -> tuple[Profile, ...]:
    """A profile for short texts, nine of ten, and one for the rest up to ``max_tokens``.

    ``lengths``: tokens of each text (or window of a long one), marks of beginning and end included. Kernels are
    chosen for the usual shape of a profile and memory is taken for its largest, so one profile for all would choose
    for lengths that are rare. Where nine of ten texts are nearly as long as a text can be, one profile is enough.
    """
    lengths = [min(length, max_tokens) for length in lengths] or [max_tokens]
    short = _rounded(float(np.quantile(lengths, _SHORT)), max_tokens)
    below = [length for length in lengths if length <= short]
    above = [length for length in lengths if length > short]
    if not above or short >= max_tokens:
        return (_profile(float(np.median(lengths)), max_tokens, max_tokens),)
    return (
        _profile(float(np.median(below)), short, max_tokens),
        _profile(float(np.median(above)), max_tokens, max_tokens),
    )


def make_packed_profiles(lengths: Sequence[int], *, max_tokens: int, width: int | None = None) -> tuple[Profile, ...]:
    """Profiles of a packed engine: for one text or a few, and for full batches.

    ``lengths``: tokens of each text; ``width``: of the network's hidden states. Kernels are chosen for one text, and
    for batches half as large as they may become. They are chosen anew for each profile, so there is none between.
    """
    usual = max(1, round(float(np.mean([min(length, max_tokens) for length in lengths] or [max_tokens]))))
    (few, short), (many, tokens) = _PACKED
    if width is not None and width > _WIDE:
        tokens = max(tokens // 2, max_tokens)
    return (
        Profile(min=(1, 1), opt=(1, min(_ONE_TEXT, max_tokens)), max=(few, short)),
        Profile(min=(1, 1), opt=(min(many, max(1, tokens // 2 // usual)), tokens // 2), max=(many, tokens)),
    )


def _profile(usual: float, longest: int, max_tokens: int) -> Profile:
    most = max(1, min(_MOST_TEXTS, TOKENS // longest))
    most -= most % 8 if most > 8 else 0
    return Profile(
        min=(1, 1),
        opt=(min(_USUAL_TEXTS, most), min(longest, bucket_length(round(usual), max_tokens))),
        max=(most, longest),
    )


def _rounded(length: float, max_tokens: int) -> int:
    return min(max_tokens, -(-round(length) // _STEP) * _STEP)


def parse_profile(text: str, *, max_tokens: int | None = None) -> Profile:
    """A profile as commands take it: "1x1:32x64:128x128" is min, opt, max, each batch x tokens.

    ``max_tokens``: the most that the largest may have, if there is such a limit. Raises EngineError when it is not of
    that form, or the shapes do not grow.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise EngineError(
            f"{text!r} is no profile. Write min:opt:max, each batch x tokens, such as 1x1:32x64:128x128"
        )
    numbers = [int(value) for value in found.groups()]
    profile = Profile((numbers[0], numbers[1]), (numbers[2], numbers[3]), (numbers[4], numbers[5]))
    for low, middle, high in zip(profile.min, profile.opt, profile.max, strict=True):
        if not 1 <= low <= middle <= high:
            raise EngineError(f"The profile {text} does not grow from min to opt to max. Write it in that order.")
    if max_tokens is not None:
        check_profile(profile, layout="padded", max_tokens=max_tokens)
    return profile


def check_profile(profile: Profile, *, layout: str, max_tokens: int) -> None:
    """Check a profile against the tokens that the model reads of a text.

    Raises EngineError when a padded one has longer texts, or a packed one no room for the longest text.
    """
    text = profile_text(profile)
    if layout == "padded" and profile.max[1] > max_tokens:
        raise EngineError(
            f"The profile {text} goes beyond the {max_tokens} tokens that the model reads. Write at most "
            f"{max_tokens}."
        )
    if layout == "packed" and profile.max[1] < max_tokens:
        raise EngineError(
            f"The profile {text} has no room for one text of {max_tokens} tokens. Of a packed engine its tokens are "
            f"those of the whole batch: write at least {max_tokens}."
        )


def check_coverage(profiles: Sequence[Profile], *, max_tokens: int) -> None:
    """Check that padded ``profiles`` together take one text of every length that the model reads.

    Raises EngineError where one would only be refused in the middle of a run.
    """
    lengths = {bucket_length(tokens, max_tokens) for tokens in range(1, max_tokens + 1)}
    missing = sorted(length for length in lengths if not any(profile.fits(1, length) for profile in profiles))
    if missing:
        given = ",".join(profile_text(profile) for profile in profiles)
        rest = profile_text(_profile(max_tokens, max_tokens, max_tokens))
        raise EngineError(
            f"No profile of {given} takes one text of {missing[-1]} tokens; the model reads up to {max_tokens}. Add "
            f"one that does: --profile {given},{rest}"
        )


def profile_text(profile: Profile) -> str:
    """The inverse of ``parse_profile``."""
    return ":".join(f"{batch}x{tokens}" for batch, tokens in (profile.min, profile.opt, profile.max))
