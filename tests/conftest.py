"""What all tests share: Hypothesis without deadlines, and skipping what needs a GPU where there is none."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The first example of a property pays for imports and compilation; a deadline would judge the machine, not the code.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))
