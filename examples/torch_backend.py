"""A backend in plain torch, as somebody outside this project might write one: enough of it to be judged.

    python -m validation --backend examples.torch_backend:create

It has one smoothing, the overlapping exponentials, and no tempering and annealing, and says so in ``kinds`` and
``lacks``. Formulas are the stable ones of a textbook, in the dtype of the arguments; the gradients of the cross-entropy
come from autograd. What a textbook leaves out is left out: products that leave the range of the numbers on their way,
``dzeta_dbeta`` as a difference of two numbers that may be equal, ``nu`` from a rounded logit. The verdict shows where.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelerated.protocol import Backend, CrossEntropyGradients, Entropy, LogMean, Smoothed
from reference import philox


class TorchBackend:
    """Plain torch on the CPU; its arrays are NumPy's, whose memory torch shares."""

    name = "torch_example"
    device: Literal["cpu"] = "cpu"
    kinds = ("exponential",)
    lacks: Mapping[str, str] = dict.fromkeys(("tempering", "ais", "reverse_ais"), "not written")

    def operations(self) -> frozenset[str]:
        """What is written."""
        sums = ("entropy", "cross_entropy", "cross_entropy_gradients", "importance_log_mean")
        return frozenset({"inverse_cdf", "gibbs", *sums})

    def asarray(self, array: Any) -> NDArray[Any]:
        """NumPy arrays are its own."""
        return np.asarray(array)

    def to_numpy(self, array: Any) -> NDArray[Any]:
        """NumPy arrays are its own."""
        return np.asarray(array)

    def inverse_cdf(
        self,
        kind: str,
        rho: Any,
        logit_q: Any,
        beta: float,
        extras: Collection[str] = ("dzeta_dlogit_q",),
        out: Smoothed | None = None,
    ) -> Smoothed:
        """Solve the quadratic p m^2 + B m - C = 0 for m = e^(-beta zeta), or for 1 - m, without cancellation."""
        if kind not in self.kinds:
            raise NotImplementedError(f"there is no {kind!r} here")
        found = _exponential(_tensor(rho), _tensor(logit_q), beta)._asdict()
        return _written({name: found[name].numpy() for name in ("zeta", *extras)}, out)

    def entropy(self, logit_q: Any) -> Entropy:
        """By the size of the logit, so that all terms are positive."""
        logits = _tensor(logit_q)
        size = logits.abs().clamp(max=torch.finfo(logits.dtype).max)
        small = (-size).exp()
        rare = small / (1 + small)
        slope = -logits.sign() * size * (-size / 2).exp() / (1 + small) ** 2 * (-size / 2).exp()
        return Entropy((size * rare + small.log1p()).sum(1).numpy(), slope.numpy())

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> NDArray[Any]:
        """-a'mu - sum of W_ij times what each of the two units is on average, given those of earlier groups."""
        return _cross_entropy(n_groups, *_tensors(rbm.a1, rbm.a2, rbm.W, mu, nu)).numpy()

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        """By automatic differentiation."""
        inputs = [tensor.clone().requires_grad_() for tensor in _tensors(rbm.a1, rbm.a2, rbm.W, mu, nu)]
        value = _cross_entropy(n_groups, *inputs)
        a1, a2, W, mu, nu = torch.autograd.grad(value, inputs, _tensor(upstream))
        return CrossEntropyGradients(*(gradient.numpy() for gradient in (mu, nu, a1, a2, W)))

    def gibbs(
        self,
        rbm: Any,
        z1: Any,
        n_sweeps: int,
        seed: int,
        step: int,
        first_chain: int = 0,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:
        """A unit is on where its logit exceeds that of its uniform, which is taken in float64."""
        a1, a2, W, first = _tensors(rbm.a1, rbm.a2, rbm.W, z1)
        second = first.new_zeros(len(first), len(a2))
        for now in range(step, step + n_sweeps):
            second = (a2 + first @ W > _logits(seed, now, second.shape, philox.STREAM_Z2, first_chain)).to(W.dtype)
            first = (a1 + second @ W.T > _logits(seed, now, first.shape, philox.STREAM_Z1, first_chain)).to(W.dtype)
        if out is None:
            return first.numpy(), second.numpy()
        for target, state in zip(out, (first, second), strict=True):
            np.copyto(target, state.numpy())
        return out

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        """Scaled by the largest weight so far."""
        weights = _tensor(log_weights).double()
        largest, n_weights = weights.amax(1), weights.shape[1]
        if running is not None:
            largest, n_weights = torch.maximum(largest, _tensor(running.largest)), n_weights + running.n_weights
        unit = torch.where(largest.isinf(), 0.0, largest)  # only weights of 0 so far
        total = (weights - unit[:, None]).exp().sum(1)
        if running is not None:
            total = total + _tensor(running.total) * (_tensor(running.largest) - unit).exp()
        value = unit + total.log() - np.log(n_weights)
        return LogMean(value.numpy(), largest.numpy(), total.numpy(), n_weights)


class Exponential(NamedTuple):
    """All that ``inverse_cdf`` may be asked for, of the shape of rho."""

    zeta: Tensor
    dzeta_dlogit_q: Tensor
    dzeta_drho: Tensor
    dzeta_dbeta: Tensor
    log_ratio: Tensor
    nu: Tensor


def _exponential(rho: Tensor, logit_q: Tensor, beta: float) -> Exponential:
    """With d = e^-beta, R = rho (1 - d) and C = q d: p m^2 + B m - C = 0, B = R - p + C, S^2 = B^2 + 4 p C.

    1 - m and 1 - w, w = e^(-beta (1 - zeta)), solve quadratics of positive terms only; the density is beta S / (1 - d).
    """
    b = torch.tensor(beta, dtype=rho.dtype)
    small = (-logit_q.abs()).exp()
    common, rare = 1 / (1 + small), small / (1 + small)
    p, q = torch.where(logit_q > 0, rare, common), torch.where(logit_q > 0, common, rare)
    d, norm = (-b).exp(), -torch.expm1(-b)
    R, from_end = rho * norm, (1 - rho) * norm
    B = torch.where(rho < 0.5, R - p + q * d, q - from_end - p * d)
    S = torch.hypot(B, 2 * (-(b + logit_q.abs()) / 2).exp() * common)

    from_0, from_1 = _distance(R, p, q * d), _distance(from_end, q, p * d)  # 1 - m and 1 - w
    end = (rho == 0) | (rho == 1)
    larger = torch.log((B.abs() + S) / 2)
    low = (-_softplus(logit_q) - larger) / b
    high = 1 + (larger + _softplus(-logit_q)) / b
    zeta = torch.where(B < 0, low, high)
    zeta = torch.where(S == 0, 0.5 - logit_q / (2 * b), zeta)  # between two modes, where S is too small to be held
    zeta = torch.where(from_0 < 0.5, -torch.log1p(-from_0) / b, zeta).clamp(0, 1)
    zeta = torch.where(end, rho, zeta)

    x0, x1 = b * zeta, torch.where(from_1 < 0.5, -torch.log1p(-from_1), b * (1 - zeta))
    by_beta = q * from_1 * (_odds(x1) - _odds(b)) - p * from_0 * (_odds(x0) - _odds(b))
    log_ratio = b * (2 * zeta - 1)
    largest = torch.finfo(rho.dtype).max
    by_logit = torch.minimum(p, q) * (torch.maximum(p, q) / S) * from_0 * from_1 / b
    return Exponential(
        zeta,
        dzeta_dlogit_q=torch.where(end | (S == 0), 0.0, by_logit),
        dzeta_drho=(norm / (b * S)).clamp(max=largest),
        dzeta_dbeta=torch.where(end | (S == 0), 0.0, by_beta / (b * b * S)),
        log_ratio=log_ratio,
        nu=torch.exp(-_softplus(-logit_q - log_ratio)),
    )


def _distance(R: Tensor, p: Tensor, C: Tensor) -> Tensor:
    """1 - m of the quadratic; 0 where nothing is left of any term."""
    distance = 2 * R / (p + R + C + torch.hypot(p - R + C, 2 * R.sqrt() * C.sqrt()))
    return torch.where(R == 0, 0.0, distance)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own is x beyond a threshold, with an error of 1e-10 in float64."""
    return x.clamp(min=0) + torch.log1p((-x.abs()).exp())


def _odds(x: Tensor) -> Tensor:
    """x / (e^x - 1), which falls from 1 at 0."""
    return torch.where(x == 0, 1.0, x / torch.expm1(x))


def _cross_entropy(n_groups: int, a1: Tensor, a2: Tensor, W: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
    n1 = len(a1)
    group = torch.arange(mu.shape[1]) // (mu.shape[1] // n_groups)
    earlier = group[:n1, None] < group[n1:]
    mu1, mu2 = mu[:, :n1], mu[:, n1:]
    field = mu1 @ (W * ~earlier) + nu[:, :n1] @ (W * earlier)
    return -(mu1 @ a1) - mu2 @ a2 - (field * mu2).sum(1)


def _logits(seed: int, step: int, shape: tuple[int, ...], stream: int, first_chain: int) -> Tensor:
    """Logits of the uniforms that all backends share."""
    return torch.logit(torch.from_numpy(philox.uniforms(seed, step, shape[0], shape[1], stream, first_chain)))


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array))


def _tensors(*arrays: Any) -> tuple[Tensor, ...]:
    return tuple(_tensor(array) for array in arrays)


def _written(found: dict[str, NDArray[Any]], out: Smoothed | None) -> Smoothed:
    if out is None:
        return Smoothed(**found)
    for name, value in found.items():
        np.copyto(getattr(out, name), value)
    return Smoothed(**{name: getattr(out, name) for name in found})


def create() -> Backend:
    """What the entry point or ``module:object`` names."""
    backend: Any = TorchBackend()  # the protocol has operations that this one says it lacks
    return backend
