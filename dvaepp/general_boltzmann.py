"""The general Boltzmann machine as a torch module; twin of ``reference.general_boltzmann`` and ``boltzmann_kl``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dvaepp.boltzmann import dot_rows
from reference.boltzmann_kl import group_slices
from reference.single_site import colouring
from reference.vocabulary import Array, BoltzmannMachine, DomainError, check_count


class GeneralBoltzmann(nn.Module):
    """p(z) = e^{-E}/Z with E = -a'z - z'J z / 2, trainable; see ``reference.general_boltzmann``.

    Two units that are coupled share one parameter, so J is symmetric with a zero diagonal whatever an optimiser does,
    and the derivative in it is the reference's: in the number that J holds twice. Units that share no edge are never
    coupled; units of one colour share none, and are redrawn together.

    Shapes   edges (P, 2), None for all N (N - 1) / 2 pairs; a (..., N), couplings (..., P) in the order of the edges,
             all zero at first: the uniform distribution, log Z = N log 2. Leading axes are machines of their own.
    Raises   DomainError for no units, or an edge that is a loop, is there twice or has an end that does not exist.
    """

    edges: Tensor
    _order: Tensor

    def __init__(self, n: int, edges: Sequence[tuple[int, int]] | Array | Tensor | None = None) -> None:
        super().__init__()
        n = check_count("n", n)
        ends = np.stack(np.triu_indices(n, 1), axis=1) if edges is None else _as_edges(edges, n)
        self.a = nn.Parameter(torch.zeros(n))
        self.couplings = nn.Parameter(torch.zeros(len(ends)))
        # Neither is state: both follow from the arguments, as the sizes do.
        self.register_buffer("edges", torch.from_numpy(ends.astype(np.int64)), persistent=False)
        adjacency = np.zeros((n, n))
        adjacency[ends[:, 0], ends[:, 1]] = adjacency[ends[:, 1], ends[:, 0]] = 1
        colours = colouring(BoltzmannMachine(np.zeros(n), adjacency))
        self.register_buffer("_order", torch.from_numpy(np.concatenate(colours)), persistent=False)
        self._sizes = [len(colour) for colour in colours]

    @property
    def n(self) -> int:
        """Number of units."""
        return self.a.shape[-1]

    @property
    def colours(self) -> tuple[Tensor, ...]:
        """Classes of units of which no two share an edge; see ``reference.single_site.colouring``."""
        return self._order.split(self._sizes)

    @property
    def J(self) -> Tensor:
        """The couplings as a symmetric matrix, (..., N, N); differentiable."""
        first, second = self.edges.unbind(-1)
        flat = self.couplings.new_zeros(*self.couplings.shape[:-1], self.n**2)
        upper = flat.index_copy(-1, first * self.n + second, self.couplings).unflatten(-1, (self.n, self.n))
        return upper + upper.mT

    def energy(self, z: Tensor) -> Tensor:
        """Energy in nats, (..., B, N) -> (..., B); see ``reference.general_boltzmann.energy``."""
        return -dot_rows(z, self.a) - ((z @ self.J) * z).sum(-1) / 2

    def logits(self, z: Tensor) -> Tensor:
        """Logits of every unit given all others, (..., B, N); see ``reference.general_boltzmann.logits``."""
        return self.a.unsqueeze(-2) + z @ self.J

    @torch.no_grad()
    def as_reference(self) -> BoltzmannMachine:
        """The same machine, without leading axes, as the reference's."""
        return BoltzmannMachine(self.a.double().cpu().numpy(), self.J.double().cpu().numpy())


def cross_entropy(machine: GeneralBoltzmann, mu: Tensor, nu: Tensor, n_groups: int) -> Tensor:
    """E[E(z)] under a hierarchical posterior for one draw of zeta, (..., B, N) -> (..., B) nats.

    See ``reference.boltzmann_kl.cross_entropy``: couplings between groups use nu of the earlier unit, others mu.
    """
    group = torch.empty(machine.n, dtype=torch.int64, device=mu.device)
    for g, members in enumerate(group_slices(machine.n, n_groups)):
        group[members] = g
    once, same = machine.J.triu(), group[:, None] == group
    seen = mu @ (once * same) + nu @ (once * ~same)
    return -dot_rows(mu, machine.a) - (seen * mu).sum(-1)


def _as_edges(edges: Sequence[tuple[int, int]] | Array | Tensor, n: int) -> Array:
    """Edges as (P, 2), the lower end first; raise unless they are different pairs of existing units."""
    ends = np.asarray(edges)
    if ends.size == 0:
        return np.empty((0, 2), dtype=np.int64)
    if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu":
        raise DomainError(f"edges must be (P, 2) whole numbers, two ends each; got {ends.shape}, dtype {ends.dtype}")
    ends = np.sort(ends, axis=1)
    seen: set[tuple[int, int]] = set()
    for first, second in ends.tolist():
        if not 0 <= first < second < n or (first, second) in seen:
            raise DomainError(f"edges must be different pairs of different units below N = {n}; got {(first, second)}")
        seen.add((first, second))
    return ends
