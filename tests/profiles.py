"""How many examples Hypothesis tries: few and the same in `make test`, many and new ones in `make test-thorough`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

THOROUGH = os.environ.get("IVAE_LAB_THOROUGH") == "1"

# A loaded machine is slow: no deadline.
_CALM = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("ci", _CALM, max_examples=12, derandomize=True)
settings.register_profile("thorough", _CALM, max_examples=300)
settings.load_profile("thorough" if THOROUGH else "ci")


def examples(number: int) -> int:
    """For tests of cheap code in which few of all inputs are telling: so many, and 20 times as many when thorough."""
    return 20 * number if THOROUGH else number
