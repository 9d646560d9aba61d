"""What ``validation.statistics`` asks of the torch twin, ``dvaepp``: everything drawn by torch's own generators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from dvaepp import boltzmann, gibbs, partition, tempering
from dvaepp.bound import StreamingLogMeanExp
from dvaepp.bound import likelihood as estimated_likelihood
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.objective import terms
from dvaepp.partition import Base
from dvaepp.randomness import AddressedUniforms
from dvaepp.smoothing import OverlappingExponential
from reference.boltzmann import log_partition
from reference.vocabulary import RBM, Array
from validation.rows import Finding, Task
from validation.sampling import enumeration
from validation.sampling.chance import Judge, means
from validation.sampling.enumeration import Posterior
from validation.sampling.trials import (
    IMAGE,
    bound_findings,
    bracket_findings,
    centred,
    number,
    seeds_of,
    uniform_findings,
)

_CPU = torch.device("cpu")

#: Too large to be enumerated by ``dvaepp.partition``, and just small enough to be enumerated here.
_LARGE = centred(17, 17, seed=6, scale=0.35, bias=0.3)


class TorchSamplers:
    """``dvaepp``'s, in one dtype, behind ``validation.statistics.Samplers``."""

    def __init__(self, dtype: str) -> None:
        self._dtype = getattr(torch, dtype)

    def _tensor(self, array: Array) -> Tensor:
        return torch.tensor(array, dtype=self._dtype)

    def _machine(self, rbm: RBM) -> boltzmann.RBM:
        return module_of(rbm, self._dtype)

    def _base(self, base: RBM) -> Base:
        return Base(self._tensor(base.a1), self._tensor(base.a2))

    def gibbs(self, rbm: RBM, z1: Array, n_sweeps: int, seed: int) -> tuple[Array, Array]:
        """See ``Samplers.gibbs``."""
        chains = gibbs.PersistentChains(len(z1), rbm.n1, rbm.n2, seed).to(self._dtype)
        chains.z1.copy_(self._tensor(z1))
        chains.run(self._machine(rbm), n_sweeps)
        return chains.z1.double().numpy(), chains.z2.double().numpy()

    def tempering(self, rbm: RBM, inv_temps: Array, n_chains: int, n_rounds: int, seed: int) -> tuple[Array, Array]:
        """See ``Samplers.tempering``."""
        found = tempering.run(self._machine(rbm), torch.from_numpy(inv_temps), n_chains, n_rounds, seed)
        n_tried = [(n_rounds + 1 - pair % 2) // 2 * n_chains for pair in range(len(inv_temps) - 1)]
        accepted = np.rint(found.swap_rates.double().numpy() * n_tried)
        return torch.cat([found.z1, found.z2], 1).double().numpy(), accepted

    def ais(self, rbm: RBM, base: RBM, inv_temps: Array, n_chains: int, seed: int) -> Array:
        """See ``Samplers.ais``."""
        path = torch.from_numpy(inv_temps)
        return partition.anneal(self._machine(rbm), self._base(base), path, n_chains, seed).numpy()

    def reverse_ais(self, rbm: RBM, base: RBM, inv_temps: Array, z1: Array, seed: int) -> Array:
        """See ``Samplers.reverse_ais``."""
        path = torch.from_numpy(inv_temps)
        return partition.anneal_reverse(self._machine(rbm), self._base(base), path, self._tensor(z1), seed).numpy()

    def log_mean(self, pieces: list[Array]) -> Array:
        """See ``Samplers.log_mean``."""
        stream = StreamingLogMeanExp(len(pieces[0]), _CPU)
        for piece in pieces:
            stream.add(self._tensor(piece))
        return stream.result().numpy()


def module_of(rbm: RBM, dtype: torch.dtype) -> boltzmann.RBM:
    """The machine as a torch module."""
    module = boltzmann.RBM(rbm.n1, rbm.n2).to(dtype)
    with torch.no_grad():
        for name in ("a1", "a2", "W"):
            getattr(module, name).copy_(torch.from_numpy(getattr(rbm, name)))
    return module


def bracket(task: Task, judge: Judge) -> Iterator[Finding]:
    """Brackets of a machine that is just too large to be enumerated by ``dvaepp``."""
    seeds, n = seeds_of(task), number(task, 300)
    module, base = module_of(_LARGE, torch.float32), Base(torch.zeros(17), torch.zeros(17))
    brackets = [partition.bracket(module, base, 10, 64, next(seeds), n_replicas=4, n_rounds=20) for _ in range(n)]
    where = f"{n} brackets of 17 x 17 units, 64 chains, 10 steps"
    yield from bracket_findings(judge, brackets, log_partition(_LARGE), where)


def tiny_model(seed: int, independent: bool) -> DiscreteVAE:
    """A model of 3 + 3 latent units and five pixels, untrained, float64; ``independent``: nothing depends on zeta."""
    model = DiscreteVAE(5, 6, 2, ()).double()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=noise)
        if independent:
            for network, first in ((model.encoders[1], 5), (model.decoder, 0)):  # one linear layer each
                network.get_parameter("0.weight")[:, first:] = 0
    return model.eval()


