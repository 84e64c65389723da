"""Parameters of which CI takes the first, and `make test-exhaustive` the others."""

from typing import Any

import pytest


def first_in_ci(first: Any, *others: Any) -> list[Any]:
    """The first as it is, the other variants of it marked exhaustive."""
    return [first, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in others)]


def kept_in_ci(names: Any, *kept: Any) -> list[Any]:
    """All names in their order; those that are not kept are marked exhaustive."""
    return [pytest.param(one, marks=[pytest.mark.exhaustive] * (one not in kept)) for one in names]
