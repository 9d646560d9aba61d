"""Which backends can run here: ``python -m accelerated``. ``--compile`` fills their caches of compiled kernels as well.

Kernels are compiled at first use and kept on disk. Compiling them beforehand moves that minute to where it does not
disturb: an image that is built, a test run that starts several processes.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import tyro

import accelerated
from accelerated import BackendUnavailable
from accelerated.precompile import compile_kernels


@dataclass(frozen=True)
class Command:
    """List the backends; exit code 0."""

    compile: bool = False
    """Compile every kernel of those of ours that can run."""


def main() -> None:
    """Print one line for each backend."""
    command = tyro.cli(Command, prog="accelerated", description=Command.__doc__)
    for name in accelerated.names():
        try:
            backend = accelerated.load(name)
        except BackendUnavailable as error:
            print(str(error).splitlines()[0])
            continue
        except Exception as error:  # an installed package's own; the others are listed all the same
            print(f"backend {name!r} raises {type(error).__name__}: {error}".splitlines()[0])
            continue
        line = f"backend {name!r} runs here, on {backend.device}"
        if command.compile and name in accelerated.own_names():
            start = time.perf_counter()
            # A process for each precision: compilation holds the interpreter's lock.
            with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
                list(pool.map(compile_kernels, [name] * 2, ("float32", "float64")))
            line += f"; kernels compiled or found in {time.perf_counter() - start:.1f} s"
        print(line)


if __name__ == "__main__":
    main()
