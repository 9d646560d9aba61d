"""The operations of ``accelerated`` as operators of torch, and its samplers on torch's tensors. Nothing is copied.

    zeta = bridge.inverse_cdf("exponential", rho, logit_q, beta, "numba_cpu")
    bridge.gibbs_(a1, a2, W, z1, z2, step, n_sweeps, seed, "numba_cpu")

A backend works on the memory of the tensors: NumPy views of it on the CPU; on a CUDA device the tensors themselves,
which speak ``__cuda_array_interface__`` and DLPack, on the caller's current stream. What is differentiated is a custom
operator (``torch.ops.dvaepp``), with shapes for tracing and a registered derivative, so that ``torch.compile`` keeps it
whole. Derivatives are the backend's own; the derivative of a derivative is refused.

Dtypes are float32 and float64, devices those of the backend; a backend refuses what does not fit it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from accelerated import Backend
from accelerated.protocol import CrossEntropyGradients, Entropy, Machine, Smoothed
from dvaepp.backend import load
from reference.vocabulary import ShapeError

#: The derivatives that ``_inverse_cdf`` returns after zeta, in its order; those of rho and beta cost extra.
_DERIVATIVES = ("dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")

_UNSIGNED = 2**64  # operators take signed 64-bit numbers; a seed is unsigned


@contextlib.contextmanager
def _at_work(name: str, **tensors: Tensor) -> Iterator[Backend]:
    """The backend, on the device of the tensors and its caller's current stream.

    Raises   TypeError naming the first tensor that lies elsewhere.
    """
    backend = load(name)
    devices = [tensor.device for tensor in tensors.values()]
    for argument, device in zip(tensors, devices, strict=True):
        if device.type != backend.device or device != devices[0]:
            where = devices[0] if devices[0].type == backend.device else backend.device
            raise TypeError(f"{argument} must be on {where} for the backend {name!r}; it is on {device}")
    if backend.device == "cpu":
        yield backend
        return
    on_device: Any = backend  # backends of a device, and only they, have a stream
    with torch.cuda.device(devices[0]), on_device.on_stream(torch.cuda.current_stream().cuda_stream):
        yield backend


def _array(tensor: Tensor) -> Any:
    """The tensor's memory as an array: of NumPy on the CPU, else the tensor itself."""
    tensor = tensor.detach()
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _tensor(array: Any) -> Tensor:
    """An array's memory as a tensor: by DLPack, or by ``__cuda_array_interface__`` for those who speak only that."""
    return torch.from_dlpack(array) if hasattr(array, "__dlpack__") else torch.as_tensor(array)


def _machine(a1: Tensor, a2: Tensor, W: Tensor) -> Machine:
    return Machine(_array(a1), _array(a2), _array(W))


# ---- once differentiable ---------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "dvaepp::chain_rule",
    mutates_args=(),
    schema="(Tensor upstream, Tensor derivative, Tensor[] of, str operation) -> Tensor",
)
def _chain_rule(upstream: Tensor, derivative: Tensor, of: Sequence[Tensor], operation: str) -> Tensor:
    """upstream * derivative, where ``of`` are the tensors that the derivative is a function of.

    It does not compute with them. They are there to be differentiated by, which is refused: without them a second
    derivative would silently be that of a constant, zero.
    """
    return upstream * derivative


@_chain_rule.register_fake
def _(upstream: Tensor, derivative: Tensor, of: Sequence[Tensor], operation: str) -> Tensor:
    return upstream * derivative


def _once(upstream: Tensor, derivative: Tensor, of: Sequence[Tensor], operation: str) -> Tensor:
    """The chain rule in a backward pass; by the operator, which takes longer, only if it may be differentiated."""
    return _chain_rule(upstream, derivative, of, operation) if torch.is_grad_enabled() else upstream * derivative


def _refuse(operation: str) -> None:
    raise RuntimeError(f"{operation} is differentiable once; its second derivatives are not implemented")


_chain_rule.register_autograd(
    lambda ctx, grad: _refuse(ctx.operation),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "operation", inputs[3]),
)


