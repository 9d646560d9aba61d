"""Tests of the backends that ``--backend`` names; see ``validation.conformance``."""

from __future__ import annotations

import pytest

from validation import conformance


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of each backend."""
    config = metafunc.config
    if not hasattr(config.option, "judged_backends"):
        raise pytest.UsageError("validation.conformance_tests needs the option -p validation.pytest_plugin")
    if not config.option.judged_backends:
        raise pytest.UsageError("validation.conformance_tests needs --backend module:object, or a backend's name")
    found = [
        pytest.param(case, id=f"{name}-{case}")
        for name in dict.fromkeys(config.option.judged_backends)
        for case in conformance.cases(name, quick=not config.option.judged_in_full)
    ]
    metafunc.parametrize("case", found)


def test_backend(case: conformance.Case) -> None:
    """The case holds."""
    case.check()
