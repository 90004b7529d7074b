"""Values written as TOML; the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["toml_key", "toml_value"]


def toml_key(key: str) -> str:
    """A key, bare where it may be."""
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else toml_value(key)


def toml_value(value: Any) -> str:
    """A string, number, boolean or sequence of them."""
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value)
