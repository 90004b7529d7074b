"""Tests that need a CUDA GPU with TensorRT and pycuda: left out elsewhere; with -m gpu at least one must run."""

import importlib.util
import re

import pytest

from workbench.runtime.host import this_host


def _missing():
    """Why the tests cannot run here; empty where they can."""
    here = this_host()
    if here.gpu is None:
        return "there is no GPU"
    if "tensorrt" not in here.versions:
        return "tensorrt is not installed or does not load"
    return "" if importlib.util.find_spec("pycuda") else "pycuda is not installed"


class _Ran:
    """Counts the tests marked gpu that were executed."""

    def __init__(self, asked):
        self.asked, self.count = asked, 0

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.outcome != "skipped" and "gpu" in report.keywords:
            self.count += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.asked and not self.count and not session.config.option.collectonly:
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(f"No gpu test was executed: {_missing() or 'none was left to run'}.", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _asked(config):
    """Whether -m asks for the gpu tests by name."""
    words = re.findall(r"not\s+\w+|\w+", config.option.markexpr or "")
    return "gpu" in words


def pytest_collection_modifyitems(config, items):
    plugins = config.pluginmanager
    if not plugins.has_plugin("gpu-tests-ran"):
        plugins.register(_Ran(_asked(config)), "gpu-tests-ran")
    if _missing():
        marked = [item for item in items if item.get_closest_marker("gpu")]
        if marked:
            config.hook.pytest_deselected(items=marked)
            items[:] = [item for item in items if not item.get_closest_marker("gpu")]
