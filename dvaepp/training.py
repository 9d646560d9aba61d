"""A training session: a trainer and its run folders from the beginning, or from a checkpoint, to tested weights.

One run, or several that are trained as one batched model; each has a folder of its own, the same as if it were alone.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from torch import Tensor

from dvaepp.backend import AUTO, TORCH, Choice, choose, choose_again
from dvaepp.checkpoint import load
from dvaepp.command import choose_device, device_name
from dvaepp.config import Config, flat
from dvaepp.data import Dataset, names
from dvaepp.environment import peak_memory
from dvaepp.errors import ConfigError, NonFiniteError, RunError
from dvaepp.evaluate import evaluate, load_data, print_result, progress_bar, record_name
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import WHEREABOUTS, Trainer, best_model, check_replicas, read_best
from dvaepp.world import World


class Interrupted(Exception):
    """Training or its test was stopped by a signal; what to do next is in the message."""


def complete(
    folders: Sequence[Path], configs: Sequence[Config], device: str, backend: str, out: Console, draw: bool = False
) -> list[dict[str, Any]]:
    """Train runs from wherever they stand to their tested weights; returns their evaluation records.

    Runs whose folders do not exist are begun, others resumed; several are trained as one batched model. ``device`` and
    ``backend`` are named as on the command line.

    Raises   ConfigError, DataError, RunError, NonFiniteError for what a user can cause; Interrupted.
    """
    check_replicas(configs)
    there = [folder.exists() for folder in folders]
    if not any(there):
        session = begin(folders, configs, device, backend, out)
    elif all(there):
        session = resume(folders, configs, device, backend, out)
    else:
        missing = folders[there.index(False)]
        raise RunError(f"run folder {missing} is missing, but others trained as one with it are there; train it alone")
    with session:
        return session.run(draw)


def begin(
    paths: Sequence[Path],
    configs: Sequence[Config],
    device: str,
    backend: str,
    out: Console,
    world: World | None = None,
) -> Session:
    """A session of new runs, whose folders are made: all of them, or none.

    Raises   as ``complete``; RunError if a folder exists.
    """
    world = World() if world is None else world
    on = choose_device(device)
    choice = choose(backend, on)
    configs = [resolved(config) for config in configs]
    dataset = _data(world, configs[0])
    _check_same(world, configs[0], dataset, choice)
    trainer = Trainer(configs, dataset, on, choice.name, world)
    folders = world.together(functools.partial(_create, paths, trainer, choice), alone=True)
    return Session(trainer, folders or [RunFolder(path) for path in paths], dataset, choice, out)


def _data(world: World, config: Config) -> Dataset:
    """The images, which every process reads for itself."""
    dataset = world.together(functools.partial(load_data, config))
    assert dataset is not None
    return dataset


def _check_same(world: World, config: Config, dataset: Dataset, choice: Choice) -> None:
    """Raise ConfigError unless all processes train the same on the same."""
    settings = {name: value for name, value in flat(asdict(config)).items() if name not in WHEREABOUTS}
    world.check_same("configuration", {**settings, "images": dataset.digest, "backend": choice.name})


def _create(paths: Sequence[Path], trainer: Trainer, choice: Choice) -> list[RunFolder]:
    """The folders of new runs: all of them, or none."""
    for path in paths:
        RunFolder.refuse_existing(path)
    folders: list[RunFolder] = []
    try:
        for index, (path, config) in enumerate(zip(paths, trainer.configs, strict=True)):
            fill = functools.partial(trainer.save_one, index)
            folders.append(RunFolder.create(path, config, trainer.device, choice.name, fill))
    except BaseException:
        for folder in folders:  # nothing but where it would have begun
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folders


def resume(
    paths: Sequence[Path],
    configs: Sequence[Config],
    device: str,
    backend: str,
    out: Console,
    world: World | None = None,
) -> Session:
    """A session of runs that were begun, at their last checkpoints.

    "auto" stands for the device and the backend they were on, if those can run here.

    Raises   as ``complete``; RunError if a checkpoint is damaged, or of another configuration or other images.
    """
    world = World() if world is None else world
    folders = [RunFolder(path) for path in paths]
    with contextlib.ExitStack() as locks:
        loaded = world.by_first(functools.partial(_last_checkpoints, paths, locks))
        facts = loaded[0][1]
        before = facts["device"]
        on = choose_device(before if device == "auto" else device)
        if on.type != before:
            out.print(f"the run was on {before}; on {on.type} it goes on with other random numbers")
        used = facts.get("backend")
        choice = choose_again(backend, used or AUTO, on)
        if used is None:
            out.print("the checkpoint is of an earlier version: its chains go on with other random numbers")
        elif used != choice.name:
            numbers = "other random numbers" if TORCH in (used, choice.name) else "the same random numbers"
            out.print(f"the run used the backend {used}; with {choice.name} its chains go on with {numbers}")
        configs = [resolved(config) for config in configs]
        dataset = _data(world, configs[0])
        _check_same(world, configs[0], dataset, choice)
        trainer = Trainer(configs, dataset, on, choice.name, world)
        trainer.restore(folders, loaded)
        if world.first:
            for folder in folders:
                folder.rewind_metrics(trainer.step)
        return Session(trainer, folders, dataset, choice, out, locks.pop_all())


def _last_checkpoints(
    paths: Sequence[Path], locks: contextlib.ExitStack
) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
    """What the runs' checkpoints hold; the folders are this process's from now on."""
    folders = [RunFolder.open(path) for path in paths]
    for folder in folders:
        locks.enter_context(folder.locked())
    _finish_renaming(folders)
    return [load(folder.checkpoint) for folder in folders]


def _finish_renaming(folders: Sequence[RunFolder]) -> None:
    """After a stop between the renames of one checkpoint of several runs: do the rest of them, or forget them all."""
    waiting = [folder for folder in folders if folder.next_checkpoint.exists()]
    if not waiting:
        return
    renamed = [folder for folder in folders if folder not in waiting]
    steps = {load(folder.checkpoint)[1]["step"] for folder in renamed}
    if steps and all(load(folder.next_checkpoint)[1]["step"] in steps for folder in waiting):
        for folder in waiting:
            folder.take_next_checkpoint()
    else:
        for folder in waiting:
            folder.next_checkpoint.unlink()


class Session:
    """A trainer, its run folders, held for this process, where to report; a context manager that lets go of them."""

    def __init__(
        self,
        trainer: Trainer,
        folders: Sequence[RunFolder],
        dataset: Dataset,
        backend: Choice,
        out: Console,
        locks: contextlib.ExitStack | None = None,
    ) -> None:
        self.trainer, self.folders, self.dataset, self.backend, self.out = trainer, folders, dataset, backend, out
        self.world = trainer.world
        if locks is None:
            with contextlib.ExitStack() as fresh:
                for folder in folders if self.world.first else ():
                    fresh.enter_context(folder.locked())
                locks = fresh.pop_all()
        self._locks = locks

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks.close()

    @property
    def _where(self) -> Path:
        """What ``--resume`` takes to go on: the run folder, or the folder of the runs that are trained as one."""
        return self.folders[0].path if len(self.folders) == 1 else self.folders[0].path.parent

    def run(self, draw: bool) -> list[dict[str, Any]]:
        """Train what is left to train, test, draw; returns the evaluation records.

        Raises   Interrupted, with the words to print; RunError if a folder cannot be written; NonFiniteError.
        """
        trainer, dataset, out = self.trainer, self.dataset, self.out
        out.print(f"{dataset.name}: {dataset.provenance}")
        together = "" if len(self.folders) == 1 else f"{len(self.folders)} runs as one model; "
        out.print(
            f"{len(dataset.train)} training, {len(dataset.valid)} validation, {len(dataset.test)} test images; "
            f"{device_name(trainer.device)}; {together}run folder {self._where}"
        )
        out.print(str(self.backend))
        again = f"python -m dvaepp.train --resume {self._where}"
        try:
            done = trainer.finished or self._train()
        except BrokenPipeError:  # of our own output: see command.run
            raise
        except KeyboardInterrupt:  # the second of two, or one before the first iteration
            raise Interrupted(f"interrupted; go on from the last checkpoint with:\n  {again}") from None
        except OSError as error:
            raise RunError(
                f"cannot write to {self._where}: {error.strerror or error}; the last checkpoint is kept: make room and "
                f"go on with --resume {self._where}"
            ) from error
        if not done:
            raise Interrupted(f"interrupted after iteration {trainer.step}, saved; go on with:\n  {again}")
        try:
            return [self._finish(index, draw) for index in range(len(self.folders))]
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted during the final test; training is complete and saved. Test again with:\n  {again}"
            ) from None

    def _train(self) -> bool:
        """Run the remaining iterations; False if interrupted (the state is saved then)."""
        trainer = self.trainer
        with _Interrupts() as interrupts, self._writers() as writers, progress_bar(self.out) as progress:
            total = trainer.config.optimisation.iterations
            task = progress.add_task("training", total=total, completed=trainer.step, terms="")
            started = time.perf_counter() - trainer.seconds
            live = ""
            try:
                while not trainer.finished and not self.world.any(interrupts.requested):
                    trainer.iterate()
                    trainer.seconds = time.perf_counter() - started
                    live = self._report(writers) or live
                    progress.update(task, completed=trainer.step, terms=live)
                if not trainer.finished:
                    trainer.save(self.folders)
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"{error}; the last good checkpoint is kept in {self._where}: start anew with a lower "
                    f"--learning-rate than {trainer.config.optimisation.learning_rate:g}"
                ) from None
        return trainer.finished and not self.world.any(interrupts.requested)

    @contextlib.contextmanager
    def _writers(self) -> Iterator[list[Any]]:
        from torch.utils.tensorboard import SummaryWriter  # costs a second: not for --help and mistyped flags

        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(SummaryWriter(str(folder.tensorboard), purge_step=self.trainer.step + 1))
                for folder in self.folders
                if self.world.first
            ]

    def _report(self, writers: Sequence[Any]) -> str:
        """After an iteration: write, validate and save what is due; returns the live terms when they are new."""
        trainer = self.trainer
        settings, step, last = trainer.config.evaluation, trainer.step, trainer.finished
        live = ""
        if step % settings.log_every == 0 or last:
            rows = trainer.drain_terms()
            self._record(writers, "train", rows)
            live = _live(rows[0])
        validated = step % settings.validate_every == 0 or last
        if validated:
            self._validate(writers)
        if validated or step % settings.checkpoint_every == 0:
            trainer.save(self.folders)
        return live

    def _validate(self, writers: Sequence[Any]) -> None:
        validations = self.trainer.validate()
        better = self.trainer.save_best(self.folders, validations)
        self._record(writers, "valid", [asdict(validation) for validation in validations])
        for validation, best, config in zip(validations, better, self.trainer.configs, strict=True):
            which = "" if len(self.folders) == 1 else f"seed {config.seed}  "
            log_z = f"log Z {validation.log_partition:8.3f} ± {validation.log_partition_se:.3f}  "
            self.out.print(
                f"iteration {self.trainer.step:>7}  {which}validation -log p {-validation.log_marginal:8.3f}  "
                f"-ELBO {-validation.elbo:8.3f}  KL {validation.kl:7.3f}  "
                f"{log_z if config.model.prior == 'rbm' else ''}"
                f"{self.trainer.seconds:6.0f} s{'  best' if best else ''}"
            )

    def _record(self, writers: Sequence[Any], kind: str, rows: Sequence[dict[str, float]]) -> None:
        if not self.world.first:
            return
        step = self.trainer.step
        for folder, writer, values in zip(self.folders, writers, rows, strict=True):
            folder.append_metrics({"step": step, "seconds": round(self.trainer.seconds, 3), kind: values})
            for name, value in values.items():
                writer.add_scalar(f"{kind}/{name}", value, step)

    def _finish(self, index: int, draw: bool) -> dict[str, Any]:
        """Test a run's best weights, print the table, draw the pictures; returns the record."""
        trainer, dataset, out = self.trainer, self.dataset, self.out
        config, folder, device = trainer.configs[index], self.folders[index], trainer.device
        kept = self.world.by_first(functools.partial(read_best, folder, config, dataset))
        model, best = best_model(config, dataset, device, kept)
        record = evaluate(model, dataset, config, device, out, config.seed, trainer.backend, self.world)
        if not self.world.first:
            return record
        rate = trainer.step * config.optimisation.batch_size / trainer.seconds
        memory = peak_memory(device)
        record |= {"weights_of_step": best["step"], "iterations": folder.iterations()}
        folder.write_record(record_name(config, config.seed), record)
        print_result(record, out)
        out.print(
            f"weights of iteration {best['step']} of {trainer.step} (best validation); "
            f"trained {trainer.seconds:.0f} s, {rate:.0f} images a second with all validations, tested "
            f"{record['seconds']:.0f} s on {device_name(device)}"
            + ("" if memory is None else f"; a process held {memory / 2**20:.0f} MiB at most")
        )
        if draw:
            from dvaepp import pictures  # brings matplotlib: see _writers

            with out.status("pictures ..."):
                drawn = pictures.save_all(folder, model, dataset, config, record, trainer.backend)
            out.print(f"pictures in {folder.path}: {', '.join(path.name for path in drawn)}")
        return record


