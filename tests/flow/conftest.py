"""One run of the demo's week, shared by the tests of this folder, in a home of its own."""

import pytest
from homes import make_home

from workbench.demo import make_demo
from workbench.flow import newest_week, run_week
from workbench.settings import settings
from workbench.workspace import load_workspace


@pytest.fixture
def use_home(monkeypatch):
    """Make a folder the workbench's home for one test."""

    def use(folder):
        monkeypatch.setenv("WORKBENCH_HOME", str(folder))
        monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
        monkeypatch.delenv("WORKBENCH_WEEK", raising=False)
        settings.cache_clear()
        return folder

    yield use
    settings.cache_clear()


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory):
    """A home in which the demo's week has been run once."""
    home = make_home(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(home))
        settings.cache_clear()
        workspace = load_workspace(make_demo(home / "workspaces" / "demo"))
        run_week(workspace, newest_week(workspace), progress=False)
    settings.cache_clear()
    return home


@pytest.fixture
def demo(demo_home, use_home):
    """The demo workspace, run once."""
    use_home(demo_home)
    return load_workspace(demo_home / "workspaces" / "demo")
