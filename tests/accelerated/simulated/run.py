"""Run by ``test_cuda_simulator.py`` in a process of its own: the tests of this folder and some that all backends share.

NUMBA_ENABLE_CUDASIM=1 python tests/accelerated/simulated/run.py
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))  # the checkout, as ``python -m pytest`` would have it

#: Of the tests that all backends share those that are quick in the simulator; ``kernels.py`` judges the rest.
SHARED = "refused or (are_right) or (no_number) or (arguments_alone) or (what_they_are_given)"


class Simulator:
    """Here the simulator is the device that a test marked ``gpu`` needs."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        for item in items:
            item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "gpu"]


if __name__ == "__main__":
    from accelerated.cuda_numba import launching

    launching.WARP = 2  # every thread is one of Python's
    arguments = [
        *("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--strict-markers"),
        *("-k", f"kernels or (numba_cuda and ({SHARED}))"),
        *(str(HERE / "kernels.py"), str(HERE.parent / "test_agreement.py")),
        *sys.argv[1:],
    ]
    sys.exit(pytest.main(arguments, plugins=[Simulator()]))
