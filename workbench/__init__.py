"""A research and reporting workbench for competitive intelligence.

The names below are loaded on first use, so that ``import workbench`` stays light. Type checkers read
``__init__.pyi``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

__all__ = [
    "Page",
    "Week",
    "WorkbenchError",
    "Workspace",
    "extract_page",
    "load_workspace",
    "score",
    "score_file",
]

__version__ = "0.1.0"

_HOMES = {
    "Page": "workbench.extract.page",
    "Week": "workbench.weeks",
    "WorkbenchError": "workbench.errors",
    "Workspace": "workbench.workspace",
    "extract_page": "workbench.extract",
    "load_workspace": "workbench.workspace",
    "score": "workbench.scoring",
    "score_file": "workbench.scoring",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    # With name and obj Python adds the nearest name of dir() to the traceback.
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}. It offers {', '.join(__all__)}; "
        f"a module is imported by its full name: import workbench.scoring",
        name=name,
        obj=sys.modules[__name__],
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
