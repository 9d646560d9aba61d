"""Any ``dimod.Sampler`` in the place of our samplers: the machine as a binary quadratic model, its reads as samples.

    samplers.create("dwave.samplers:SimulatedAnnealingSampler", n_chains=1000, n_sweeps=100, n1=8, n2=8, seed=0)

``module:object`` names a sampler, or what makes one when called without arguments (a class, a function of yours that
configures a device or wraps a composite around it). It needs ``pip install 'dvaepp[dimod]'``.

Temperature. The model's energies are the machine's, in nats, so the samples wanted are those at inverse temperature 1.
``num_reads`` is the number of samples; what else is passed depends on the parameters that the sampler says it has:

    beta            1: samplers that draw from a Boltzmann distribution
    beta_range      from 0.01 to 1, in linear steps where ``beta_schedule_type`` can say so: annealers
    num_sweeps      n_sweeps
    seed            a new one at every call, from the sampler's seed and ``step``

An annealer is no sampler at temperature 1. It ends there, but cools faster than the machine follows: its reads are
those of a hotter machine, and how probability is shared among far modes was decided early. More sweeps bring it nearer,
and ``examples/dimod_sampler.py`` measures how near. A device that takes neither beta nor beta_range, as quantum
annealers, gets the energies as they are and has a temperature of its own: name a function that returns it inside a
``dimod.ScaleComposite``, or in a sampler of yours that divides by the inverse temperature you have estimated.
Optimisers (tabu search, steepest descent) cannot be told from samplers by their parameters, and are useless here.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvaepp.boltzmann import RBM
from dvaepp.errors import ConfigError
from dvaepp.randomness import named_seed
from dvaepp.samplers.protocol import Sampler
from reference.vocabulary import Array

#: Where annealing starts: hot enough for anything to be forgotten, and not 0, of which geometric steps cannot leave.
_HOTTEST = 0.01

_LARGEST_SEED = 2**31  # exclusive; what dwave-samplers take


class QuadraticSampler(Sampler):
    """Reads of a ``dimod.Sampler``, from scratch at every call; ``step`` counts calls.

    Source   dimod's sampler API: ``Sampler.sample(bqm, num_reads=...)``, ``Sampler.parameters``.
    Shapes   as ``Sampler``
    Raises   as ``load``, at once; as ``draw``, at a call.
    """

    def __init__(self, name: str, n_chains: int, n_sweeps: int, n1: int, n2: int, seed: int) -> None:
        super().__init__()
        self._remember(n_chains, n1, n2)
        self.name, self.n_sweeps, self.seed = name, n_sweeps, seed
        self._solver = load(name)

    @torch.no_grad()
    def sample(self, rbm: RBM) -> tuple[Tensor, Tensor]:
        """As many reads as there are chains, on the buffers' device."""
        seed = named_seed(self.seed, f"call {int(self.step)}")
        states = draw(self._solver, self.name, model_of(rbm), len(self.z1), self.n_sweeps, seed)
        z = torch.from_numpy(states).to(self.z1)
        return self._keep(z[:, : rbm.n1], z[:, rbm.n1 :], 1)

    def extra_repr(self) -> str:
        """Sizes, for the module's representation."""
        return f"{self.name!r}, n_chains={len(self.z1)}, n_sweeps={self.n_sweeps}"


def load(name: str) -> Any:
    """The ``dimod.Sampler`` that "module:object" stands for.

    Raises   ConfigError, one line, for a dimod, module or object that is not there, and for what does not sample.
    """
    dimod = _dimod()
    module, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise ConfigError(f"sampler {name!r} must be module:object with dotted names")
    try:
        found = EntryPoint(name, name, "").load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"sampler {name!r} cannot be loaded: {error}") from error
    # A class has its instances' methods; it is asked to make one all the same.
    made = found if isinstance(found, dimod.Sampler) or not callable(found) else found()
    if not isinstance(made, dimod.Sampler):
        raise ConfigError(f"sampler {name!r} must be or make a dimod.Sampler; it is a {type(made).__name__}")
    if "num_reads" not in made.parameters:
        raise ConfigError(
            f"sampler {name!r} must take num_reads, the number of samples; {type(made).__name__} does not"
        )
    return made


def _dimod() -> Any:
    try:
        return importlib.import_module("dimod")
    except ImportError as error:
        raise ConfigError(f"a sampler from outside needs dimod ({error}); pip install 'dvaepp[dimod]'") from error


def quadratic_model(a: Array, first: Array, second: Array, couplings: Array) -> Any:
    """E(z) = -a'z - sum over k of couplings_k z_first_k z_second_k as a ``dimod.BinaryQuadraticModel`` of 0 .. N - 1.

    Shapes   a (N,); first, second, couplings (P,)
    """
    return _dimod().BinaryQuadraticModel.from_numpy_vectors(-a, (first, second, -couplings), 0.0, "BINARY")


def model_of(rbm: RBM) -> Any:
    """The machine as a ``dimod.BinaryQuadraticModel``: variables 0 .. N1 - 1 are z1, the others z2; energies equal."""
    a1, a2, W = (parameter.double().cpu().numpy() for parameter in rbm.detached)
    first, second = np.indices(W.shape).reshape(2, -1)
    return quadratic_model(np.concatenate([a1, a2]), first, rbm.n1 + second, W.ravel())


def draw(solver: Any, name: str, model: Any, n_draws: int, n_sweeps: int, seed: int) -> Array:
    """Reads of a solver, as the top of this file says.

    Shapes   -> (n_draws, N) in {0, 1}, columns by variable
    Raises   ConfigError where the solver returns another number of reads.
    """
    possible = {
        "beta": 1.0,
        "beta_range": (_HOTTEST, 1.0),
        "beta_schedule_type": "linear",
        "num_sweeps": n_sweeps,
        "seed": seed % _LARGEST_SEED,
    }
    options = {option: value for option, value in possible.items() if option in solver.parameters}
    found = solver.sample(model, num_reads=n_draws, **options)
    found = found.change_vartype("BINARY", inplace=False)
    columns = [found.variables.index(unit) for unit in range(model.num_variables)]
    states: Array = np.repeat(found.record.sample[:, columns], found.record.num_occurrences, axis=0)
    if len(states) != n_draws:
        raise ConfigError(f"sampler {name!r} was asked for {n_draws} reads and returned {len(states)}")
    return states
