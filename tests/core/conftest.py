"""What the tests of the core share."""

from __future__ import annotations

import pytest
import trio._core._run as trio_run


@pytest.fixture(params=range(12))
def schedule(request: pytest.FixtureRequest) -> int:
    """Runs the test under several orders of tasks; the number makes each repeatable.

    It seeds the scheduler as pytest-trio does for hypothesis.
    """
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    seed: int = request.param
    trio_run._r.seed(seed)
    return seed
