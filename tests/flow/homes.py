"""Homes for tests: the project's notebooks, with reports and workspaces in a folder of their own."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_home(folder):
    """A home with the project's notebooks; reports and workspaces land in ``folder``."""
    (folder / "notebooks").mkdir(parents=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (folder / "notebooks" / path.name).write_bytes(path.read_bytes())
    return folder
