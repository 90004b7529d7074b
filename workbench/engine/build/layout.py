"""Padded or packed: which layout an engine is built in, and the graph in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from workbench.engine.build.graph import ConvertedGraph, UnpackableError, convert
from workbench.engine.build.profiles import profile_text
from workbench.errors import EngineError
from workbench.runtime.manifest import Profile
from workbench.tasks.spec import ModelSpec

__all__ = ["LAYOUTS", "convert_in_layout"]

logger = logging.getLogger(__name__)

LAYOUTS: Final = ("auto", "padded", "packed")


def convert_in_layout(
    spec: ModelSpec,
    *,
    layout: str,
    runtime: str,
    precision: str,
    profiles: Sequence[Profile] | None = None,
    **how: Any,
) -> tuple[str, ConvertedGraph]:
    """The layout that is built, and the graph in it; ``how`` goes to ``convert``.

    "auto" is packed where runtime, precision, network and ``profiles`` can be, and says it where another engine than
    the usual one comes of it. Raises EngineError when the layout that was asked for cannot be built; ModelError when
    the graph cannot be it, or does not answer packed as it does padded.
    """
    if layout not in LAYOUTS:
        raise EngineError(f"No layout is named {layout!r}. Use one of: {', '.join(LAYOUTS)}")
    if layout != "padded":
        # What runtime, precision and kept groups lead to, the user knows; what network and profiles do, rather not.
        level = logging.INFO
        problem = _packed_problem(runtime, precision) if not how["keep"] else "layer groups are kept back"
        if problem is None and layout == "auto":
            level, problem = logging.WARNING, _tight(profiles, spec.max_tokens)
        if problem is None:
            try:
                return "packed", convert(spec, precision=precision, form="", layout="packed", **how)
            except UnpackableError as error:
                if layout == "packed":
                    raise
                problem = str(error).partition(". ")[0]
        if layout == "packed":
            raise EngineError(f"{spec.name} cannot be built packed: {problem}. Use --layout padded.")
        logger.log(level, "%s %s is built padded: %s", spec.name, precision, problem)
    return "padded", convert(spec, precision=precision, form=_form(runtime), **how)


def _tight(profiles: Sequence[Profile] | None, max_tokens: int) -> str | None:
    """Why ``profiles`` are none of a packed engine; None where they may be."""
    for profile in profiles or ():
        if profile.max[1] < max_tokens:
            return f"the profile {profile_text(profile)} has no room for {max_tokens} tokens"
    return None


def _packed_problem(runtime: str, precision: str) -> str | None:
    if runtime == "onnxruntime":
        return "onnxruntime has no attention over packed texts"
    from workbench.engine.build.trt import packed_problem

    return packed_problem(runtime, precision)


def _form(runtime: str) -> str:
    from workbench.engine.build.trt import int8_form

    return int8_form(runtime)
