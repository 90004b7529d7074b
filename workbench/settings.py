"""The environment the workbench runs in: where its checkout is, and what WORKBENCH_* variables say."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "settings"]


class Settings(BaseSettings):
    """Read from WORKBENCH_* environment variables.

    ``home`` (WORKBENCH_HOME) is the checkout that holds notebooks, engines, calibration and reports; the default
    is the checkout this package was installed from. ``workspace`` (WORKBENCH_WORKSPACE) and ``week`` (WORKBENCH_WEEK)
    are what notebooks and commands use when none is named; `workbench lab` sets both. ``data`` (WORKBENCH_DATA) is
    the folder of labelled data, for training and for measuring.
    """

    model_config = SettingsConfigDict(env_prefix="WORKBENCH_", frozen=True, extra="ignore")

    home: Path = Path(__file__).resolve().parent.parent
    workspace: Path | None = None
    week: str = ""
    data: Path | None = None

    @property
    def notebooks(self) -> Path:
        """Folder of the parameterized notebooks."""
        return self.home / "notebooks"

    @property
    def reports(self) -> Path:
        """Folder the weekly reports land in."""
        return self.home / "reports"

    @property
    def workspaces(self) -> Path:
        """Folder of workspaces made without a path of their own, such as the demo's."""
        return self.home / "workspaces"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
