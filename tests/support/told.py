"""What is said of a mistake."""

from collections.abc import Callable
from typing import Any

import pytest

from analogtl.errors import ExperimentError


def problems_of(call: Callable[..., Any], *arguments: Any, **more: Any) -> list[str]:
    """The lines that a call fails with."""
    with pytest.raises(ExperimentError) as caught:
        call(*arguments, **more)
    return caught.value.problems
