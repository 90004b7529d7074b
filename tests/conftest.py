"""For all tests: Hypothesis has no deadline (shared machines stall), and draws the same examples in CI."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("workbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("workbench"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "workbench")
