"""The torch twins of ``dvaepp`` as a backend, so that every check of backends can be put to them.

What has no place here takes its noise from torch's own generator and cannot be driven by the reference's: tempering and
annealing, which ``validation.statistics`` judges instead. ``gibbs`` is the sweep of ``dvaepp.gibbs`` on the reference's
uniforms.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import dvaepp.boltzmann
import dvaepp.gibbs
import dvaepp.smoothing
from accelerated.protocol import EXTRAS, CrossEntropyGradients, Entropy, LogMean, Smoothed
from dvaepp.bound import StreamingLogMeanExp
from reference import philox
from validation.rows import ALL_KINDS, Subject

TORCH, TORCH_NUMBER = "torch", "torch-number"

_OF_TORCH = {"inverse_cdf", "entropy", "cross_entropy", "cross_entropy_gradients", "gibbs", "importance_log_mean"}

#: What they are, for ``validation.subjects``. The operations after the first line are those of ``statistics``.
SUBJECTS = {
    TORCH: Subject(TORCH, frozenset(_OF_TORCH | {"tempering", "ais", "reverse_ais"}), ALL_KINDS, is_backend=False),
    # The others compute alike with both.
    TORCH_NUMBER: Subject(TORCH_NUMBER, frozenset({"inverse_cdf"}), ("exponential",), is_backend=False),
}


def smoothing(kind: str, sharpness: float | Tensor) -> dvaepp.smoothing.Smoothing:
    """The torch twin of ``reference.smoothing``'s class of a kind, whose Concrete takes its temperature."""
    if kind == "concrete":
        return dvaepp.smoothing.BinaryConcrete.at_temperature(sharpness)
    return dvaepp.smoothing.create(kind.replace("_", "-"), sharpness)


class TorchTwin:
    """``dvaepp`` on the CPU; with ``sharpness_is_number`` beta is a number, as in training, and has no derivative.

    Branches are then chosen beforehand and not element by element: another path through the same code.
    """

    device: Literal["cpu"] = "cpu"

    def __init__(self, sharpness_is_number: bool) -> None:
        self.name = TORCH_NUMBER if sharpness_is_number else TORCH
        self.kinds = SUBJECTS[self.name].kinds
        self.extras = tuple(name for name in EXTRAS if name != "dzeta_dbeta" or not sharpness_is_number)
        self._sharpness_is_number = sharpness_is_number

    def operations(self) -> frozenset[str]:
        """Those that can be driven by the reference's noise."""
        return frozenset({"inverse_cdf"} if self._sharpness_is_number else _OF_TORCH)

    def asarray(self, array: Any) -> Tensor:
        """A copy, so that nothing of the caller's can be overwritten."""
        return torch.tensor(np.asarray(array))

    def to_numpy(self, array: Tensor) -> Any:
        """Without its history."""
        return array.detach().numpy()

    def inverse_cdf(
        self, kind: str, rho: Tensor, logit_q: Tensor, beta: float, extras: Collection[str] = ("dzeta_dlogit_q",)
    ) -> Smoothed:
        """Derivatives by automatic differentiation with upstream gradient 1."""
        inputs = {"rho": rho, "logit_q": logit_q}
        inputs = {name: tensor.detach().clone().requires_grad_() for name, tensor in inputs.items()}
        # A tensor has an entry for each element: its derivative is wanted element by element.
        sharpness = beta if self._sharpness_is_number else torch.full_like(rho, beta).requires_grad_()
        twin = smoothing(kind, sharpness)
        zeta = twin.inverse_cdf(inputs["rho"], inputs["logit_q"])
        if isinstance(twin.beta, Tensor):  # of a Concrete one over what was passed, as in the reference's derivative
            inputs["beta"] = twin.beta
        gradients = torch.autograd.grad(zeta, tuple(inputs.values()), torch.ones_like(zeta))
        found = {f"dzeta_d{name}": gradient for name, gradient in zip(inputs, gradients, strict=True)}
        zeta = zeta.detach()
        with torch.no_grad():
            if "log_ratio" in extras:
                found["log_ratio"] = dvaepp.smoothing.check_mixture(twin).log_ratio(zeta)
            if "nu" in extras:
                found["nu"] = dvaepp.smoothing.nu(twin, zeta, logit_q)
        return Smoothed(zeta, **{name: value for name, value in found.items() if name in extras})

    def entropy(self, logit_q: Tensor) -> Entropy:
        """Summed over the units of a row."""
        logits = logit_q.detach().clone().requires_grad_()
        value = dvaepp.boltzmann.entropy(logits).sum(-1)
        (slope,) = torch.autograd.grad(value.sum(), logits)
        return Entropy(value.detach(), slope)

    def cross_entropy(self, rbm: Any, mu: Tensor, nu: Tensor, n_groups: int) -> Tensor:
        """See ``dvaepp.boltzmann.cross_entropy``."""
        with torch.no_grad():
            return dvaepp.boltzmann.cross_entropy(_machine(rbm), mu, nu, n_groups)

    def cross_entropy_gradients(
        self, rbm: Any, mu: Tensor, nu: Tensor, n_groups: int, upstream: Tensor
    ) -> CrossEntropyGradients:
        """By automatic differentiation."""
        machine = _machine(rbm)
        mu, nu = (tensor.detach().clone().requires_grad_() for tensor in (mu, nu))
        value = dvaepp.boltzmann.cross_entropy(machine, mu, nu, n_groups)
        inputs = (mu, nu, machine.a1, machine.a2, machine.W)
        return CrossEntropyGradients(
            *torch.autograd.grad(value, inputs, upstream, allow_unused=True, materialize_grads=True)
        )

    def gibbs(
        self, rbm: Any, z1: Tensor, n_sweeps: int, seed: int, step: int, first_chain: int = 0
    ) -> tuple[Tensor, Tensor]:
        """``dvaepp.gibbs.sweep`` on the reference's uniforms."""
        machine, n_chains = _machine(rbm), len(z1)
        z2 = torch.empty((n_chains, machine.n2), dtype=z1.dtype)
        for now in range(step, step + n_sweeps):
            u2, u1 = (
                torch.tensor(philox.uniforms(seed, now, n_chains, n, stream, first_chain)).to(z1.dtype)
                for n, stream in ((machine.n2, philox.STREAM_Z2), (machine.n1, philox.STREAM_Z1))
            )
            z1, z2 = dvaepp.gibbs.sweep(machine, z1, u2, u1)
        return z1, z2

    def importance_log_mean(self, log_weights: Tensor, running: Any = None) -> LogMean:
        """``dvaepp.bound.StreamingLogMeanExp``, which is its own running state."""
        stream = StreamingLogMeanExp(len(log_weights), log_weights.device) if running is None else running.stream
        stream.add(log_weights)
        return _Running(stream.result(), stream)


class _Running(LogMean):
    """A ``LogMean`` that carries the stream it goes on with."""

    stream: StreamingLogMeanExp

    def __new__(cls, value: Tensor, stream: StreamingLogMeanExp) -> _Running:
        running = super().__new__(cls, value, stream._largest, stream._sum, stream._count)
        running.stream = stream
        return running


def _machine(rbm: Any) -> dvaepp.boltzmann.RBM:
    a1, a2, W = (torch.as_tensor(x) for x in (rbm.a1, rbm.a2, rbm.W))
    machine = dvaepp.boltzmann.RBM(*W.shape).to(W.dtype)
    with torch.no_grad():
        for parameter, value in ((machine.a1, a1), (machine.a2, a2), (machine.W, W)):
            parameter.copy_(value)
    return machine
