"""TensorRT's nested phases as one bar. TensorRT 10 and later report them; 8.6 does not."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

__all__ = ["Phases", "make_monitor"]

logger = logging.getLogger(__name__)


@dataclass
class _Phase:
    steps: int
    done: float = 0.0
    parent: str | None = None


@dataclass
class Phases:
    """How far a build is, from phases inside phases: a phase that ends counts as one step of the one around it."""

    phases: dict[str, _Phase] = field(default_factory=dict)
    root: str | None = None
    fraction: float = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of ``steps`` steps begins, inside ``parent``."""
        self.phases[name] = _Phase(max(1, steps), parent=parent)
        self.root = self.root or name

    def step(self, name: str, index: int) -> float:
        """Step ``index`` (from 0) of a phase is done; gives the share of the whole, which never falls."""
        phase = self.phases.get(name)
        if phase is not None:
            phase.done = max(phase.done, min(index + 1, phase.steps))
        self.fraction = max(self.fraction, self._share(self.root))
        return self.fraction

    def finish(self, name: str) -> None:
        """A phase ends."""
        self.phases.pop(name, None)

    def _share(self, name: str | None) -> float:
        phase = self.phases.get(name or "")
        if phase is None:
            return self.fraction
        inside = [self._share(child) for child, other in self.phases.items() if other.parent == name]
        return min(1.0, (phase.done + max(inside, default=0.0)) / phase.steps)


def make_monitor(trt: ModuleType, bar: Any) -> Any:
    """An IProgressMonitor of the library ``trt`` that moves ``bar`` (of 100); None where the library has none.

    Its attribute ``interrupted`` says that the user pressed Ctrl-C: the build then ends without a plan.
    """
    base: Any = getattr(trt, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]  # a class of a library without types
        def __init__(self) -> None:
            base.__init__(self)
            self.interrupted = False
            self._phases = Phases()
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)
                bar.set_postfix_str(phase_name[:40], refresh=False)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                with self._lock:
                    share = self._phases.step(phase_name, step)
                    bar.update(int(100 * share) - bar.n)
            except KeyboardInterrupt:  # must not fly through the library's own code
                self.interrupted = True
            return not self.interrupted

    return Monitor()
