"""Train a discrete VAE with a Boltzmann prior: ``python -m dvaepp.train``.

Without arguments it trains on the digits shipped with the package, tests the best weights and draws pictures.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from dvaepp.backend import AUTO, TORCH, Choice, choose, choose_again
from dvaepp.checkpoint import load
from dvaepp.command import INTERRUPTED, choose_device, console, device_name, parse, run
from dvaepp.config import PRESETS, Config, preset, scaled_intervals
from dvaepp.data import Dataset, names
from dvaepp.errors import ConfigError, NonFiniteError, RunError
from dvaepp.evaluate import evaluate, load_data, print_result, progress_bar, record_name
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import WHEREABOUTS, Trainer, load_best

PROG = "train"
_DEFAULT_PRESET = "digits"


@dataclass(frozen=True)
class Command:
    """Train a discrete VAE with a Boltzmann prior, test it, and draw what it learned.

    Hyper-parameters come from the preset; every flag below changes one of them.
    """

    preset: str = _DEFAULT_PRESET
    """Named configuration to start from; see --list."""
    list: bool = False
    """List the presets and stop."""
    out: Path | None = None
    """Run folder to create; by default runs/PRESET-DATE-TIME."""
    resume: Path | None = None
    """Go on with the run in this folder, exactly where its checkpoint stands."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is CUDA where there is a device and, with --resume, what the run was on."""
    backend: str = AUTO
    """Who samples the prior and smooths: torch, numba_cpu, numba_cuda, cupy_raw or numpy_oracle; auto is the fastest
    that can run and, with --resume, what the run was on."""
    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)


def main(arguments: Sequence[str]) -> int:
    """Train, test and draw; returns the exit code."""
    out = console()
    command = _read(arguments)
    if command.list:
        _print_presets(out)
        return 0
    if command.resume is None:
        device = choose_device(command.device)
        backend = choose(command.backend, device)
        config = _resolved(scaled_intervals(command.config, preset(command.preset)))
        dataset = load_data(config)
        trainer = Trainer(config, dataset, device, backend.name)
        path = command.out or Path("runs") / f"{command.preset}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = RunFolder.create(path, config, device, backend.name, fill=trainer.save)
        with folder.locked():
            return _go_on(trainer, folder, dataset, backend, out)
    folder = RunFolder.open(command.resume)
    with folder.locked():
        tensors, facts = load(folder.checkpoint)
        before = facts["device"]
        device = choose_device(before if command.device == "auto" else command.device)
        if device.type != before:
            out.print(f"the run was on {before}; on {device.type} it goes on with other random numbers")
        used = facts.get("backend")
        backend = choose_again(command.backend, used or AUTO, device)
        if used is None:
            out.print("the checkpoint is of an earlier version: its chains go on with other random numbers")
        elif used != backend.name:
            numbers = "other random numbers" if TORCH in (used, backend.name) else "the same random numbers"
            out.print(f"the run used the backend {used}; with {backend.name} its chains go on with {numbers}")
        config = _resolved(command.config)
        dataset = load_data(config)
        trainer = Trainer(config, dataset, device, backend.name)
        trainer.restore(folder, tensors, facts)
        folder.rewind_metrics(trainer.step)
        return _go_on(trainer, folder, dataset, backend, out)


def _go_on(trainer: Trainer, folder: RunFolder, dataset: Dataset, backend: Choice, out: Console) -> int:
    """Train what is left to train, test, draw; returns the exit code."""
    out.print(f"{dataset.name}: {dataset.provenance}")
    out.print(
        f"{len(dataset.train)} training, {len(dataset.valid)} validation, {len(dataset.test)} test images; "
        f"{device_name(trainer.device)}; run folder {folder.path}"
    )
    out.print(str(backend))
    try:
        done = trainer.finished or _train(trainer, folder, out)
    except BrokenPipeError:  # of our own output: see command.run
        raise
    except KeyboardInterrupt:  # the second of two, or one before the first iteration
        out.print(f"interrupted; go on from the last checkpoint with:\n  python -m dvaepp.train --resume {folder.path}")
        return INTERRUPTED
    except OSError as error:
        raise RunError(
            f"cannot write to {folder.path}: {error.strerror or error}; the last checkpoint is kept: make room and go "
            f"on with --resume {folder.path}"
        ) from error
    if not done:
        out.print(f"interrupted after iteration {trainer.step}, saved; go on with:")
        out.print(f"  python -m dvaepp.train --resume {folder.path}")
        return INTERRUPTED
    try:
        return _finish(trainer, folder, dataset, out)
    except KeyboardInterrupt:
        out.print("interrupted during the final test; training is complete and saved. Test again with:")
        out.print(f"  python -m dvaepp.train --resume {folder.path}")
        return INTERRUPTED


def _read(arguments: Sequence[str]) -> Command:
    """The command line, with defaults from the preset or, when resuming, from the run itself."""
    prog = "python -m dvaepp.train"
    resume = _peek(arguments, "--resume")
    if resume is None:
        named = _peek(arguments, "--preset")
        name = _DEFAULT_PRESET if named is None else named
        return parse(Command, arguments, prog, Command(preset=name, config=preset(name)))
    stored = RunFolder.open(Path(resume)).config()
    command = parse(Command, arguments, prog, Command(resume=Path(resume), config=stored))
    for flag in ("--preset", "--out"):
        if _peek(arguments, flag) is not None:
            raise ConfigError(f"{flag} makes no sense with --resume: the run in {resume} keeps its own")
    for flag, here, there in command.config.differences(stored):
        if flag not in WHEREABOUTS:
            raise RunError(
                f"--resume {resume}: the run has {flag} = {there}, not {here}; a run goes on with what it was "
                "started with: leave the flag out, or start a new run"
            )
    return command


