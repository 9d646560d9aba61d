"""What a user could pick instead of our kernels, each written the way its own documentation would have it.

A peer that cannot run here (a library that is not installed, a compiler that is missing) is left out and named with the
reason: see ``Missing``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Missing:
    """Why a peer is not in a table."""

    reason: str


Peer = Callable[[], Any] | Missing


@dataclass(frozen=True)
class GibbsProblem:
    """A float32 machine and states to start from."""

    a1: NDArray[np.float32]
    a2: NDArray[np.float32]
    W: NDArray[np.float32]
    z1: NDArray[np.float32]
    n_sweeps: int

    @classmethod
    def random(cls, n1: int, n2: int, n_chains: int, n_sweeps: int, seed: int = 0) -> GibbsProblem:
        """Couplings of the scale a trained prior of this size has."""
        rng = np.random.default_rng(seed)
        W = rng.normal(scale=2 / math.sqrt(n1), size=(n1, n2))
        biases = rng.normal(scale=0.5, size=n1), rng.normal(scale=0.5, size=n2)
        a1, a2, z1 = (part.astype(np.float32) for part in (*biases, rng.random((n_chains, n1)) < 0.5))
        return cls(a1, a2, W.astype(np.float32), z1, n_sweeps)

    @property
    def n_updates(self) -> int:
        """Units drawn in one call."""
        return len(self.z1) * (len(self.a1) + len(self.a2)) * self.n_sweeps

    def tensors(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """a1, a2, W, z1 as torch tensors."""
        return tuple(torch.from_numpy(x).to(device) for x in (self.a1, self.a2, self.W, self.z1))


# ---- block Gibbs -------------------------------------------------------------------------------------------------


def torch_sweep(a1: Tensor, a2: Tensor, W: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
    """One sweep by ``rand < sigmoid``: the fastest of the plain forms."""
    z2 = (torch.rand(len(z1), len(a2), device=z1.device) < torch.sigmoid(torch.addmm(a2, z1, W))).to(z1.dtype)
    z1 = (torch.rand(z1.shape, device=z1.device) < torch.sigmoid(torch.addmm(a1, z2, W.T))).to(z1.dtype)
    return z1, z2


def torch_rand(problem: GibbsProblem) -> Peer:
    """torch, ``rand < sigmoid``."""
    a1, a2, W, start = problem.tensors()

    def run() -> tuple[Tensor, Tensor]:
        z1 = start
        for _ in range(problem.n_sweeps):
            z1, z2 = torch_sweep(a1, a2, W, z1)
        return z1, z2

    return run


def torch_bernoulli(problem: GibbsProblem) -> Peer:
    """torch, ``bernoulli(sigmoid)``."""
    a1, a2, W, start = problem.tensors()

    def run() -> tuple[Tensor, Tensor]:
        z1 = start
        for _ in range(problem.n_sweeps):
            z2 = torch.bernoulli(torch.sigmoid(torch.addmm(a2, z1, W)))
            z1 = torch.bernoulli(torch.sigmoid(torch.addmm(a1, z2, W.T)))
        return z1, z2

    return run


def torch_compiled(problem: GibbsProblem) -> Peer:
    """torch, one sweep of ``rand < sigmoid`` through ``torch.compile``."""
    a1, a2, W, start = problem.tensors()
    compiled = torch.compile(torch_sweep)
    try:
        compiled(a1, a2, W, start)
    except Exception as error:  # whatever the compiler of this machine may lack
        return Missing(f"torch.compile fails here: {str(error).strip().splitlines()[0]}")

    def run() -> tuple[Tensor, Tensor]:
        z1 = start
        for _ in range(problem.n_sweeps):
            z1, z2 = compiled(a1, a2, W, z1)
        return z1, z2

    return run


def numpy_in_place(problem: GibbsProblem) -> Peer:
    """NumPy float32, every intermediate result in its place."""
    rng = np.random.default_rng(0)
    a1, a2, W = problem.a1, problem.a2, problem.W
    n_chains = len(problem.z1)
    z1, z2 = problem.z1.copy(), np.empty((n_chains, len(a2)), np.float32)
    buffers = {id(z1): np.empty_like(z1), id(z2): np.empty_like(z2)}

    def draw(source: NDArray[np.float32], couplings: NDArray[np.float32], bias: NDArray[np.float32], z: Any) -> None:
        u = buffers[id(z)]
        np.matmul(source, couplings, out=z)
        z += bias
        np.negative(z, out=z)
        np.exp(z, out=z)
        z += 1
        rng.random(out=u, dtype=np.float32)
        u *= z
        np.less(u, 1, out=z, casting="unsafe")

    def run() -> tuple[Any, Any]:
        for _ in range(problem.n_sweeps):
            draw(z1, W, a2, z2)
            draw(z2, W.T, a1, z1)
        return z1, z2

    return run


def two_matrix_products(problem: GibbsProblem) -> Peer:
    """The two matrix products of a sweep and nothing else: a ceiling for every method that does them."""
    _, _, W, z1 = problem.tensors()
    z2 = torch.empty(len(z1), W.shape[1])
    back = torch.empty_like(z1)

    def run() -> Tensor:
        for _ in range(problem.n_sweeps):
            torch.mm(z1, W, out=z2)
            torch.mm(z2, W.T, out=back)
        return back

    return run


def scikit_learn(problem: GibbsProblem) -> Peer:
    """scikit-learn, ``BernoulliRBM.gibbs``."""
    try:
        from sklearn.neural_network import BernoulliRBM
    except ImportError as error:
        return Missing(str(error))
    rbm = BernoulliRBM(n_components=len(problem.a2), random_state=0)
    rbm.components_ = problem.W.T.copy()
    rbm.intercept_hidden_, rbm.intercept_visible_ = problem.a2, problem.a1
    rbm.random_state_ = np.random.RandomState(0)
    rbm.n_features_in_ = len(problem.a1)

    def run() -> Any:
        z1 = problem.z1
        for _ in range(problem.n_sweeps):
            z1 = rbm.gibbs(z1)
        return z1

    return run


def rbms_machine(problem: GibbsProblem, device: str = "cpu") -> Any:
    """The machine of the ``rbms`` package.

    Raises   ImportError where it is not installed.
    """
    from rbms.bernoulli_bernoulli.classes import BBRBM

    a1, a2, W, _ = problem.tensors(device)
    return BBRBM(weight_matrix=W, vbias=a1, hbias=a2)


def rbms(problem: GibbsProblem) -> Peer:
    """The ``rbms`` package, ``sample_state``."""
    try:
        machine = rbms_machine(problem)
    except ImportError as error:
        return Missing(str(error))
    chains = machine.init_chains(num_samples=len(problem.z1))
    return lambda: machine.sample_state(n_steps=problem.n_sweeps, chains=chains, beta=1.0)


#: Peers of block Gibbs, by the name they have in the tables.
GIBBS: dict[str, Callable[[GibbsProblem], Peer]] = {
    "two matrix products alone": two_matrix_products,
    "torch, rand < sigmoid": torch_rand,
    "torch, rand < sigmoid, torch.compile": torch_compiled,
    "NumPy float32, in place": numpy_in_place,
    "torch, bernoulli(sigmoid)": torch_bernoulli,
    "scikit-learn BernoulliRBM.gibbs": scikit_learn,
    "rbms sample_state": rbms,
}


# ---- annealed importance sampling --------------------------------------------------------------------------------


def torch_ais(problem: GibbsProblem, n_temperatures: int) -> Peer:
    """The textbook loop in torch: a uniform base, both sides resampled, weights in the marginal over z1."""
    a1, a2, W, start = problem.tensors()
    steps = torch.linspace(0, 1, n_temperatures + 1).tolist()
    softplus = torch.nn.functional.softplus

    def run() -> float:
        z1 = (torch.rand(start.shape) < 0.5).float()
        log_weight = torch.full((len(z1),), (len(a1) + len(a2)) * math.log(2))
        for here, there in itertools.pairwise(steps):
            field = torch.addmm(a2, z1, W)
            log_weight += (there - here) * (z1 @ a1) + (softplus(there * field) - softplus(here * field)).sum(1)
            z2 = (torch.rand(field.shape) < torch.sigmoid(there * field)).float()
            z1 = (torch.rand(z1.shape) < torch.sigmoid(there * torch.addmm(a1, z2, W.T))).float()
        return float(torch.logsumexp(log_weight, 0) - math.log(len(z1)))

    return run


def numpy_ais(problem: GibbsProblem, n_temperatures: int) -> Peer:
    """The textbook loop in NumPy."""
    a1, a2, W = problem.a1, problem.a2, problem.W
    rng = np.random.default_rng(0)
    steps = np.linspace(0, 1, n_temperatures + 1, dtype=np.float32)

    def draw(logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return (rng.random(logits.shape, dtype=np.float32) < 1 / (1 + np.exp(-logits))).astype(np.float32)

    def run() -> float:
        z1 = (rng.random(problem.z1.shape, dtype=np.float32) < 0.5).astype(np.float32)
        log_weight = np.full(len(z1), (len(a1) + len(a2)) * math.log(2))
        for here, there in itertools.pairwise(steps):
            field = z1 @ W + a2
            log_weight += (there - here) * (z1 @ a1)
            log_weight += (np.logaddexp(0, there * field) - np.logaddexp(0, here * field)).sum(1)
            z2 = draw(there * field)
            z1 = draw(there * (z2 @ W.T + a1))
        return float(np.logaddexp.reduce(log_weight) - math.log(len(z1)))

    return run


def rbms_ais(problem: GibbsProblem, n_temperatures: int) -> Peer:
    """The ``rbms`` package, ``compute_partition_function_ais``."""
    try:
        from rbms.partition_function.ais import compute_partition_function_ais

        machine = rbms_machine(problem)
    except ImportError as error:
        return Missing(str(error))
    return lambda: compute_partition_function_ais(len(problem.z1), n_temperatures + 1, machine)


#: Peers of annealing, by the name they have in the tables; each returns its estimate of log Z.
AIS: dict[str, Callable[[GibbsProblem, int], Peer]] = {
    "textbook torch": torch_ais,
    "textbook NumPy": numpy_ais,
    "rbms compute_partition_function_ais": rbms_ais,
}


# ---- the inverse CDF of the overlapping exponentials ---------------------------------------------------------------


def plain_inverse_cdf(rho: Tensor, logit_q: Tensor, beta: float) -> Tensor:
    """Eq. (3) of the paper as it is printed, in plain torch: NaN or inf for large logits or sharpnesses."""
    q = torch.sigmoid(logit_q)
    d = math.exp(-beta)
    b = (rho + d * (q - rho)) / (1 - q) - 1
    c = -(q * d) / (1 - q)
    return -torch.log((-b + torch.sqrt(b * b - 4 * c)) / 2) / beta


def forward_and_backward(sample: Callable[[Tensor], Tensor], logit_q: Tensor) -> Callable[[], Tensor]:
    """A call that draws a sample and sends a gradient of ones back to the logits."""
    logit = logit_q.clone().requires_grad_()
    upstream = torch.ones_like(logit_q)

    def run() -> Tensor:
        (gradient,) = torch.autograd.grad(sample(logit), logit, upstream)
        return gradient

    return run


def relaxed_bernoulli(logit_q: Tensor, temperature: float = 0.1) -> Callable[[], Tensor]:
    """torch.distributions.RelaxedBernoulli, sample and backward: the relaxation torch's users know."""
    relaxed = torch.distributions.RelaxedBernoulli
    at = torch.tensor(temperature)
    return forward_and_backward(lambda logit: relaxed(at, logits=logit, validate_args=False).rsample(), logit_q)
