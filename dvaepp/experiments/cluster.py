"""Runs on many machines, by Ray: a task per bundle, made again elsewhere when its worker dies.

All machines see the runs under the same path: a task that is made again goes on from the checkpoint it finds there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

import dvaepp
from dvaepp.errors import ConfigError
from dvaepp.experiments.runner import Bundle, Engine, Outcome, Where, perform_quietly

#: A cluster of this machine alone, started for the command.
LOCAL = "local"
#: How often a task is made again when its worker, or the machine, dies.
_RETRIES = 5
_PATIENCE = 10.0  # seconds for an address to answer


def on_cluster(address: str, device: str) -> Engine:
    """Bundles as tasks of the Ray cluster at an address: host:port, auto (this machine's) or local.

    To be called on a machine of the cluster.

    Raises   ConfigError if Ray is not installed, nothing answers there, or the device is one of several by number.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--ray needs Ray, which is not installed ({error}): pip install 'dvaepp[cluster]'") from None
    if device.startswith("cuda:"):
        raise ConfigError(f"with --ray the device must be auto, cpu or cuda, for Ray hands them out; got {device!r}")
    _connect(ray, address)
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    gpus = 1 if device == "cuda" or (device == "auto" and has_gpus) else 0
    if gpus and not has_gpus:
        raise ConfigError("--device cuda: no machine of the cluster has a GPU")

    def run(bundles: Sequence[Bundle], where: Where, out: Console) -> Iterator[list[Outcome]]:
        task = ray.remote(_task).options(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)
        tasks = {task.remote(dvaepp.__version__, bundle, where): bundle for bundle in bundles}
        waiting = list(tasks)
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                for reference in done:
                    yield _outcomes(ray, tasks[reference], reference)
        except BaseException:
            for reference in waiting:
                ray.cancel(reference)  # as an interrupt, at which a run is saved
            ray.wait(waiting, num_returns=len(waiting), timeout=_PATIENCE)
            raise

    return run


def _connect(ray: Any, address: str) -> None:
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        ray.init(address="local", include_dashboard=False, **options)
        return
    way_out = "start a cluster there with `ray start --head`, or use --ray local"
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"--ray must be host:port, auto or local; got {address!r}")
        try:
            socket.create_connection((host, int(port)), _PATIENCE).close()  # Ray itself would wait long, then abort
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"--ray {address}: nothing answers there ({why}); {way_out}") from error
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigError(f"--ray {address}: no Ray cluster answers ({words}); {way_out}") from error


def _task(version: str, bundle: Bundle, where: Where) -> list[Outcome]:
    """What a worker does."""
    if version != dvaepp.__version__:
        problem = f"a worker has dvaepp {dvaepp.__version__}, not {version}: install the same on all machines"
        return [Outcome(job, problem) for job in bundle]
    return perform_quietly(bundle, where)


def _outcomes(ray: Any, bundle: Bundle, reference: Any) -> list[Outcome]:
    try:
        return list(ray.get(reference))
    except Exception as error:  # died more often than it is made again, was cancelled, or dvaepp is not there
        lines = str(error).strip().splitlines() or [type(error).__name__]
        words = lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]  # of a traceback, the end
        return [Outcome(job, f"on the cluster: {words}; go on by the same command") for job in bundle]
