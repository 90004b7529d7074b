"""Which threads have a GPU's context, and what the end of the process waits for. The driver here counts pushes and
pops in each thread, as CUDA does; what a GPU computes is tested in tests/gpu."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from time import monotonic, sleep

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
        self.fails = None
        self.interrupts = False
        driver = self

        class Context:
            def push(self):
                if driver.fails == "push":
                    raise driver.Error("no context")
                driver.depths[threading.get_ident()] += 1
                if driver.interrupts:
                    raise KeyboardInterrupt

            def detach(self):
                driver.when_detached = +driver.depths

            @staticmethod
            def pop():
                if driver.fails == "pop":
                    raise driver.Error("no context")
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


class User:
    """What has memory on the device and uses it to give that back."""

    def __init__(self, device):
        self.device, self.closed = device, False
        device.users.add(self)

    def close(self):
        with self.device.active():
            self.closed = True


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def busy(device):
    """A thread that uses the device, within a use that has ended another, until it is told to end."""
    inside, end = threading.Event(), threading.Event()

    def work():
        with device.active():
            with device.active():
                pass
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
    assert driver.when_detached == Counter()


def test_but_not_for_ever(device, driver, busy, monkeypatch):
    monkeypatch.setattr(cuda, "_LEAVING_S", 0.05)
    device.release()
    assert sum(driver.when_detached.values()) == 1


def test_ctrl_c_cuts_the_wait_short_and_all_is_given_back(device, driver, busy, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(cuda, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        device.release()
    assert driver.when_detached is not None


def test_what_is_on_the_device_is_closed_first(device, driver):
    user = User(device)
    device.release()
    assert user.closed
    assert driver.when_detached == Counter()


def test_what_another_thread_was_loading_is_closed_too(device, driver):
    loading, users = threading.Event(), []

    def work():
        with device.active():
            loading.set()
            while device._released_by is None:
                sleep(0.001)
            users.append(User(device))

    thread = threading.Thread(target=work)
    thread.start()
    assert loading.wait(30)
    device.release()
    thread.join()
    assert users[0].closed
    assert driver.when_detached == Counter()


def test_no_other_thread_uses_it_after_the_end(device, driver):
    with device.active():
        assert sum(driver.depths.values()) == 1
    device.release()
    said = []

    def work():
        with pytest.raises(ModelError, match="The process ends") as found, device.active():
            pass
        said.append(found)

    in_a_thread(work)
    assert len(said) == 1
    assert not +driver.depths
    assert not device._depths


def test_an_interrupt_between_push_and_block_is_mended_at_the_end(device, driver):
    driver.interrupts = True
    with pytest.raises(KeyboardInterrupt), device.active():
        pass
    assert sum(driver.depths.values()) == 1
    started = monotonic()
    device.release()
    assert monotonic() - started < cuda._LEAVING_S / 2, "it waited for itself"
    assert driver.when_detached == Counter()


@pytest.mark.parametrize("fails", ["push", "pop"])
def test_a_thread_whose_driver_fails_is_forgotten(device, driver, fails):
    driver.fails = fails

    def work():
        with pytest.raises(driver.Error), device.active():
            pass

    in_a_thread(work)
    assert not device._depths
    driver.fails = None
    with device.active():
        assert driver.depths[threading.get_ident()] == 1


SCRIPT = """
import atexit, ctypes, sys, threading, time
from workbench.runtime.cuda import Device

library = ctypes.CDLL(None)
key = ctypes.c_uint()  # of a value that every thread has; where it is set when a thread ends, the process is aborted
library.pthread_key_create(ctypes.byref(key), ctypes.cast(library.abort, ctypes.c_void_p))

class Context:
    def push(self): library.pthread_setspecific(key, ctypes.c_void_p(1))
    def detach(self): pass
    pop = staticmethod(lambda: library.pthread_setspecific(key, ctypes.c_void_p(0)))
    get_current = staticmethod(lambda: None)

class Driver:
    Error = OSError
    Context = Context
    class Device:
        def __init__(self, ordinal): pass
        def name(self): return "a GPU"
        def retain_primary_context(self): return Context()

device = Device(Driver(), 0)
atexit.register(device.release)

def work():
    while True:
        with device.active():
            sum(range(2000))
            time.sleep(0.0002)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pthread keys by ctypes")
def test_python_ends_while_threads_use_the_device():
    """As pycuda, the driver here ends the process with SIGABRT where a thread is stopped with the context."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
