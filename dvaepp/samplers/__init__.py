"""Samplers of a restricted Boltzmann machine for the gradient of its log Z, chosen by name.

    sampler = samplers.create("tempering", n_chains=1000, n_sweeps=40, n1=100, n2=100, seed=0)
    z1, z2 = sampler.sample(rbm)

    gibbs          persistent contrastive divergence: n_sweeps block sweeps of n_chains chains that live on. Tieleman
                   (2008). The cheapest; a chain seldom leaves its mode.
    tempering      persistent parallel tempering: n_sweeps rounds of n_chains chains, each of them a ladder of replicas
                   of which the last is the machine. Desjardins et al. (2010). Costs as many times "gibbs" as there are
                   replicas.
    population     population annealing, from fair coins at every call, up a ladder of n_sweeps rungs. Hukushima & Iba
                   (2003). Nothing is remembered, and log Z comes with the samples.
    module:object  anybody's ``dimod.Sampler``: annealers, in software or not; see ``dvaepp.samplers.quadratic``.

A sampler is a module whose whole state is in buffers: ``state_dict`` carries it, and after ``load_state_dict`` it goes
on bit for bit, given the same arguments of ``create``.
"""

from __future__ import annotations

from dvaepp.backend import TORCH
from dvaepp.samplers.chains import GibbsSampler, TemperingSampler
from dvaepp.samplers.population import PopulationSampler
from dvaepp.samplers.protocol import Sampler, check_counts, unknown_sampler
from dvaepp.samplers.quadratic import QuadraticSampler

__all__ = [
    "NAMES",
    "GibbsSampler",
    "PopulationSampler",
    "QuadraticSampler",
    "Sampler",
    "TemperingSampler",
    "create",
]

_OWN: dict[str, type[GibbsSampler] | type[TemperingSampler] | type[PopulationSampler]] = {
    "gibbs": GibbsSampler,
    "tempering": TemperingSampler,
    "population": PopulationSampler,
}

#: Names of our own samplers.
NAMES = tuple(_OWN)


def create(name: str, n_chains: int, n_sweeps: int, n1: int, n2: int, seed: int, backend: str = TORCH) -> Sampler:
    """The sampler of a machine of N1 and N2 units that a name stands for, on the CPU in float32.

    ``backend`` computes the sweeps of "gibbs" and "tempering"; the others have none but torch and their own.

    Raises   ConfigError for a name that stands for nothing, with the nearest one; for a count below 1; and for an
             object that cannot be used (see ``quadratic.load``).
    """
    check_counts(n_chains=n_chains, n_sweeps=n_sweeps, n1=n1, n2=n2)
    if ":" in name:
        return QuadraticSampler(name, n_chains, n_sweeps, n1, n2, seed)
    if name not in _OWN:
        raise unknown_sampler(name, NAMES)
    return _OWN[name](n_chains, n_sweeps, n1, n2, seed, backend)
