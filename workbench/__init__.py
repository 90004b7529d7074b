"""A research and reporting workbench for competitive intelligence.

The names below are loaded on first use, so that ``import workbench`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.errors import WorkbenchError
    from workbench.extract import extract_page
    from workbench.extract.page import Page
    from workbench.weeks import Week
    from workbench.workspace import Workspace, load_workspace

__all__ = ["Page", "Week", "WorkbenchError", "Workspace", "extract_page", "load_workspace"]

__version__ = "0.1.0"

_HOMES = {
    "Page": "workbench.extract.page",
    "Week": "workbench.weeks",
    "WorkbenchError": "workbench.errors",
    "Workspace": "workbench.workspace",
    "extract_page": "workbench.extract",
    "load_workspace": "workbench.workspace",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
