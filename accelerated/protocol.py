"""What a backend offers. Each operation is defined by a function of ``reference`` and has that function's meaning."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from reference.vocabulary import RBM, Array


@runtime_checkable
class Backend(Protocol):
    """The operations of one backend: NumPy arrays in, NumPy arrays out.

    ``name`` is the file it lives in, and ``operations()`` says which of the methods below it has; a backend that lacks
    one says why in its file. A module in ``accelerated.backends`` provides ``create() -> Backend``, which raises
    ``BackendUnavailable`` if it cannot run here.
    """

    @property
    def name(self) -> str:
        """Name by which ``accelerated.load`` finds it."""
        ...

    def operations(self) -> frozenset[str]:
        """Names of the operations this backend has."""
        ...

    def gibbs(self, rbm: RBM, z1: Array, n_sweeps: int, seed: int, step: int) -> tuple[Array, Array]:
        """Carry Gibbs chains ``n_sweeps`` sweeps on from z1; see ``reference.gibbs.PersistentChains.run``.

        The uniforms are those of Philox at (seed, step), (seed, step + 1), ...; so the bits agree with the reference
        wherever no uniform lies within rounding of its probability.

        Shapes   z1 (B, N1) -> z1 (B, N1), z2 (B, N2)
        Domain   z1 in {0, 1}; n_sweeps >= 1; seed, step as in ``reference.philox.uniforms``
        Units    none
        Raises   ShapeError, DomainError or TypeError as the reference does.
        """
        ...