# ---- the inverse CDF -------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "dvaepp::inverse_cdf",
    mutates_args=(),
    schema=(
        "(Tensor rho, Tensor logit_q, Tensor beta, str kind, bool by_logit_q, bool by_rho, bool by_beta, str backend)"
        " -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _inverse_cdf(
    rho: Tensor, logit_q: Tensor, beta: Tensor, kind: str, by_logit_q: bool, by_rho: bool, by_beta: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """zeta and its derivatives; see ``accelerated.protocol.Backend.inverse_cdf``. Those not asked for are empty."""
    wanted = (by_logit_q, by_rho, by_beta)
    results = [_like(rho), *(_like(rho) if asked else rho.new_empty(0) for asked in wanted)]
    extras = [name for name, asked in zip(_DERIVATIVES, wanted, strict=True) if asked]
    out = Smoothed(
        _array(results[0]), *(_array(x) if asked else None for x, asked in zip(results[1:], wanted, strict=True))
    )
    with _at_work(backend, rho=rho, logit_q=logit_q) as running:
        running.inverse_cdf(kind, _array(rho), _array(logit_q), beta.item(), extras, out)
    return results[0], results[1], results[2], results[3]


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


@_inverse_cdf.register_fake
def _(
    rho: Tensor, logit_q: Tensor, beta: Tensor, kind: str, by_logit_q: bool, by_rho: bool, by_beta: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    derivatives = [_like(rho) if asked else rho.new_empty(0) for asked in (by_logit_q, by_rho, by_beta)]
    return _like(rho), derivatives[0], derivatives[1], derivatives[2]


def _save_inverse_cdf(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rho, logit_q, beta, _, *asked, _ = inputs
    ctx.asked = asked
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:], rho, logit_q, beta)


def _differentiate_inverse_cdf(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    by_logit_q, by_rho, by_beta, *of = ctx.saved_tensors

    def gradient(derivative: Tensor) -> Tensor:
        return _once(upstream, derivative, of, "inverse_cdf")

    needs_rho, needs_logit_q, needs_beta = ctx.needs_input_grad[:3]
    for needed, asked in zip((needs_logit_q, needs_rho, needs_beta), ctx.asked, strict=True):
        if needed and not asked:
            raise RuntimeError("dvaepp::inverse_cdf must be told what will be differentiated by")
    return (
        gradient(by_rho) if needs_rho else None,
        gradient(by_logit_q) if needs_logit_q else None,
        gradient(by_beta).sum().to(of[2]).view_as(of[2]) if needs_beta else None,
        *(None for _ in range(5)),
    )


_inverse_cdf.register_autograd(_differentiate_inverse_cdf, setup_context=_save_inverse_cdf)


def inverse_cdf(kind: str, rho: Tensor, logit_q: Tensor, beta: float | Tensor, backend: str) -> Tensor:
    """Smoothed samples, differentiable once in all three; see ``accelerated.protocol.Backend.inverse_cdf``.

    Shapes   rho and logit_q of one shape, on one device; beta a number or a tensor of one entry, on any device. One on
             a CUDA device is waited for.
    Raises   what the backend raises; RuntimeError for a second derivative.
    """
    sharpness = beta if isinstance(beta, Tensor) else torch.tensor(beta, dtype=torch.float64)
    if sharpness.numel() != 1:
        raise ShapeError(f"beta must be one number for the backend {backend!r}; got {tuple(sharpness.shape)}")
    asked = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (logit_q, rho, sharpness)]
    return _inverse_cdf(rho, logit_q, sharpness, kind, *asked, backend)[0]


# ---- the entropy -----------------------------------------------------------------------------------------------------


@torch.library.custom_op("dvaepp::entropy", mutates_args=(), schema="(Tensor logit_q, str backend) -> (Tensor, Tensor)")
def _entropy(logit_q: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    with _at_work(backend, logit_q=logit_q) as running:
        result: Entropy = running.entropy(_array(logit_q))
        return _tensor(result.value), _tensor(result.dvalue_dlogit_q)


@_entropy.register_fake
def _(logit_q: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return logit_q.new_empty(logit_q.shape[:1]), _like(logit_q)


def _save_entropy(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], inputs[0])


def _differentiate_entropy(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None]:
    derivative, logit_q = ctx.saved_tensors
    return _once(upstream[:, None], derivative, [logit_q], "entropy"), None


_entropy.register_autograd(_differentiate_entropy, setup_context=_save_entropy)


def entropy(logit_q: Tensor, backend: str) -> Tensor:
    """Entropy of each row, differentiable once; see ``accelerated.protocol.Backend.entropy``."""
    return _entropy(logit_q, backend)[0]


# ---- the cross-entropy -----------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "dvaepp::cross_entropy",
    mutates_args=(),
    schema="(Tensor a1, Tensor a2, Tensor W, Tensor mu, Tensor nu, int n_groups, str backend) -> Tensor",
)
def _cross_entropy(a1: Tensor, a2: Tensor, W: Tensor, mu: Tensor, nu: Tensor, n_groups: int, backend: str) -> Tensor:
    with _at_work(backend, a1=a1, a2=a2, W=W, mu=mu, nu=nu) as running:
        return _tensor(running.cross_entropy(_machine(a1, a2, W), _array(mu), _array(nu), n_groups))


@_cross_entropy.register_fake
def _(a1: Tensor, a2: Tensor, W: Tensor, mu: Tensor, nu: Tensor, n_groups: int, backend: str) -> Tensor:
    return mu.new_empty(mu.shape[:1])


@torch.library.custom_op(
    "dvaepp::cross_entropy_gradients",
    mutates_args=(),
    schema=(
        "(Tensor a1, Tensor a2, Tensor W, Tensor mu, Tensor nu, Tensor upstream, int n_groups, str backend)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _cross_entropy_gradients(
    a1: Tensor, a2: Tensor, W: Tensor, mu: Tensor, nu: Tensor, upstream: Tensor, n_groups: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    with _at_work(backend, a1=a1, a2=a2, W=W, mu=mu, nu=nu, upstream=upstream) as running:
        result: CrossEntropyGradients = running.cross_entropy_gradients(
            _machine(a1, a2, W), _array(mu), _array(nu), n_groups, _array(upstream)
        )
        return tuple(map(_tensor, (result.a1, result.a2, result.W, result.mu, result.nu)))  # type: ignore[return-value]


@_cross_entropy_gradients.register_fake
def _(
    a1: Tensor, a2: Tensor, W: Tensor, mu: Tensor, nu: Tensor, upstream: Tensor, n_groups: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _like(a1), _like(a2), _like(W), _like(mu), _like(nu)


_cross_entropy_gradients.register_autograd(lambda ctx, *grads: _refuse("cross_entropy"))


def _save_cross_entropy(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.n_groups, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_cross_entropy(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _cross_entropy_gradients(*ctx.saved_tensors, upstream, ctx.n_groups, ctx.backend)
    return *gradients, None, None


_cross_entropy.register_autograd(_differentiate_cross_entropy, setup_context=_save_cross_entropy)


def cross_entropy(a1: Tensor, a2: Tensor, W: Tensor, mu: Tensor, nu: Tensor, n_groups: int, backend: str) -> Tensor:
    """Expected energy of each row, differentiable once; see ``accelerated.protocol.Backend.cross_entropy``."""
    return _cross_entropy(a1, a2, W, mu, nu, n_groups, backend)


# ---- samplers --------------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "dvaepp::gibbs_",
    mutates_args=("z1", "z2", "step"),
    schema=(
        "(Tensor a1, Tensor a2, Tensor W, Tensor(a!) z1, Tensor(b!) z2, Tensor(c!) step,"
        " int n_sweeps, int seed, str backend, int first_chain) -> ()"
    ),
)
def _gibbs_(
    a1: Tensor,
    a2: Tensor,
    W: Tensor,
    z1: Tensor,
    z2: Tensor,
    step: Tensor,
    n_sweeps: int,
    seed: int,
    backend: str,
    first_chain: int,
) -> None:
    with _at_work(backend, a1=a1, a2=a2, W=W, z1=z1, z2=z2, step=step) as running:
        states = _array(z1), _array(z2)
        # On a device the kernel reads the counter when it runs: a captured graph goes on at each replay.
        now = step.item() if running.device == "cpu" else step.view(1)
        running.gibbs(_machine(a1, a2, W), states[0], n_sweeps, seed % _UNSIGNED, now, first_chain, out=states)
        step.add_(n_sweeps)


@_gibbs_.register_fake
def _(
    a1: Tensor,
    a2: Tensor,
    W: Tensor,
    z1: Tensor,
    z2: Tensor,
    step: Tensor,
    n_sweeps: int,
    seed: int,
    backend: str,
    first_chain: int,
) -> None:
    return None


@torch.no_grad()
def gibbs_(
    a1: Tensor,
    a2: Tensor,
    W: Tensor,
    z1: Tensor,
    z2: Tensor,
    step: Tensor,
    n_sweeps: int,
    seed: int,
    backend: str,
    first_chain: int = 0,
) -> None:
    """Carry chains ``n_sweeps`` sweeps on, in place; see ``accelerated.protocol.Backend.gibbs``. ``step`` moves on too.

    Shapes   z1 (B, N1), z2 (B, N2) contiguous, step () int64, on the machine's device
    """
    signed = seed - _UNSIGNED if seed >= _UNSIGNED // 2 else seed
    _gibbs_(a1.detach(), a2.detach(), W.detach(), z1, z2, step, n_sweeps, signed, backend, first_chain)


class Replicas(NamedTuple):
    """All replicas after some rounds, and the exchanges accepted; see ``accelerated.protocol.TemperedReplicas``."""

    z1: Tensor
    z2: Tensor
    n_accepted: Tensor


def tempering(
    parameters: tuple[Tensor, Tensor, Tensor],
    inv_temps: Tensor,
    n_chains: int,
    n_rounds: int,
    seed: int,
    first_round: int,
    z1: Tensor | None,
    backend: str,
) -> Replicas:
    """Rounds of parallel tempering; see ``accelerated.protocol.Backend.tempering``.

    Shapes   parameters a1 (N1,), a2 (N2,), W (N1, N2); inv_temps (R,) on any device; z1 None or (R C, N1)
    """
    a1, a2, W = parameters
    with _at_work(backend, a1=a1, a2=a2, W=W) as running:
        start = None if z1 is None else _array(z1)
        ladder = inv_temps.double().cpu().numpy()
        result = running.tempering(_machine(a1, a2, W), ladder, n_chains, n_rounds, seed, first_round, start)
        return Replicas(*map(_tensor, result))


def ais(
    parameters: tuple[Tensor, Tensor, Tensor],
    base: tuple[Tensor, Tensor],
    inv_temps: Tensor,
    n_chains: int,
    seed: int,
    backend: str,
) -> Tensor:
    """Log-weights of forward annealing, (n_chains,) float64; see ``accelerated.protocol.Backend.ais``.

    Shapes   parameters as in ``tempering``; base a1 (N1,), a2 (N2,); inv_temps (K + 1,) on any device
    """
    a1, a2, W = parameters
    with _at_work(backend, a1=a1, a2=a2, W=W, base_a1=base[0], base_a2=base[1]) as running:
        biases, path = (_array(base[0]), _array(base[1])), inv_temps.double().cpu().numpy()
        return _tensor(running.ais(_machine(a1, a2, W), biases, path, n_chains, seed))


def reverse_ais(
    parameters: tuple[Tensor, Tensor, Tensor],
    base: tuple[Tensor, Tensor],
    inv_temps: Tensor,
    z1: Tensor,
    seed: int,
    backend: str,
) -> Tensor:
    """Log-weights of reverse annealing, (B,) float64; see ``accelerated.protocol.Backend.reverse_ais``.

    Shapes   as ``ais``; z1 (B, N1) samples of the machine
    """
    a1, a2, W = parameters
    with _at_work(backend, a1=a1, a2=a2, W=W, base_a1=base[0], base_a2=base[1], z1=z1) as running:
        biases, path = (_array(base[0]), _array(base[1])), inv_temps.double().cpu().numpy()
        return _tensor(running.reverse_ais(_machine(a1, a2, W), biases, path, _array(z1), seed))
