"""What is installed, what is missing, and what to run next."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from workbench.errors import WorkbenchError
from workbench.params import NOTEBOOKS
from workbench.settings import settings
from workbench.store.archive import Archive
from workbench.store.lake import Lake
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

__all__ = ["Check", "examine", "is_usable", "next_step"]

State = Literal["ok", "optional", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing looked at: its state, what was found, and the command that mends it (empty when fine)."""

    name: str
    state: State
    found: str
    mend: str = ""


def examine(workspace_folder: Path | None = None) -> list[Check]:
    """Look at the installation and, when given, at a workspace. Nothing is changed."""
    return [*_installation(), *_extras(), *_checkout(), *(_workspace(workspace_folder) if workspace_folder else ())]


def is_usable(checks: Sequence[Check]) -> bool:
    """Whether a weekly run can start: nothing but optional parts is missing."""
    return all(check.state != "problem" for check in checks)


def next_step(checks: Sequence[Check], workspace_folder: Path | None = None) -> str:
    """The command to run next."""
    for check in checks:
        if check.state == "problem":
            return check.mend
    if workspace_folder is None:
        return "make demo, or workbench init DIR for a workspace of your own"
    by_name = {check.name: check for check in checks}
    return by_name["archive"].mend or f"workbench weekly -w {workspace_folder} --collect"


def _installation() -> Iterator[Check]:
    yield Check("python", "ok", platform.python_version())
    missing = [name for name, found in _requirements("") if found is None]
    if missing:
        yield Check("packages", "problem", f"missing: {', '.join(missing)}", "pip install -c constraints.txt -e .")
    else:
        yield Check("packages", "ok", f"{len(list(_requirements('')))} installed")
    from jupyter_client.kernelspec import KernelSpecManager

    from workbench.flow import KERNEL

    if KERNEL in KernelSpecManager().find_kernel_specs():
        yield Check("kernel", "ok", KERNEL)
    else:
        yield Check(
            "kernel", "problem", f"no Jupyter kernel named {KERNEL}", "python -m ipykernel install --sys-prefix"
        )


def _extras() -> Iterator[Check]:
    uses = {
        "lab": "JupyterLab",
        "export": "other checkpoints to ONNX",
        "gpu": "TensorRT engines on an NVIDIA GPU",
    }
    for extra, use in uses.items():
        missing = [name for name, found in _requirements(extra) if found is None]
        if missing:
            mend = "make lab" if extra == "lab" else f"pip install -c constraints.txt -e '.[{extra}]'"
            yield Check(f"extra {extra}", "optional", f"not installed ({use}): {', '.join(missing)}", mend)
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(f"{n} {v}" for n, v in _requirements(extra)))


def _requirements(extra: str) -> Iterator[tuple[str, str | None]]:
    """Name and installed version of each package an extra (or, empty, the base) asks for."""
    for line in requires("workbench") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        wanted = marker is None or marker.evaluate({"extra": extra})
        # With an extra named, the base packages evaluate to true as well.
        if not wanted or (extra and (marker is None or marker.evaluate({"extra": ""}))):
            continue
        try:
            yield requirement.name, version(requirement.name)
        except PackageNotFoundError:
            yield requirement.name, None


def _checkout() -> Iterator[Check]:
    home = settings().home
    missing = [name for name in NOTEBOOKS if not (settings().notebooks / f"{name}.ipynb").is_file()]
    if missing:
        mend = "set WORKBENCH_HOME to the checkout of the workbench"
        yield Check("notebooks", "problem", f"not found under {home}: {', '.join(missing)}", mend)
    else:
        yield Check("notebooks", "ok", str(settings().notebooks))


def _workspace(folder: Path) -> Iterator[Check]:
    try:
        workspace = load_workspace(folder)
    except WorkbenchError as error:
        mend = f"edit {folder}/workspace.toml" if (folder / "workspace.toml").exists() else f"workbench init {folder}"
        yield Check("workspace", "problem", str(error), mend)
        return
    sources = list(workspace.sources())
    rivals = len(workspace.competitors)
    counts = f"{rivals} competitor{'s' * (rivals != 1)}, {len(sources)} source{'s' * (len(sources) != 1)}"
    yield Check("workspace", "ok", f"{workspace.name}: {counts}")
    yield _archive(workspace, folder)
    lake = Lake(workspace.lake_dir)
    tables = {name: lake.version(name) for name in ("pages", "changes")}
    if tables["pages"] is None:
        yield Check("lake", "optional", "empty", f"workbench weekly -w {folder}")
    else:
        yield Check("lake", "ok", f"{lake.read('pages').height} pages read")


def _archive(workspace: Workspace, folder: Path) -> Check:
    entries = Archive(workspace.archive_dir).entries()
    if not entries:
        return Check("archive", "optional", "empty", f"workbench collect -w {folder}")
    newest = entries[-1].attempted_at
    return Check("archive", "ok", f"{len(entries)} attempts, the newest in {Week.of(newest)}")
