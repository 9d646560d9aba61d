"""The reference behind the common interface: the judge is a backend too. Runs everywhere; float64."""

from __future__ import annotations

import numpy as np

from accelerated.protocol import Backend
from reference.gibbs import PersistentChains
from reference.vocabulary import RBM, Array, check_count


class NumpyOracle:
    """All operations, by calling ``reference``."""

    name = "numpy_oracle"

    def operations(self) -> frozenset[str]:
        """Names of the operations this backend has."""
        return frozenset({"gibbs"})

    def gibbs(self, rbm: RBM, z1: Array, n_sweeps: int, seed: int, step: int) -> tuple[Array, Array]:
        """See ``accelerated.protocol.Backend.gibbs``."""
        check_count("n_sweeps", n_sweeps)  # at least one: it is the sweep that draws z2
        undrawn = np.zeros((len(z1), rbm.n2))
        chains = PersistentChains(z1, undrawn, seed, step).run(rbm, n_sweeps)
        return chains.z1, chains.z2


def create() -> Backend:
    """The oracle needs nothing that could be missing."""
    return NumpyOracle()