@torch.no_grad()
def tiny_posterior(model: DiscreteVAE, x: Array) -> Posterior:
    """Everything there is to know about one image (D,) under it."""
    centred_image = torch.from_numpy(x) - model.train_mean

    def first(_: Array) -> Array:
        return model.encoders[0](centred_image).expand(64, -1).numpy()

    def second(z1: Array) -> Array:
        seen = torch.cat([centred_image.expand(len(z1), -1), 2 * torch.from_numpy(z1) - 1], dim=1)
        return model.encoders[1](seen).numpy()

    def pixels(z: Array) -> Array:
        return model.decoder(2 * torch.from_numpy(z) - 1).numpy()

    return enumeration.posterior([first, second], pixels, _prior(model), x)


def _prior(model: DiscreteVAE) -> RBM:
    return RBM(*(parameter.numpy() for parameter in model.rbm.detached))


def likelihood(task: Task, judge: Judge) -> Iterator[Finding]:
    """Importance-weighted estimates of a small model against its enumerated likelihood."""
    model, noise = tiny_model(1, independent=False), torch.Generator().manual_seed(next(seeds_of(task)))
    normaliser = float(logsumexp(enumeration.log_weights(_prior(model).general())))

    def log_marginals(n: int, n_draws: int) -> Array:
        images = torch.from_numpy(IMAGE).expand(n, -1)
        return estimated_likelihood(model, images, n_draws, noise).log_marginal.numpy() - normaliser

    exact, n = tiny_posterior(model, IMAGE), number(task, 200_000)
    yield from bound_findings(judge, log_marginals, n, exact, "DiscreteVAE of 3 + 3 units")


@torch.no_grad()
def objective(task: Task, judge: Judge) -> Iterator[Finding]:
    """The smoothed ELBO of a model in which nothing depends on zeta; see ``validation.statistics``.

    The loss lacks log Z where the prior's samples, which only its gradient needs, are all zero.
    """
    model, noise = tiny_model(2, independent=True), torch.Generator().manual_seed(next(seeds_of(task)))
    normaliser = float(logsumexp(enumeration.log_weights(_prior(model).general())))
    n_batches, size = 100, number(task, 1000)
    images, none = torch.from_numpy(IMAGE).expand(size, -1), torch.zeros(1, 3, dtype=torch.float64)
    smoothing = OverlappingExponential(4.0)
    elbos = []
    for _ in range(n_batches):
        rho = torch.rand((size, 6), generator=noise, dtype=torch.float64)
        elbos.append(-float(terms(model, images, rho, smoothing, none, none).loss(1.0)) - normaliser)
    where = f"{n_batches} batches of {size}, DiscreteVAE of 3 + 3 units whose networks do not see zeta"
    yield judge.means("smoothed ELBO", means(elbos), tiny_posterior(model, IMAGE).bound(1), "nats", where)


def uniforms(task: Task, judge: Judge) -> Iterator[Finding]:
    """torch's numbers at addresses (seed, step); its streams are named."""

    def drawn(seed: int, step: int, n_chains: int, n_units: int, stream: int) -> Array:
        numbers = AddressedUniforms(_CPU, torch.float64, seed, f"stream {stream}").at(step)
        return numbers.draw(n_chains, n_units).numpy()

    yield from uniform_findings(judge, drawn, number(task, 800_000), next(seeds_of(task)))