def _peek(arguments: Sequence[str], flag: str) -> str | None:
    """Value of a flag before the command line is read in full: it decides the defaults of all others."""
    values = []
    for position, word in enumerate(arguments):
        if word == flag and position + 1 < len(arguments):
            values.append(arguments[position + 1])
        if word.startswith(f"{flag}="):
            values.append(word.removeprefix(f"{flag}="))
    if len(values) > 1:
        raise ConfigError(f"{flag} was given {len(values)} times; give it once")
    return values[0] if values else None


def _resolved(config: Config) -> Config:
    """Paths made absolute, so that the run can be resumed from another folder."""
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


class _Interrupts:
    """Turns SIGINT and SIGTERM into a request to stop after the iteration under way; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
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
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def _train(trainer: Trainer, folder: RunFolder, out: Console) -> bool:
    """Run the remaining iterations; False if interrupted (the state is saved then)."""
    with _Interrupts() as interrupts:
        from torch.utils.tensorboard import SummaryWriter  # costs a second: not for --help and mistyped flags

        writer = SummaryWriter(str(folder.tensorboard), purge_step=trainer.step + 1)
        with writer, progress_bar(out) as progress:
            total = trainer.config.optimisation.iterations
            task = progress.add_task("training", total=total, completed=trainer.step, terms="")
            started = time.perf_counter() - trainer.seconds
            live = ""
            try:
                while not trainer.finished and not interrupts.requested:
                    trainer.iterate()
                    trainer.seconds = time.perf_counter() - started
                    live = _report(trainer, folder, writer, out) or live
                    progress.update(task, completed=trainer.step, terms=live)
                if not trainer.finished:
                    trainer.save(folder)
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"{error}; the last good checkpoint is kept in {folder.path}: start anew with a lower "
                    f"--learning-rate than {trainer.config.optimisation.learning_rate:g}"
                ) from None
        return trainer.finished and not interrupts.requested


def _report(trainer: Trainer, folder: RunFolder, writer: Any, out: Console) -> str:
    """After an iteration: write, validate and save what is due; returns the live terms when they are new."""
    settings, step, last = trainer.config.evaluation, trainer.step, trainer.finished
    live = ""
    if step % settings.log_every == 0 or last:
        terms = trainer.drain_terms()
        _record(folder, writer, trainer, "train", terms)
        live = _live(terms)
    validated = step % settings.validate_every == 0 or last
    if validated:
        _validate(trainer, folder, writer, out)
    if validated or step % settings.checkpoint_every == 0:
        trainer.save(folder)
    return live


def _live(terms: dict[str, float]) -> str:
    return (
        f"ELBO {terms['elbo']:.2f}  reconstruction {terms['log_likelihood']:.2f}  KL {terms['kl']:.2f}  "
        f"log Z {terms['log_partition']:.2f}"
    )


def _validate(trainer: Trainer, folder: RunFolder, writer: Any, out: Console) -> None:
    validation = trainer.validate()
    better = trainer.save_best(folder, validation)
    _record(folder, writer, trainer, "valid", asdict(validation))
    out.print(
        f"iteration {trainer.step:>7}  validation -log p {-validation.log_marginal:8.3f}  "
        f"-ELBO {-validation.elbo:8.3f}  KL {validation.kl:7.3f}  "
        f"log Z {validation.log_partition:8.3f} ± {validation.log_partition_se:.3f}  "
        f"{trainer.seconds:6.0f} s{'  best' if better else ''}"
    )


def _record(folder: RunFolder, writer: Any, trainer: Trainer, kind: str, values: dict[str, float]) -> None:
    folder.append_metrics({"step": trainer.step, "seconds": round(trainer.seconds, 3), kind: values})
    for name, value in values.items():
        writer.add_scalar(f"{kind}/{name}", value, trainer.step)


def _finish(trainer: Trainer, folder: RunFolder, dataset: Dataset, out: Console) -> int:
    """Test the best weights, print the table, draw the pictures."""
    from dvaepp import pictures  # brings matplotlib: see _train

    config, device = trainer.config, trainer.device
    model, best = load_best(folder, config, dataset, device)
    record = evaluate(model, dataset, config, device, out, config.seed, trainer.backend)
    record["weights_of_step"] = best["step"]
    folder.write_record(record_name(config, config.seed), record)
    print_result(record, out)
    out.print(
        f"weights of iteration {best['step']} of {trainer.step} (best validation); "
        f"trained {trainer.seconds:.0f} s, tested {record['seconds']:.0f} s on {device_name(device)}"
    )
    with out.status("pictures ..."):
        binarisation_seed = config.data.binarisation_seed
        drawn = pictures.save_all(folder, model, dataset, binarisation_seed, config.seed, trainer.backend)
    out.print(f"pictures in {folder.path}: {', '.join(path.name for path in drawn)}")
    return 0


def _print_presets(out: Console) -> None:
    table = Table(title="presets of python -m dvaepp.train --preset NAME", title_justify="left")
    table.add_column("name")
    table.add_column("what")
    for name, entry in PRESETS.items():
        table.add_row(name, entry.about)
    out.print(table)


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
