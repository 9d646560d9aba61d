"""The agreement checks see what they are for: each of these changes to a kernel, most of them tiny, makes them fail.

``accelerated`` is copied, one line of the copy changed, and the checks run there in a process of its own: Numba's CUDA
kernels in the simulator, those for the CPU compiled anew. The same checks find nothing in the copy as it is.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKSHOP = Path(__file__).with_name("workshop.py")

#: By backend and name: operations that must disagree, file, line as it is, line as it is changed to.
SABOTAGE = {
    "numba_cpu": {  # few, for each is compiled
        "a round of Philox is skipped": (
            ["gibbs"],
            "cpu/philox.py",
            "    return _round(c0, c1, c2, c3, seed, 9)",
            "    return c0, c1, c2, c3",
        ),
        "the exponential is off by a millionth": (
            ["gibbs"],
            "cpu/exponential.py",
            "    0.6931471805599453,\n)",
            "    0.6931478736,\n)",
        ),
    },
    "numba_cuda": {
        "a round of Philox is skipped": (["gibbs"], "cuda_numba/philox.py", "_ROUNDS = 10", "_ROUNDS = 9"),
        "two words of Philox are swapped": (
            ["gibbs"],
            "cuda_numba/philox.py",
            "    return c0, c1, c2, c3\n",
            "    return c1, c0, c2, c3\n",
        ),
        "the logit is off by a millionth": (
            ["gibbs"],
            "cuda_numba/philox.py",
            "real(math.exp(exponent))",
            "real(math.exp(exponent * 1.000001))",
        ),
        "the exponential is off by a millionth": (
            ["gibbs"],
            "cuda_numba/philox.py",
            "real(math.exp(exponent))",
            "real(1.000001 * math.exp(exponent))",
        ),
        "the uniforms are off by half a cell": (
            ["gibbs"],
            "cuda_numba/philox.py",
            "half, cell, one, largest = real(0.5)",
            "half, cell, one, largest = real(1.0)",
        ),
        "a bias is dropped": (
            ["gibbs"],
            "cuda_numba/chains.py",
            "bias[unit] if unit < n_out else 0.0",
            "bias[unit] if unit < n_out - 1 else 0.0",
        ),
        "two units are swapped": (
            ["gibbs"],
            "cuda_numba/chains.py",
            "        states[4 * group] = bits0\n        states[4 * group + 1] = bits1\n",
            "        states[4 * group] = bits1\n        states[4 * group + 1] = bits0\n",
        ),
        "a coupling is left out": (
            ["gibbs"],
            "cuda_numba/chains.py",
            "        for i in range(n_in):\n            bits = states[i]",
            "        for i in range(n_in - 1):\n            bits = states[i]",
        ),
        "steps are counted from 1": (
            ["gibbs"],
            "cuda_numba/gibbs.py",
            "now = step + np.uint64(moved[0])",
            "now = step + np.uint64(moved[0] + 1)",
        ),
        "both sides draw from one stream": (
            ["gibbs"],
            "cuda_numba/gibbs.py",
            "np.uint64(STREAM_Z1), np.uint64(STREAM_Z2)",
            "np.uint64(STREAM_Z2), np.uint64(STREAM_Z2)",
        ),
        "chains are counted from 1": (
            ["gibbs"],
            "cuda_numba/gibbs.py",
            "first_chain + np.uint64(which[c])",
            "first_chain + np.uint64(which[c] + 1)",
        ),
        "weights are off by a millionth": (
            ["ais"],
            "cuda_numba/annealing.py",
            "partial[lane * rows + c] = weight[c] + math.log(above[c] / below[c])",
            "partial[lane * rows + c] = weight[c] + 1.000001 * math.log(above[c] / below[c])",
        ),
        "a weight lacks the biases": (
            ["reverse_ais"],
            "cuda_numba/annealing.py",
            "weight[c] += gain",
            "weight[c] += 0.0 * gain",
        ),
        "exchanges take the wrong sign": (
            ["tempering"],
            "cuda_numba/tempering.py",
            "(ladder[lower] - ladder[lower + 1])",
            "(ladder[lower + 1] - ladder[lower])",
        ),
        "an entropy is off by a millionth": (
            ["entropy"],
            "cuda_numba/sums.py",
            "            total += nats\n",
            "            total += 1.000001 * nats\n",
        ),
        "a unit is taken for one of its own group": (
            ["cross_entropy"],
            "cuda_numba/sums.py",
            "    same = (n1 + unit) // group_size * group_size",
            "    same = (n1 + unit) // group_size * group_size - 1",
        ),
        "a log of the mean forgets its unit": (
            ["importance_log_mean"],
            "cuda_numba/sums.py",
            "math.exp(old_largest[row] - unit)",
            "math.exp(unit - unit)",
        ),
    },
}


def workshop(backend, changes, folder):
    """Findings of the intact copy and of each change, by name."""
    copy = folder / backend
    shutil.copytree(ROOT / "accelerated", copy / "accelerated", ignore=shutil.ignore_patterns("__pycache__"))
    jobs = [
        [name, operations, f"accelerated/{file}", old, new] for name, (operations, file, old, new) in changes.items()
    ]
    every = sorted({operation for _, operations, *_ in jobs for operation in operations})
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (copy, ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",  # two versions of a file may have one size and one second
        "NUMBA_CACHE_DIR": str(copy / "cache"),
        "NUMBA_ENABLE_CUDASIM": str(int(backend == "numba_cuda")),
    }
    done = subprocess.run(
        [sys.executable, WORKSHOP, copy, backend],
        input=json.dumps([["intact", every, "", "", ""], *jobs]),
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: (n_findings, failed) for name, n_findings, failed in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the workshops found, which run side by side."""
    pytest.importorskip("numba")
    folder = tmp_path_factory.mktemp("sabotage")
    with ThreadPoolExecutor() as pool:
        jobs = {backend: pool.submit(workshop, backend, changes, folder) for backend, changes in SABOTAGE.items()}
        return {backend: job.result() for backend, job in jobs.items()}


@pytest.mark.parametrize("backend_name", SABOTAGE)
def test_the_intact_copy_agrees(found, backend_name):
    n_findings, failed = found[backend_name]["intact"]
    assert n_findings >= 3
    assert failed == []


@pytest.mark.parametrize(("backend_name", "change"), [(name, change) for name in SABOTAGE for change in SABOTAGE[name]])
def test_a_sabotaged_kernel_is_found_out(found, backend_name, change):
    _, failed = found[backend_name][change]
    assert failed, f"no check of {SABOTAGE[backend_name][change][0]} notices that {change}"
