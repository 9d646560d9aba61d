"""Training: one iteration, validation, and everything a run must remember to go on exactly where it stopped.

Several configurations that differ only in ``REPLICAS_MAY_DIFFER_IN`` are trained as one batched model: see
``dvaepp.replicas``. Each keeps its own batches, noise, chains, optimiser and run folder, all as if it were alone.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dvaepp import objective, replicas, samplers
from dvaepp.average import Average
from dvaepp.backend import TORCH
from dvaepp.batch_loss import BatchLoss, Step
from dvaepp.boltzmann import RBM
from dvaepp.bound import likelihood_of_all, posterior_base
from dvaepp.checkpoint import load, load_into, load_optimiser, optimiser_tensors, save, state_of
from dvaepp.config import SMOOTHED, Config
from dvaepp.control_variates import ControlVariates
from dvaepp.data.batches import TrainingImages, to_device
from dvaepp.data.dataset import Dataset, Pixels
from dvaepp.errors import ConfigError, NonFiniteError, RunError
from dvaepp.models import Model
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.models.hierarchical import HierarchicalVAE, Noise
from dvaepp.objective import Terms
from dvaepp.partition import Base, forward_estimate
from dvaepp.randomness import SMALLEST_UNIFORM, generator, named_seed
from dvaepp.run_folder import RunFolder
from dvaepp.samplers import GibbsSampler, Sampler
from dvaepp.score_objective import noise_shape
from dvaepp.smoothing import Smoothing, create
from dvaepp.world import World, collective
from reference.boltzmann_kl import group_slices
from reference.vocabulary import DomainError

#: Temperatures and chains of annealing for the rows of training terms, and for validation, where it must be good enough
#: to rank checkpoints; the final test uses the configured bracket.
_QUICK = (100, 128)
_VALIDATION = (300, 256)
#: The same for the balance of the groups' KL, in every iteration, and units of a side that are enumerated instead.
_BALANCE = (30, 64, 10)
#: Iterations between looks for non-finite terms where looking means waiting for the device.
_CHECK_EVERY_ON_DEVICE = 50

#: Beginnings of the names of the encoders' parameters, whose gradient's variance is logged.
ENCODERS = ("encoders.", "encoder.", "posteriors.")

#: What batched runs may differ in: everything else shapes the model or the course of an iteration.
REPLICAS_MAY_DIFFER_IN = ("seed", "learning_rate", "beta", "beta_end")


@dataclass(frozen=True)
class Validation:
    """Binary-limit results on the validation images, in nats; log Z by quick forward annealing, 0 if there is none."""

    log_marginal: float
    elbo: float
    reconstruction: float
    kl: float
    log_partition: float
    log_partition_se: float


class _Run:
    """What one of the runs has for itself: its batches, noise, prior samples, optimisers and best validation."""

    def __init__(self, config: Config, images: TrainingImages, device: torch.device, backend: str) -> None:
        self.config, self.images = config, images
        self.generator = generator(device, config.seed, "training")
        self.sampler: Sampler | None = None
        if config.model.prior == "rbm":
            n_side = config.model.latents // 2
            prior, seed = config.prior, named_seed(config.seed, "chains")
            self.sampler = samplers.create(prior.sampler, prior.chains, prior.sweeps, n_side, n_side, seed, backend)
            self.sampler.to(device)
        self.best: dict[str, Any] | None = None

    def optimise(self, leaves: Mapping[str, Tensor], controls: Mapping[str, Tensor]) -> None:
        """Make the optimisers of the run's share of the model's parameters and of the control variates'."""
        settings = self.config.optimisation
        decayed = [tensor for tensor in leaves.values() if tensor.ndim > 1]
        others = [tensor for tensor in leaves.values() if tensor.ndim <= 1]
        self.leaves = leaves
        self.optimiser = torch.optim.Adam(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, settings.adam_beta2),
            eps=settings.adam_epsilon,
            fused=True,
        )
        self.control_optimiser: torch.optim.Optimizer | None = None
        if controls:
            self.control_optimiser = torch.optim.Adam(
                list(controls.values()), lr=settings.learning_rate, betas=(0.9, settings.adam_beta2), fused=True
            )

    def set_rate(self, step: int) -> None:
        """Give the optimisers the learning rate of the step after ``step`` finished ones."""
        rate = self.config.optimisation.learning_rate_at(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.control_optimiser is not None:
            for group in self.control_optimiser.param_groups:
                group["lr"] = rate * self.config.optimisation.control_rate

    def update(self) -> None:
        """Follow the gradients, clipped to the configured norm."""
        largest = self.config.optimisation.gradient_clip
        if largest is not None:
            torch.nn.utils.clip_grad_norm_(list(self.leaves.values()), largest)
        self.optimiser.step()
        if self.control_optimiser is not None:
            self.control_optimiser.step()

    def gradient_variance(self) -> float:
        """Mean variance of the entries of the encoders' gradient, over batches and noise, from Adam's averages.

        After n steps m is an average of gradients with weights in proportion to b^k, whose squares sum to
        w = (1 - b)/(1 + b) (1 + b^n)/(1 - b^n), so E[m^2] = mean^2 + w variance; v averages their squares. So the
        variance is (v - m^2)/(1 - w). It looks back some 1/(1 - beta2) steps, over which the gradient's mean is taken
        as constant. 0 before there are two gradients.
        """
        total, count = 0.0, 0
        for name, leaf in self.leaves.items():
            state = self.optimiser.state.get(leaf)
            if name.startswith(ENCODERS) and state:
                b1, b2 = self.optimiser.defaults["betas"]
                n = float(state["step"])
                if n < 2:
                    return 0.0
                mean, square = state["exp_avg"] / (1 - b1**n), state["exp_avg_sq"] / (1 - b2**n)
                squared_weights = (1 - b1) / (1 + b1) * (1 + b1**n) / (1 - b1**n)
                total += float((square - mean * mean).sum(dtype=torch.float64)) / (1 - squared_weights)
                count += leaf.numel()
        return max(0.0, total / count) if count else 0.0


#: Part of a batch: its share of the rows, its images and its noise.
Piece = tuple[float, Tensor, Tensor | Noise]


class Trainer:
    """A model being trained, or several as one; all its state is in ``save`` and ``restore``.

    Raises   ConfigError for configurations that cannot be trained as one.
    """

    def __init__(
        self,
        configs: Config | Sequence[Config],
        dataset: Dataset,
        device: torch.device,
        backend: str = TORCH,
        world: World | None = None,
    ) -> None:
        self.configs = (configs,) if isinstance(configs, Config) else tuple(configs)
        check_replicas(self.configs)
        self.config = config = self.configs[0]  # whatever they share
        self.device, self.backend = device, backend
        self.world = World() if world is None else world
        self._rows = _shares(config, self.world)
        self.data_digest = dataset.digest
        batch_size, n_images = config.optimisation.batch_size, len(dataset.train)
        if batch_size > n_images:
            raise ConfigError(f"batch_size must not exceed the {n_images} training images; got {batch_size}")
        images = TrainingImages(dataset, device, config.seed, config.hierarchy.likelihood == "bernoulli")
        self.valid = to_device(images_of(dataset, "valid", config), device)
        self.runs = [_Run(own, images.reseeded(own.seed), device, backend) for own in self.configs]
        n_pixels = dataset.train.shape[1]
        models = [build_model(own, dataset) for own in self.configs]
        train_mean = images.mean().cpu()
        for model in models:
            model.initialise(train_mean)
        self.model = replicas.stack(models).to(device)
        self.controls = replicas.stack([_build_controls(own, n_pixels) for own in self.configs]).to(device)
        self._leaves = replicas.Leaves(self.model, self.n_replicas)
        self._control_leaves = replicas.Leaves(self.controls, self.n_replicas)
        for run, leaves, controls in zip(self.runs, self._leaves.of, self._control_leaves.of, strict=True):
            run.optimise(leaves, controls)
        for run in self.runs:
            if isinstance(run.sampler, GibbsSampler) and self.world.size > 1:
                run.sampler.own = self.world.share(config.prior.chains, "chains")
        self._machines = self._own_machines()
        if isinstance(self.model, HierarchicalVAE) and config.execution.compile:
            self.model.compile_networks()
        step = Step(config, self.model, self.controls)
        self._step: Callable[..., BatchLoss] = step
        if self.world.size > 1:
            # Of kernels of 1x1, where strides say nothing; and of the name that all our versions of torch know.
            for said in ("Grad strides do not match bucket view strides", "`broadcast_buffers` is deprecated"):
                warnings.filterwarnings("ignore", message=said)
            self._step = DistributedDataParallel(step, gradient_as_bucket_view=True, broadcast_buffers=False)
        decay = config.optimisation.ema
        self.average = Average(self.model, decay) if decay > 0 else None
        self.step = 0
        self.seconds = 0.0
        self._names = objective.term_names(config.hierarchy.local_groups if config.convolutional else 0)
        self._sums = torch.zeros((len(self._names), self.n_replicas), dtype=torch.float64, device=device)
        self._count = 0
        self._first_bad = torch.full((len(self._names), self.n_replicas), -1, dtype=torch.int64, device=device)

    @property
    def n_replicas(self) -> int:
        """How many runs are trained as one."""
        return len(self.configs)

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.step >= self.config.optimisation.iterations

    @property
    def _tested(self) -> Model:
        """The model that is validated and kept: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def model_of(self, index: int) -> Model:
        """The model of one of the runs as it is tested: a copy, if there are several, or if it is compiled.

        What is compiled is compiled for the batches of training; copies are plain.
        """
        if self.n_replicas > 1:
            return replicas.replica(self._tested, index)
        compiled = self.config.execution.compile and self.average is None
        return copy.deepcopy(self._tested) if compiled else self._tested

    def iterate(self) -> None:
        """One iteration: advance the prior's samplers, draw a batch, follow the gradient.

        Raises   NonFiniteError when a term of the objective is NaN or infinite.
        """
        config, optimisation = self.config, self.config.optimisation
        for run in self.runs:
            run.set_rate(self.step)
        x = self._together([run.images.batch(self.step, optimisation.batch_size, run.generator) for run in self.runs])
        noise = self._noise(x.shape[-2])
        if isinstance(noise, Noise):  # all processes draw for the whole batch
            x, noise = x[self._rows], noise.of(self._rows)
        with self._divergence_named():
            samples = self._prior_samples() if config.model.prior == "rbm" else None
            pieces = list(self._pieces(x, noise))
            group_kl = self._group_kl(pieces, samples)
        self._leaves.zero_grad()
        values = torch.zeros_like(self._sums)
        for count, (share, piece, own_noise) in enumerate(pieces, start=1):
            with self._without_exchange() if count < len(pieces) else contextlib.nullcontext():
                values += share * self._backward(share, piece, own_noise, samples, group_kl)
        values = self.world.mean(values)
        self._look_at(values)
        for run in self.runs:
            run.update()
        if self.average is not None:
            self.average.update(self.model, self.step)
        self._sums += values
        self._count += 1
        self.step += 1

    def _backward(
        self,
        share: float,
        x: Tensor,
        noise: Tensor | Noise,
        samples: tuple[Tensor, Tensor] | None,
        group_kl: Callable[[Terms], Tensor],
    ) -> Tensor:
        """Add a piece's share to the gradients; returns the values of its terms, (n_terms, R) float64."""
        kl_weight = self.config.optimisation.kl_weight_at(self.step)
        with self._divergence_named(), self._compiler_named():
            terms, loss, control_loss = self._step(x, noise, self._smoothing(), samples, kl_weight, group_kl)
        values = torch.stack(list(terms.named().values())).detach().double().view(len(self._names), -1)
        if control_loss is not None:
            parameters = list(self.controls.parameters())
            self._control_leaves.set_grad(torch.autograd.grad(control_loss.sum(), parameters, retain_graph=True))
        # Of several processes the last piece's gradients are exchanged here.
        with collective(), self._compiler_named():
            (share * loss.sum()).backward()
        return values

    def _group_kl(self, pieces: Sequence[Piece], samples: tuple[Tensor, Tensor] | None) -> Callable[[Terms], Tensor]:
        """What tells the groups' KL over the batch, for their balance, given the terms of a piece.

        A batch in several pieces is gone through beforehand: each piece has but its own terms.
        """
        config, model = self.config, self.model
        weight = config.optimisation.kl_weight_at(self.step)
        if not isinstance(model, HierarchicalVAE) or not config.hierarchy.balancing or weight == 1:
            return lambda terms: terms.group_kl(0.0)  # all weigh the same, whatever they are
        log_partition = self.log_partition_for_balance() if isinstance(model.prior, RBM) else 0.0
        if len(pieces) == 1:
            return lambda terms: self.world.mean(terms.group_kl(log_partition))
        with torch.no_grad():
            kls = [
                share
                * objective.hierarchical_terms(
                    model, piece, noise, self._smoothing(), config.model.estimator, samples
                ).group_kl(log_partition)
                for share, piece, noise in pieces
                if isinstance(noise, Noise)
            ]
        whole = self.world.mean(torch.stack(kls).sum(0))
        return lambda terms: whole

    def log_partition_for_balance(self) -> float:
        """log Z of the prior as the balance of the groups' KL takes it: quickly, for every iteration wants it."""
        return self._log_partition(self.runs[0], self._machines[0], *_BALANCE)

    def _look_at(self, values: Tensor) -> None:
        """Remember where a term ceased to be finite, and raise NonFiniteError where looking costs nothing."""
        bad = ~values.isfinite() & (self._first_bad < 0)
        self._first_bad[bad] = self.step + 1
        if self.device.type == "cpu" or (self.step + 1) % _CHECK_EVERY_ON_DEVICE == 0:
            self.check_finite()

    def _without_exchange(self) -> AbstractContextManager[None]:
        """Gradients stay with their process: they are exchanged once a batch."""
        return self._step.no_sync() if isinstance(self._step, DistributedDataParallel) else contextlib.nullcontext()

    @contextlib.contextmanager
    def _divergence_named(self) -> Iterator[None]:
        """Say what it means when a backend that looks at what it is given refuses it: the last update was too large."""
        try:
            yield
        except DomainError as error:
            self._check_weights()  # knows whose they are
            raise NonFiniteError(f"the model became NaN or infinite at iteration {self.step + 1}: {error}") from error

    @contextlib.contextmanager
    def _compiler_named(self) -> Iterator[None]:
        """Say in one line why torch.compile, if it was asked for, cannot do its work on this machine."""
        try:
            yield
        except RuntimeError as error:
            if not self.config.execution.compile:
                raise
            from torch._dynamo.exc import TorchDynamoException  # costs a second: for who compiles alone

            if not isinstance(error, TorchDynamoException):
                raise
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"compile cannot work on this machine: {reason}; leave --compile out") from error

    def _pieces(self, x: Tensor, noise: Tensor | Noise) -> Iterator[Piece]:
        """The batch in the configured number of pieces: each one's share of the rows, its images and its noise."""
        if not isinstance(noise, Noise):
            yield 1.0, x, noise
            return
        for rows in torch.arange(len(x)).chunk(self.config.optimisation.accumulate):
            piece = slice(int(rows[0]), int(rows[-1]) + 1)
            yield len(rows) / len(x), x[piece], noise.of(piece)

    def _smoothing(self) -> Smoothing:
        """The smoothing at this iteration's sharpness; where replicas differ in it, by torch: kernels take but one."""
        done = self.step / self.config.optimisation.iterations
        kind, betas = self.config.model.smoothing, [own.model.beta_at(done) for own in self.configs]
        if len(set(betas)) == 1:
            return create(kind, betas[0], self.backend)
        return create(kind, torch.tensor(betas, dtype=torch.float64, device=self.device)[:, None, None])

    def _prior_samples(self) -> tuple[Tensor, Tensor]:
        """The samplers' next states, (..., L, N1) and (..., L, N2)."""
        drawn = []
        for run, machine in zip(self.runs, self._machines, strict=True):
            assert run.sampler is not None
            drawn.append(run.sampler.sample(machine))
        return self._together([z1 for z1, _ in drawn]), self._together([z2 for _, z2 in drawn])

    def _noise(self, n_rows: int) -> Tensor | Noise:
        """What an iteration's draws of so many images are made from."""
        if isinstance(self.model, HierarchicalVAE):
            return self.model.noise(n_rows, self.runs[0].generator)
        settings = self.config.model
        shape: tuple[int, ...] = (n_rows, settings.latents)
        if settings.estimator not in SMOOTHED:
            shape = noise_shape(settings.estimator, n_rows, settings.latents, settings.n_samples)
        own = [torch.rand(shape, generator=run.generator, device=self.device) for run in self.runs]
        return self._together(own).clamp_min_(SMALLEST_UNIFORM)

    def _together(self, parts: Sequence[Tensor]) -> Tensor:
        """One tensor for all runs: (..., B, N) each -> (..., R, B, N), or that of the only run."""
        return parts[0] if len(parts) == 1 else torch.stack(list(parts), dim=-3)

    def _own_machines(self) -> list[RBM]:
        """The RBM of each run, on the memory of the batched one."""
        if self.config.model.prior != "rbm":
            return []
        prior = self.model.prior
        assert isinstance(prior, RBM)
        if self.n_replicas == 1:
            return [prior]
        return [RBM.of(*(parameter[r] for parameter in prior.detached)) for r in range(self.n_replicas)]

    def check_finite(self) -> None:
        """Raise NonFiniteError if any term so far was NaN or infinite."""
        found = [
            (step, name, own.seed)
            for name, row in zip(self._names, self._first_bad.tolist(), strict=True)
            for own, step in zip(self.configs, row, strict=True)
            if step > 0
        ]
        if found:
            step, name, seed = min(found)
            raise NonFiniteError(f"the term {name} became NaN or infinite at iteration {step}{self._which(seed)}")

    def _check_weights(self) -> None:
        """Raise NonFiniteError if a parameter of the model or of the control variates is NaN or infinite."""
        for name, parameter in (*self.model.named_parameters(), *self.controls.named_parameters()):
            finite = parameter.isfinite()
            if not finite.all():
                first = int(finite.view(self.n_replicas, -1).all(1).logical_not().nonzero()[0])
                raise NonFiniteError(
                    f"the weights {name} became NaN or infinite at iteration {self.step}"
                    f"{self._which(self.configs[first].seed)}"
                )

    def _which(self, seed: int) -> str:
        return f" (replica of seed {seed})" if self.n_replicas > 1 else ""

    def drain_terms(self) -> list[dict[str, float]]:
        """Means of each run's training terms since the last call, in nats, with log Z by quick annealing at their end.

        While the terms are averaged the energy's level moves, and log Z with it. What hardly moves is the prior's
        entropy, log Z + E_p[E]; so KL = (cross_entropy - E_p[E]) - entropy + prior's entropy, the bracket averaged and
        the prior's entropy taken at the end. E_p[E] is the mean over the sampler's last states.
        """
        self.check_finite()
        self._check_weights()
        self._gather_chains()
        averages = (self._sums / max(1, self._count)).T.tolist()
        self._sums.zero_()
        self._count = 0
        rows = []
        for index, run in enumerate(self.runs):
            means = dict(zip(self._names, averages[index], strict=True))
            surrogate = means.pop("log_partition_surrogate")
            kl, log_z = means["cross_entropy"] - means["entropy"], None
            kl += sum(value for name, value in means.items() if name.startswith(objective.LOCAL_KL))
            if run.sampler is not None:
                log_z, prior_entropy = self._prior_entropy(run, self._machines[index])
                kl += surrogate + prior_entropy
            settings = run.config.optimisation
            rows.append(
                {
                    "elbo": means["log_likelihood"] - kl,
                    "kl": kl,
                    **means,
                    **({} if log_z is None else {"log_partition": log_z}),
                    "gradient_variance": run.gradient_variance(),
                    "kl_weight": settings.kl_weight_at(self.step),
                    "learning_rate": settings.learning_rate_at(self.step),
                }
            )
        return rows

    def _prior_entropy(self, run: _Run, machine: RBM) -> tuple[float, float]:
        """log Z by quick annealing and the prior's entropy by the sampler's last states, in nats."""
        assert run.sampler is not None
        log_z = self._log_partition(run, machine, *_QUICK)
        with torch.no_grad():
            return log_z, log_z - float(objective.log_partition_surrogate(machine, run.sampler.z1, run.sampler.z2))

    def _log_partition(
        self, run: _Run, machine: RBM, n_temperatures: int, n_chains: int, enumerated_up_to: int | None = None
    ) -> float:
        """log Z by forward annealing from the units' means in the sampler's last states; exact for a small machine."""
        assert run.sampler is not None
        own = run.sampler.own if isinstance(run.sampler, GibbsSampler) else None
        states = [side if own is None else side[own] for side in (run.sampler.z1, run.sampler.z2)]
        means = self.world.mean(torch.cat([side.mean(0) for side in states]))
        base = Base.fitted(means, machine.n1)
        seed = named_seed(run.config.seed, f"log Z at {self.step}")
        found = forward_estimate(machine, base, n_temperatures, n_chains, seed, self.backend, enumerated_up_to)
        return found.log_partition

    def validate(self) -> list[Validation]:
        """Evaluate each run's current weights on the validation images; the noise depends on the run's seed alone."""
        return [self._validate(self.model_of(index), run.config) for index, run in enumerate(self.runs)]

    def _validate(self, model: Model, config: Config) -> Validation:
        noise = generator(self.device, config.seed, "validation")
        model.eval()
        log_z, log_z_se = 0.0, 0.0
        if isinstance(model.prior, RBM):
            base = posterior_base(model, self.valid, noise)
            seed = named_seed(config.seed, "log Z in validation")
            estimate = forward_estimate(model.prior, base, *_VALIDATION, seed, self.backend)
            log_z, log_z_se = estimate.log_partition, estimate.standard_error
        result = likelihood_of_all(
            model, self.valid, config.evaluation.valid_importance, config.seed, "validation of images", self.world
        )
        model.train()
        elbo = float(result.log_weight.mean()) - log_z
        reconstruction = float(result.reconstruction.mean())
        validation = Validation(
            log_marginal=float(result.log_marginal.mean()) - log_z,
            elbo=elbo,
            reconstruction=reconstruction,
            kl=reconstruction - elbo,
            log_partition=log_z,
            log_partition_se=log_z_se,
        )
        for name, value in asdict(validation).items():
            if not np.isfinite(value):
                raise NonFiniteError(
                    f"the validation's {name} became NaN or infinite at iteration {self.step}{self._which(config.seed)}"
                )
        return validation

    def save(self, folders: Sequence[RunFolder]) -> None:
        """Write each run's checkpoint, as if it were alone. Either all of them are replaced, or none.

        Raises   NonFiniteError rather than overwrite a good checkpoint by a bad one; RunError if it cannot be written.
        """
        self.check_finite()
        self._check_weights()
        self._gather_chains()
        if not self.world.first:
            return
        if self.n_replicas == 1:
            save(folders[0].checkpoint, *self._checkpoint(0))
            return
        for index, folder in enumerate(folders):
            save(folder.next_checkpoint, *self._checkpoint(index))
        for folder in folders:
            folder.take_next_checkpoint()

    def save_one(self, index: int, folder: RunFolder) -> None:
        """Write the checkpoint of one of the runs.

        Raises   RunError if it cannot be written.
        """
        save(folder.checkpoint, *self._checkpoint(index))

    def _checkpoint(self, index: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of one of the runs, as ``checkpoint.save`` takes them."""
        run = self.runs[index]
        model, controls = self._states(index)
        tensors = {
            **{f"model.{name}": tensor for name, tensor in model.items()},
            **{f"controls.{name}": tensor for name, tensor in controls.items()},
            **optimiser_tensors(run.optimiser, "optimiser."),
            "generator": run.generator.get_state(),
            "sums": self._sums[:, index],
        }
        if run.sampler is not None:
            tensors |= {f"chains.{name}": tensor for name, tensor in run.sampler.state_dict().items()}
        if run.control_optimiser is not None:
            tensors |= optimiser_tensors(run.control_optimiser, "control_optimiser.")
        if self.average is not None:
            average = replicas.states_of(self.average.model, self.n_replicas)[index]
            tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
        facts = {
            "step": self.step,
            "count": self._count,
            "seconds": self.seconds,
            "best": run.best,
            "device": self.device.type,
            "backend": self.backend,
            "config": run.config.to_dict(),
            "data_digest": self.data_digest,
        }
        return tensors, facts

    def restore(self, folders: Sequence[RunFolder], loaded: Sequence[tuple[dict[str, Tensor], dict[str, Any]]]) -> None:
        """Go back to the runs' checkpoints, as ``checkpoint.load`` has read them.

        Raises   RunError if one is of another configuration or other images, or they are not of one iteration.
        """
        steps = [facts["step"] for _, facts in loaded]
        if len(set(steps)) > 1:
            raise RunError(
                f"{folders[0].path.parent}: its runs are trained as one and must stand at one iteration; they stand at "
                f"{', '.join(map(str, steps))}: resume each alone"
            )
        models, controls, averages = [], [], []
        for index, (folder, (tensors, facts)) in enumerate(zip(folders, loaded, strict=True)):
            run = self.runs[index]
            _check_same(folder, run.config, self.data_digest, facts)
            where = folder.checkpoint
            own_model, own_controls = self._states(index)
            models.append(state_of(own_model, tensors, "model.", where))
            controls.append(state_of(own_controls, tensors, "controls.", where))
            if self.average is not None:
                averages.append(state_of(own_model, tensors, "average.", where))
            if run.sampler is not None:
                # Checkpoints from before backends have chains, but not their step: any not used yet will do.
                sweeps_done = torch.tensor(facts["step"] * run.config.prior.sweeps)
                load_into(run.sampler, {"chains.step": sweeps_done, **tensors}, "chains.", where)
            load_optimiser(run.optimiser, tensors, "optimiser.")
            if run.control_optimiser is not None:
                load_optimiser(run.control_optimiser, tensors, "control_optimiser.")
            if facts["device"] == self.device.type:  # a CPU's generator state means nothing to a GPU's, and vice versa
                run.generator.set_state(tensors["generator"])
            else:
                run.generator = generator(self.device, run.config.seed, f"training from {facts['step']}")
            self._sums[:, index] = tensors["sums"].to(self.device)
            run.best = facts["best"]
        replicas.load_states(self.model, models)
        replicas.load_states(self.controls, controls)
        if self.average is not None:
            replicas.load_states(self.average.model, averages)
        facts = loaded[0][1]
        self._count, self.step = facts["count"], facts["step"]
        self.seconds = max(facts["seconds"] for _, facts in loaded)

    def _gather_chains(self) -> None:
        """Give every process all chains; each has carried on its own ones."""
        for run in self.runs:
            if isinstance(run.sampler, GibbsSampler) and run.sampler.own is not None:
                for states in (run.sampler.z1, run.sampler.z2):
                    states.copy_(torch.cat(self.world.gather(states[run.sampler.own].cpu())))

    def _states(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        models = replicas.states_of(self.model, self.n_replicas)
        return models[index], replicas.states_of(self.controls, self.n_replicas)[index]

    def save_best(self, folders: Sequence[RunFolder], validations: Sequence[Validation]) -> list[bool]:
        """Keep each run's current weights if no validation of its was better so far; says which were kept."""
        states = replicas.states_of(self._tested, self.n_replicas)
        better = []
        for run, folder, validation, state in zip(self.runs, folders, validations, states, strict=True):
            if run.best is not None and validation.log_marginal <= run.best["log_marginal"]:
                better.append(False)
                continue
            self._check_weights()
            run.best = {"step": self.step, **asdict(validation)}
            better.append(True)
            if not self.world.first:
                continue
            tensors = {f"model.{name}": tensor for name, tensor in state.items()}
            save(folder.best, tensors, {**run.best, "config": run.config.to_dict(), "data_digest": self.data_digest})
        return better


def _shares(config: Config, world: World) -> slice:
    """The rows of a batch that are this process's.

    Raises   ConfigError for what several processes cannot train.
    """
    if world.size > 1 and not config.convolutional:
        raise ConfigError(
            f"network {config.model.network} is trained by one process, for batches are normalised as a whole; got "
            f"{world.size}: train several seeds by --replicas, or cells by python -m dvaepp.experiment --jobs"
        )
    return world.share(config.optimisation.batch_size, "batch_size")


def images_of(dataset: Dataset, split: str, config: Config) -> Pixels:
    """The images of a split as the configured likelihood takes them: binarised once, or as they are."""
    if config.hierarchy.likelihood == "bernoulli":
        return dataset.binarised_split(split, config.data.binarisation_seed)
    pixels: Pixels = getattr(dataset, split)
    return pixels


def check_replicas(configs: Sequence[Config]) -> None:
    """Raise ConfigError unless the configurations can be trained as one model."""
    if not configs:
        raise ConfigError("replicas must be at least 1; got none")
    if len(configs) > 1 and configs[0].convolutional:
        raise ConfigError(
            f"replicas must be 1 for network convolutional, which fills a device by itself; got {len(configs)}: train "
            "them one by one"
        )
    for other in configs[1:]:
        for name, here, there in configs[0].differences(other):
            if name not in REPLICAS_MAY_DIFFER_IN:
                raise ConfigError(
                    f"replicas may differ in {', '.join(REPLICAS_MAY_DIFFER_IN)} alone; {name} is {here} and {there}: "
                    "train them one by one"
                )
    seen: list[Config] = []
    for config in configs:
        if config in seen:
            raise ConfigError(f"replicas must differ; two have seed {config.seed} and all else alike")
        seen.append(config)


class Kept(NamedTuple):
    """What ``best.safetensors`` holds."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def load_best(run: RunFolder, config: Config, dataset: Dataset, device: torch.device) -> tuple[Model, dict[str, Any]]:
    """The model of the best validation, in evaluation mode, with the facts of that validation.

    Raises   RunError if there is none, or it is damaged, of another configuration or trained on other images.
    """
    return best_model(config, dataset, device, read_best(run, config, dataset))


def read_best(run: RunFolder, config: Config, dataset: Dataset) -> Kept:
    """The weights of the best validation and its facts.

    Raises   as ``load_best``.
    """
    if not run.best.exists():
        raise RunError(f"{run.path} has no best.safetensors yet: no validation was reached; go on with --resume")
    tensors, facts = load(run.best)
    _check_same(run, config, dataset.digest, facts)
    return Kept(run.best, tensors, facts)


def best_model(config: Config, dataset: Dataset, device: torch.device, kept: Kept) -> tuple[Model, dict[str, Any]]:
    """The model of these weights in evaluation mode, with their facts.

    Raises   RunError if they are of another model.
    """
    model = build_model(config, dataset)
    load_into(model, kept.tensors, "model.", kept.path)
    return model.to(device).eval(), kept.facts


#: Where the images lie may change between training and what comes after; that they are the same is seen by digest.
WHEREABOUTS = ("data", "data_dir")


def _check_same(run: RunFolder, config: Config, data_digest: str, facts: Mapping[str, Any]) -> None:
    """Raise RunError unless the facts are of this configuration and these images."""
    for name, here, there in config.differences(Config.from_dict(facts["config"])):
        if name not in WHEREABOUTS:
            raise RunError(f"{run.path}: its checkpoint is of another configuration: {name} is {there}, not {here}")
    if facts["data_digest"] != data_digest:
        raise RunError(f"{run.path}: it was trained on other images than those given; see --data and --data-dir")


def build_model(config: Config, dataset: Dataset) -> Model:
    """The configured model of such images with its initial weights, which depend on the seed alone.

    Raises   ConfigError for images that do not go with the model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(config.seed, "weights"))
        settings = config.model
        if config.convolutional:
            shape, channels = dataset.image_shape, dataset.channels
            if config.hierarchy.likelihood == "logistic-mixture" and dataset.levels == 1:
                raise ConfigError(
                    f"likelihood logistic-mixture is for images of 256 levels; those of {dataset.name} are binary: use "
                    "--likelihood bernoulli"
                )
            return HierarchicalVAE(shape, channels, settings, config.hierarchy, config.execution)
        if dataset.channels > 1:
            raise ConfigError(
                f"network {settings.network} is for images of one channel; {dataset.name} has {dataset.channels}: use "
                "network convolutional with likelihood logistic-mixture"
            )
        return DiscreteVAE(
            dataset.train.shape[1],
            settings.latents,
            settings.groups,
            settings.hidden_sizes,
            settings.batch_norm,
            settings.prior == "directed",
        )


def _build_controls(config: Config, n_pixels: int) -> ControlVariates:
    """The control variates of the configured estimator with their initial weights; none for most estimators."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(config.seed, "control variates"))
        groups = group_slices(config.model.latents, config.model.groups)
        return ControlVariates(config.model.estimator, n_pixels, groups)
