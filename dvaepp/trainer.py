"""Training: one iteration, validation, and everything a run must remember to go on exactly where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvaepp import objective
from dvaepp.backend import TORCH
from dvaepp.bound import likelihood_of_all, posterior_base
from dvaepp.checkpoint import load, load_into, load_optimiser, optimiser_tensors, save
from dvaepp.config import Config
from dvaepp.data.batches import TrainingImages, to_device
from dvaepp.data.dataset import Dataset
from dvaepp.errors import ConfigError, NonFiniteError, RunError
from dvaepp.gibbs import PersistentChains
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.partition import Base, forward_estimate
from dvaepp.randomness import generator, named_seed
from dvaepp.run_folder import RunFolder
from dvaepp.smoothing import OverlappingExponential
from reference.vocabulary import DomainError

_TERMS = tuple(field.name for field in fields(objective.Terms))

#: Temperatures and chains of annealing for the rows of training terms, and for validation, where it must be good enough
#: to rank checkpoints; the final test uses the configured bracket.
_QUICK = (100, 128)
_VALIDATION = (300, 256)
#: Iterations between looks for non-finite terms where looking means waiting for the device.
_CHECK_EVERY_ON_DEVICE = 50


@dataclass(frozen=True)
class Validation:
    """Binary-limit results on the validation images, in nats; log Z by quick forward annealing."""

    log_marginal: float
    elbo: float
    reconstruction: float
    kl: float
    log_partition: float
    log_partition_se: float


class Trainer:
    """A model being trained; all its state is in ``save`` and ``restore``."""

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, backend: str = TORCH) -> None:
        self.config, self.device, self.backend = config, device, backend
        self.data_digest = dataset.digest
        batch_size, n_images = config.optimisation.batch_size, len(dataset.train)
        if batch_size > n_images:
            raise ConfigError(f"batch_size must not exceed the {n_images} training images; got {batch_size}")
        self.images = TrainingImages(dataset, device, config.seed)
        self.valid = to_device(dataset.binarised_split("valid", config.data.binarisation_seed), device)
        self.model = build_model(config, dataset.train.shape[1]).to(device)
        self.model.initialise(self.images.mean())
        self.generator = generator(device, config.seed, "training")
        n_side = config.model.latents // 2
        chains_seed = named_seed(config.seed, "chains")
        self.chains = PersistentChains(config.prior.chains, n_side, n_side, chains_seed).to(device)
        self.optimiser = _adam(self.model, config)
        self.smoothing = OverlappingExponential(config.model.beta, backend)
        self.step = 0
        self.seconds = 0.0
        self.best: dict[str, Any] | None = None
        self._sums = torch.zeros(len(_TERMS), dtype=torch.float64, device=device)
        self._count = 0
        self._first_bad = torch.full((len(_TERMS),), -1, dtype=torch.int64, device=device)

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.step >= self.config.optimisation.iterations

    def iterate(self) -> None:
        """One iteration: advance the chains, draw a batch, follow the gradient.

        Raises   NonFiniteError when a term of the objective is NaN or infinite.
        """
        optimisation, prior = self.config.optimisation, self.model.prior
        for group in self.optimiser.param_groups:
            group["lr"] = optimisation.learning_rate_at(self.step)
        x = self.images.batch(self.step, optimisation.batch_size, self.generator)
        rho = torch.rand((len(x), self.model.n_latents), generator=self.generator, device=self.device)
        try:
            self.chains.run(prior, self.config.prior.sweeps, self.backend)
            terms = objective.terms(self.model, x, rho, self.smoothing, self.chains.z1, self.chains.z2)
        except DomainError as error:  # from a backend that looks at what it is given: the last update was too large
            raise NonFiniteError(f"the model became NaN or infinite at iteration {self.step + 1}: {error}") from error
        with torch.no_grad():
            values = torch.stack(list(terms.named().values())).double()
            bad = ~values.isfinite() & (self._first_bad < 0)
            self._first_bad[bad] = self.step + 1
        if self.device.type == "cpu" or (self.step + 1) % _CHECK_EVERY_ON_DEVICE == 0:
            self.check_finite()
        self.optimiser.zero_grad(set_to_none=True)
        terms.loss(optimisation.kl_weight_at(self.step)).backward()
        self.optimiser.step()
        self._sums += values
        self._count += 1
        self.step += 1

    def check_finite(self) -> None:
        """Raise NonFiniteError if any term so far was NaN or infinite."""
        first = self._first_bad.tolist()
        found = [(step, name) for step, name in zip(first, _TERMS, strict=True) if step > 0]
        if found:
            step, name = min(found)
            raise NonFiniteError(f"the term {name} became NaN or infinite at iteration {step}")

    def _check_weights(self) -> None:
        for name, parameter in self.model.named_parameters():
            if not parameter.isfinite().all():
                raise NonFiniteError(f"the weights {name} became NaN or infinite at iteration {self.step}")

    def drain_terms(self) -> dict[str, float]:
        """Means of the training terms since the last call, in nats, with log Z by quick annealing at their end.

        While the terms are averaged the energy's level moves, and log Z with it. What hardly moves is the prior's
        entropy, log Z + E_p[E]; so KL = (cross_entropy - E_p[E]) - entropy + prior's entropy, the bracket averaged and
        the prior's entropy taken at the end. E_p[E] is the mean over the persistent chains.
        """
        self.check_finite()
        self._check_weights()
        means = dict(zip(_TERMS, (self._sums / max(1, self._count)).tolist(), strict=True))
        self._sums.zero_()
        self._count = 0
        prior, chains = self.model.prior, self.chains
        base = Base.fitted(torch.cat([chains.z1.mean(0), chains.z2.mean(0)]), prior.n1)
        seed = named_seed(self.config.seed, f"log Z at {self.step}")
        log_z = forward_estimate(prior, base, *_QUICK, seed, self.backend).log_partition
        with torch.no_grad():
            prior_entropy = log_z - float(objective.log_partition_surrogate(prior, chains.z1, chains.z2))
        surrogate = means.pop("log_partition_surrogate")
        kl = means["cross_entropy"] + surrogate - means["entropy"] + prior_entropy
        return {
            "elbo": means["log_likelihood"] - kl,
            "kl": kl,
            **means,
            "log_partition": log_z,
            "kl_weight": self.config.optimisation.kl_weight_at(self.step),
            "learning_rate": self.config.optimisation.learning_rate_at(self.step),
        }

    def validate(self) -> Validation:
        """Evaluate the current weights on the validation images; the noise depends on the seed alone."""
        noise = generator(self.device, self.config.seed, "validation")
        self.model.eval()
        prior = self.model.prior
        base = posterior_base(self.model, self.valid, noise)
        seed = named_seed(self.config.seed, "log Z in validation")
        log_z = forward_estimate(prior, base, *_VALIDATION, seed, self.backend)
        result = likelihood_of_all(self.model, self.valid, self.config.evaluation.valid_importance, noise)
        self.model.train()
        elbo = float(result.log_weight.mean()) - log_z.log_partition
        reconstruction = float(result.reconstruction.mean())
        validation = Validation(
            log_marginal=float(result.log_marginal.mean()) - log_z.log_partition,
            elbo=elbo,
            reconstruction=reconstruction,
            kl=reconstruction - elbo,
            log_partition=log_z.log_partition,
            log_partition_se=log_z.standard_error,
        )
        for name, value in asdict(validation).items():
            if not np.isfinite(value):
                raise NonFiniteError(f"the validation's {name} became NaN or infinite at iteration {self.step}")
        return validation

    def save(self, run: RunFolder) -> None:
        """Write the checkpoint.

        Raises   NonFiniteError rather than overwrite a good checkpoint by a bad one; RunError if it cannot be written.
        """
        self.check_finite()
        self._check_weights()
        tensors = {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"chains.{name}": tensor for name, tensor in self.chains.state_dict().items()},
            **optimiser_tensors(self.optimiser, "optimiser."),
            "generator": self.generator.get_state(),
            "sums": self._sums,
        }
        facts = {
            "step": self.step,
            "count": self._count,
            "seconds": self.seconds,
            "best": self.best,
            "device": self.device.type,
            "backend": self.backend,
            "config": self.config.to_dict(),
            "data_digest": self.data_digest,
        }
        save(run.checkpoint, tensors, facts)

    def restore(self, run: RunFolder, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go back to the run's checkpoint, as ``checkpoint.load`` has read it.

        Raises   RunError if it is of another configuration or other images.
        """
        _check_same(run, self.config, self.data_digest, facts)
        load_into(self.model, tensors, "model.", run.checkpoint)
        # Checkpoints from before backends have chains, but not their step: any will do that has not been used.
        sweeps_done = torch.tensor(facts["step"] * self.config.prior.sweeps)
        load_into(self.chains, {"chains.step": sweeps_done, **tensors}, "chains.", run.checkpoint)
        load_optimiser(self.optimiser, tensors, "optimiser.")
        if facts["device"] == self.device.type:  # a CPU's generator state means nothing to a GPU's, and vice versa
            self.generator.set_state(tensors["generator"])
        else:
            self.generator = generator(self.device, self.config.seed, f"training from {facts['step']}")
        self._sums.copy_(tensors["sums"])
        self._count, self.step = facts["count"], facts["step"]
        self.seconds, self.best = facts["seconds"], facts["best"]

    def save_best(self, run: RunFolder, validation: Validation) -> bool:
        """Keep the current weights if no validation was better so far; says whether it did."""
        if self.best is not None and validation.log_marginal <= self.best["log_marginal"]:
            return False
        self._check_weights()
        self.best = {"step": self.step, **asdict(validation)}
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        save(run.best, tensors, {**self.best, "config": self.config.to_dict(), "data_digest": self.data_digest})
        return True