def resolved(config: Config) -> Config:
    """The configuration with paths made absolute, so that the run can be resumed from another folder."""
    settings = config.data
    images, where = settings.data, settings.data_dir
    try:
        if images and images not in names() and Path(images).expanduser().exists():
            images = str(Path(images).expanduser().absolute())
        if where:
            where = str(Path(where).expanduser().absolute())
    except (RuntimeError, OSError) as error:  # ~somebody without a home, a name too long
        raise ConfigError(f"data or data_dir cannot be looked up: {error}") from error
    return replace(config, data=replace(settings, data=images, data_dir=where))


def _live(terms: dict[str, float]) -> str:
    log_z = f"  log Z {terms['log_partition']:.2f}" if "log_partition" in terms else ""
    return f"ELBO {terms['elbo']:.2f}  reconstruction {terms['log_likelihood']:.2f}  KL {terms['kl']:.2f}{log_z}"


#: Seconds within which signals are one.
_SAME_INTERRUPT = 1.0


class _Interrupts:
    """Turns SIGINT and SIGTERM into a request to stop after the iteration under way; a second one stops at once.

    Not if it comes in the same second: torchrun passes a Ctrl-C on to processes that the terminal has sent it already.
    """

    def __init__(self) -> None:
        self.requested = False
        self._first = -math.inf
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._first = True, now
        elif now - self._first > _SAME_INTERRUPT:
            raise KeyboardInterrupt
