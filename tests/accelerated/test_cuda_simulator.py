"""The portable CUDA kernels in Numba's simulator, in a process of its own: it is switched on before Numba is imported.

It checks indexing, branches, barriers and the order of sums, not the rounding of a device: that is for tests marked
``gpu``.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SIMULATED = Path(__file__).parent / "simulated" / "run.py"


@pytest.mark.timeout(600)  # 40 seconds of work, on a machine that may do other work too
def test_the_kernels_agree_with_the_reference_in_the_simulator():
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, str(SIMULATED)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=580)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None, run.stdout
    assert int(passed[1]) > 80
    assert "skipped" not in run.stdout, run.stdout[-2000:]
