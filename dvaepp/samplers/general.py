"""Samplers of a general Boltzmann machine, chosen by name: as ``dvaepp.samplers``, for states without sides.

    gibbs          n_sweeps chromatic sweeps of chains that live on
    tempering      n_sweeps rounds of parallel tempering, every replica's states remembered
    module:object  anybody's ``dimod.Sampler``; see ``dvaepp.samplers.quadratic``

There is no population annealing: its weights need one side summed out.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from dvaepp import single_site, tempering
from dvaepp.general_boltzmann import GeneralBoltzmann
from dvaepp.randomness import named_seed
from dvaepp.samplers import quadratic
from dvaepp.samplers.protocol import check_counts, unknown_sampler


class GeneralSampler(nn.Module):
    """As ``dvaepp.samplers.Sampler``; ``z`` holds what the last call returned.

    Shapes   z (n_chains, N), step () int64
    """

    z: Tensor
    step: Tensor

    def __init__(self, n_chains: int, n_sweeps: int, n: int, seed: int) -> None:
        super().__init__()
        self.register_buffer("z", single_site.coins(n_chains, n, seed))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.n_sweeps, self.seed = n_sweeps, seed

    @abstractmethod
    def sample(self, machine: GeneralBoltzmann) -> Tensor:
        """The next states of a machine without leading axes: the buffer z, which the next call overwrites."""

    def _keep(self, z: Tensor, n_steps: int) -> Tensor:
        self.z.copy_(z)
        self.step += n_steps
        return self.z

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return f"n_chains={len(self.z)}, n_sweeps={self.n_sweeps}"


class GeneralGibbs(GeneralSampler):
    """Persistent contrastive divergence; twin of ``reference.single_site.PersistentChains``."""

    def sample(self, machine: GeneralBoltzmann) -> Tensor:
        """The chains, ``n_sweeps`` sweeps on."""
        return self._keep(single_site.gibbs(machine, self.z, self.n_sweeps, self.seed, int(self.step)), self.n_sweeps)


class GeneralTempering(GeneralSampler):
    """Persistent parallel tempering.

    Shapes   replicas (R n_chains, N), the machine's own last
    """

    replicas: Tensor

    def __init__(self, n_chains: int, n_sweeps: int, n: int, seed: int) -> None:
        super().__init__(n_chains, n_sweeps, n, seed)
        self.inv_temps = tempering.ladder()
        self.register_buffer("replicas", single_site.coins(len(self.inv_temps) * n_chains, n, seed))

    def sample(self, machine: GeneralBoltzmann) -> Tensor:
        """The chains at inverse temperature 1, ``n_sweeps`` rounds on."""
        first = int(self.step)
        replicas = single_site.temper(machine, self.inv_temps, self.replicas, self.n_sweeps, self.seed, first)
        self.replicas.copy_(replicas)
        return self._keep(replicas[-len(self.z) :], self.n_sweeps)


class GeneralQuadratic(GeneralSampler):
    """Reads of a ``dimod.Sampler``, from scratch at every call; ``step`` counts calls. Raises as ``quadratic.load``."""

    def __init__(self, name: str, n_chains: int, n_sweeps: int, n: int, seed: int) -> None:
        super().__init__(n_chains, n_sweeps, n, seed)
        self.name, self._solver = name, quadratic.load(name)

    def sample(self, machine: GeneralBoltzmann) -> Tensor:
        """As many reads as there are chains, on the buffers' device."""
        seed = named_seed(self.seed, f"call {int(self.step)}")
        states = quadratic.draw(self._solver, self.name, model_of(machine), len(self.z), self.n_sweeps, seed)
        return self._keep(torch.from_numpy(states), 1)


_OWN = {"gibbs": GeneralGibbs, "tempering": GeneralTempering}


def create(name: str, n_chains: int, n_sweeps: int, n: int, seed: int) -> GeneralSampler:
    """The sampler of a machine of N units that a name stands for. Raises as ``dvaepp.samplers.create``."""
    check_counts(n_chains=n_chains, n_sweeps=n_sweeps)
    if ":" in name:
        return GeneralQuadratic(name, n_chains, n_sweeps, n, seed)
    if name not in _OWN:
        raise unknown_sampler(name, _OWN)
    return _OWN[name](n_chains, n_sweeps, n, seed)


@torch.no_grad()
def model_of(machine: GeneralBoltzmann) -> object:
    """The machine as a ``dimod.BinaryQuadraticModel`` of the variables 0 .. N - 1; energies equal."""
    first, second = machine.edges.cpu().numpy().T
    a, couplings = (parameter.double().cpu().numpy() for parameter in (machine.a, machine.couplings))
    return quadratic.quadratic_model(a, first, second, couplings)
