"""What every Boltzmann prior can do."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from reference.partition import Bracket


class BoltzmannPrior(nn.Module):
    """p(z) = e^{-E(z)} / Z over binary z, with a sampler of its own.

    log Z is known to a bracket, at a price (``log_partition_bracket``); its gradient follows from samples, and is all
    that training needs (``log_partition_surrogate``).
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of units."""

    @abstractmethod
    def energy(self, z: Tensor) -> Tensor:
        """Energy in nats, (..., B, N) -> (..., B)."""

    def unnormalised_log_prob(self, z: Tensor) -> Tensor:
        """Minus the energy in nats, (..., B, N) -> (..., B)."""
        return -self.energy(z)

    @abstractmethod
    def cross_entropy(self, mu: Tensor, nu: Tensor, n_groups: int) -> Tensor:
        """E[E(z)] in nats under a hierarchical posterior, (..., B, N) -> (..., B); KL = it - entropy + log Z.

        See ``reference.boltzmann_kl.cross_entropy``.
        """

    @abstractmethod
    def sample(self) -> Tensor:
        """The sampler's next states, (n_chains, N)."""

    @abstractmethod
    def log_partition_bracket(self, n_temperatures: int = 1000, n_chains: int = 256, seed: int = 0) -> Bracket:
        """log Z in nats, from below and from above; small machines are enumerated, exactly."""

    def log_prob(self, z: Tensor, log_partition: float | Tensor) -> Tensor:
        """Log-probability in nats given log Z, (..., B, N) -> (..., B). Take log Z from ``log_partition_bracket``."""
        return self.unnormalised_log_prob(z) - log_partition

    def log_partition_surrogate(self, z: Tensor | None = None) -> Tensor:
        """Scalar whose gradient estimates that of log Z: minus the mean energy of samples, which are held fixed.

        d log Z/dtheta = E_p[-dE/dtheta]. Its value is not log Z.

        Source   DVAE++ (arXiv:1802.04920), appendix E.
        Shapes   z (L, N) samples of the machine; None: the sampler's next
        """
        samples = self.sample() if z is None else z.detach()
        return self.unnormalised_log_prob(samples).mean(-1)
