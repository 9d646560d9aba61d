"""One fixture over all backends that can run here; a new file in ``accelerated/backends`` is found by itself.

What cannot run is skipped once, with its reason, by ``test_registry.py``.
"""

from __future__ import annotations

import pytest

import accelerated
from accelerated import BackendUnavailable


def _running():
    """A backend on a device is marked as such, so that ``-m gpu`` selects it."""
    for name in accelerated.names():
        try:
            device = accelerated.load(name).device
        except BackendUnavailable:
            continue
        yield pytest.param(name, marks=[pytest.mark.gpu] if device == "cuda" else [])


@pytest.fixture(scope="session", params=list(_running()))
def backend(request):
    """Each backend that can run here in turn."""
    return accelerated.load(request.param)