def load_best(
    run: RunFolder, config: Config, dataset: Dataset, device: torch.device
) -> tuple[DiscreteVAE, dict[str, Any]]:
    """The model of the best validation, in evaluation mode, with the facts of that validation.

    Raises   RunError if there is none, or it is damaged, of another configuration or trained on other images.
    """
    if not run.best.exists():
        raise RunError(f"{run.path} has no best.safetensors yet: no validation was reached; go on with --resume")
    tensors, facts = load(run.best)
    _check_same(run, config, dataset.digest, facts)
    model = build_model(config, dataset.train.shape[1])
    load_into(model, tensors, "model.", run.best)
    return model.to(device).eval(), facts


#: Where the images lie may change between training and what comes after; that they are the same is seen by digest.
WHEREABOUTS = ("data", "data_dir")


def _check_same(run: RunFolder, config: Config, data_digest: str, facts: Mapping[str, Any]) -> None:
    """Raise RunError unless the facts are of this configuration and these images."""
    for name, here, there in config.differences(Config.from_dict(facts["config"])):
        if name not in WHEREABOUTS:
            raise RunError(f"{run.path}: its checkpoint is of another configuration: {name} is {there}, not {here}")
    if facts["data_digest"] != data_digest:
        raise RunError(f"{run.path}: it was trained on other images than those given; see --data and --data-dir")


def build_model(config: Config, n_pixels: int) -> DiscreteVAE:
    """The configured model with its initial weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(config.seed, "weights"))
        return DiscreteVAE(n_pixels, config.model.latents, config.model.groups, config.model.hidden_sizes)


def _adam(model: DiscreteVAE, config: Config) -> torch.optim.Optimizer:
    weights: list[Tensor] = [p for p in model.parameters() if p.ndim > 1]
    others: list[Tensor] = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.optimisation.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(
        groups, lr=config.optimisation.learning_rate, eps=config.optimisation.adam_epsilon, fused=True
    )
