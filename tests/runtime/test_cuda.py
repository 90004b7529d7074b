"""Which threads have a GPU's context, and what the end of the process waits for. The driver here counts pushes and
pops in each thread, as CUDA does; what a GPU computes is tested in tests/gpu."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from workbench.errors import ModelError
from workbench.runtime import cuda
from workbench.runtime.cuda import Device


class Driver:
    class Error(Exception):
        pass

    def __init__(self):
        self.depths = Counter()
        self.when_detached = None
        self.refuses = self.interrupts = False
        driver = self

        class Context:
            def push(self):
                if driver.refuses:
                    raise driver.Error("no context")
                driver.depths[threading.get_ident()] += 1
                if driver.interrupts:
                    raise KeyboardInterrupt

            def detach(self):
                driver.when_detached = +driver.depths

            @staticmethod
            def pop():
                driver.depths[threading.get_ident()] -= 1

            @staticmethod
            def get_current():
                return driver if driver.depths[threading.get_ident()] > 0 else None

        class Device:
            def __init__(self, ordinal):
                pass

            def name(self):
                return "a GPU"

            def retain_primary_context(self):
                return Context()

        self.Context, self.Device = Context, Device


@pytest.fixture
def driver():
    return Driver()


@pytest.fixture
def device(driver):
    return Device(driver, 0)


@pytest.fixture
def busy(device):
    """A thread that uses the device, twice over, until it is told to end."""
    inside, end = threading.Event(), threading.Event()

    def work():
        with device.active(), device.active():
            inside.set()
            end.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    yield end
    end.set()
    thread.join()


def test_the_end_waits_for_threads_that_use_the_device(device, driver, busy):
    threading.Timer(0.2, busy.set).start()
    device.release()
    assert busy.is_set()
    assert not driver.when_detached


def test_but_not_for_ever(device, driver, busy, monkeypatch):
    monkeypatch.setattr(cuda, "_LEAVING_S", 0.05)
    device.release()
    assert sum(driver.when_detached.values()) == 2


def test_no_thread_uses_it_after_the_end(device, driver):
    with device.active():
        assert sum(driver.depths.values()) == 1
    device.release()
    with pytest.raises(ModelError, match="The process ends"), device.active():
        pass
    assert not +driver.depths


def test_an_interrupt_between_push_and_block_is_mended_at_the_end(device, driver):
    driver.interrupts = True
    with pytest.raises(KeyboardInterrupt), device.active():
        pass
    assert sum(driver.depths.values()) == 1
    device.release()
    assert not driver.when_detached


def test_a_push_that_fails_is_forgotten(device, driver):
    driver.refuses = True
    with pytest.raises(driver.Error), device.active():
        pass
    driver.refuses = False
    device.release()
    assert not driver.when_detached
