from workbench.errors import WorkbenchError
from workbench.extract import extract_page
from workbench.extract.page import Page
from workbench.scoring import score, score_file
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

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

__version__: str
