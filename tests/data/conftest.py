from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published_data() -> Path:
    """The folder of the published data sets: DVAEPP_TEST_DATA, or ../shared/datasets beside the repository."""
    chosen = os.environ.get("DVAEPP_TEST_DATA")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[3] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"the published data sets are not in {folder}; set DVAEPP_TEST_DATA to their folder")
    return folder
