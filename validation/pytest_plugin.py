"""The options of ``validation.conformance_tests``: ``pytest -p validation.pytest_plugin``.

It is no entry point of pytest: its options would turn up in the tests of whoever installs this project.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Who is judged, and how thoroughly."""
    group = parser.getgroup("dvaepp", "validation of DVAE++ backends")
    group.addoption(
        "--backend",
        action="append",
        default=[],
        dest="judged_backends",
        metavar="NAME",
        help="judge this backend: module:object, or a name that accelerated.load knows (repeatable)",
    )
    group.addoption(
        "--full", action="store_true", dest="judged_in_full", help="with all cases and the whole search: minutes"
    )
