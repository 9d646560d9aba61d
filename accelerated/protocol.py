"""What a backend offers. Each operation is defined by a function of ``reference`` and has that function's meaning.

Arrays are the backend's own: NumPy for the backends that run on the CPU; for those that run on a CUDA device, whatever
lives there and speaks ``__cuda_array_interface__`` (CuPy, Numba, torch); with ``cupy_raw`` DLPack alone will do too.
``asarray`` and ``to_numpy`` lead there and back. float32 arrays are computed in float32's precision and float64 ones in
float64's; all floating arrays of one call have one dtype. Any strides are fine for what is read; ``out`` must be
C-contiguous.

A backend may say three things more, which ``validation`` goes by. ``kinds``, a tuple of some of ``KINDS``: the
smoothings that its ``inverse_cdf`` has, and ``extras``, some of ``EXTRAS``: what it can compute beside zeta; without
them, all. ``lacks``, a mapping from operations to sentences: why it does not have them.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

#: The smoothings with kernels, by name; see the classes of ``reference.smoothing``.
KINDS = ("exponential", "logistic", "spike_exponential", "power")

#: What ``inverse_cdf`` can compute beside zeta.
EXTRAS = ("dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta", "log_ratio", "nu")


class Machine(NamedTuple):
    """An RBM in the backend's arrays: a1 (N1,), a2 (N2,), W (N1, N2). A ``reference.vocabulary.RBM`` will do too."""

    a1: Any
    a2: Any
    W: Any


class Smoothed(NamedTuple):
    """A smoothed sample and what was asked for with it, all of the shape of rho and logit_q; None: not asked for."""

    zeta: Any
    dzeta_dlogit_q: Any = None
    dzeta_drho: Any = None
    dzeta_dbeta: Any = None
    log_ratio: Any = None
    nu: Any = None


class Entropy(NamedTuple):
    """Entropy in nats of each row's units together, (B,), and its derivative in the logits, (B, N)."""

    value: Any
    dvalue_dlogit_q: Any


class CrossEntropyGradients(NamedTuple):
    """Gradients of sum over rows of upstream * cross-entropy: in mu and nu (B, N), a1 (N1,), a2 (N2,), W (N1, N2)."""

    mu: Any
    nu: Any
    a1: Any
    a2: Any
    W: Any


class TemperedReplicas(NamedTuple):
    """All replicas after some rounds: z1 (R C, N1), z2 (R C, N2); row r C + c is replica r of chain c.

    The last C rows are samples at inverse temperature 1. n_accepted (R - 1,) int64 counts the exchanges accepted
    between replicas r and r + 1 in these rounds.
    """

    z1: Any
    z2: Any
    n_accepted: Any


class LogMean(NamedTuple):
    """A running log-mean-exp of B rows: value (B,) so far, and what is needed to go on; all float64.

    ``largest`` (B,) is the largest log-weight so far, ``total`` (B,) the sum of exp(w - largest), ``n_weights`` how
    many there were.
    """

    value: Any
    largest: Any
    total: Any
    n_weights: int


@runtime_checkable
class Backend(Protocol):
    """The operations of one backend.

    ``name`` is the file it lives in, and ``operations()`` says which of the methods below it has; a backend that lacks
    one says why in its file. A module in ``accelerated.backends`` provides ``create() -> Backend``, which raises
    ``BackendUnavailable`` if it cannot run here.

    Shapes, dtypes and devices are always checked, counts and seeds too. Values are looked into only where looking is
    free, on the CPU: a backend on a device would have to wait for it. Where they are not: NaN gives NaN, a rho outside
    [0, 1] gives NaN, and a state that is not 0 counts as 1.
    """

    @property
    def name(self) -> str:
        """Name by which ``accelerated.load`` finds it."""
        ...

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where its arrays live."""
        ...

    def operations(self) -> frozenset[str]:
        """Names of the operations this backend has."""
        ...

    def asarray(self, array: Any) -> Any:
        """The NumPy array as an array of this backend."""
        ...

    def to_numpy(self, array: Any) -> Any:
        """An array of this backend as a NumPy array."""
        ...

    def inverse_cdf(
        self,
        kind: str,
        rho: Any,
        logit_q: Any,
        beta: float,
        extras: Collection[str] = ("dzeta_dlogit_q",),
        out: Smoothed | None = None,
    ) -> Smoothed:
        """Smoothed samples, and in the same pass the derivatives and the posterior that ``extras`` names.

        See ``reference.smoothing.Smoothing.inverse_cdf_with_derivatives``, ``.log_ratio`` and ``.nu``; where a true
        derivative overflows the result is the largest finite number, as there. log_ratio and nu belong to the zeta that
        is returned, after it was rounded. The log_ratio of the spike-and-exponential is -inf at the spike and +inf
        elsewhere.

        Shapes   rho, logit_q of one shape -> that shape
        Domain   kind in ``KINDS``; beta positive and finite, rounded to the dtype of the arrays; extras of ``EXTRAS``
        Units    log_ratio: nats
        Raises   DomainError for an unknown kind or extra, ShapeError, TypeError for arrays that do not fit.
        """
        ...

    def entropy(self, logit_q: Any) -> Entropy:
        """Entropy of a factorial posterior, row by row; see ``reference.bernoulli.entropy``.

        Shapes   logit_q (B, N) -> (B,), (B, N)
        Domain   all logits; 0 with derivative 0 for an infinite one
        Units    nats
        Raises   ShapeError, TypeError for arrays that do not fit.
        """
        ...

    def cross_entropy(self, rbm: Any, mu: Any, nu: Any, n_groups: int) -> Any:
        """Expected energy under a hierarchical posterior; see ``reference.boltzmann_kl.cross_entropy``.

        Shapes   mu, nu (B, N1 + N2) -> (B,)
        Domain   n_groups divides N1 + N2
        Units    nats
        Raises   ShapeError, DomainError, TypeError for arguments that do not fit.
        """
        ...

    def cross_entropy_gradients(
        self, rbm: Any, mu: Any, nu: Any, n_groups: int, upstream: Any
    ) -> CrossEntropyGradients:
        """Gradients of the rows' cross-entropies, weighted by ``upstream`` and summed.

        See ``reference.boltzmann_kl.kl_with_gradients``.

        Shapes   mu, nu (B, N1 + N2), upstream (B,)
        Domain   as ``cross_entropy``
        Units    nats
        Raises   as ``cross_entropy``.
        """
        ...

    def gibbs(
        self,
        rbm: Any,
        z1: Any,
        n_sweeps: int,
        seed: int,
        step: Any,
        first_chain: int = 0,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:
        """Carry Gibbs chains ``n_sweeps`` sweeps on from z1; see ``reference.gibbs.PersistentChains.run``.

        The uniforms are those of Philox at (seed, step), (seed, step + 1), ..., for chains first_chain, first_chain +
        1, ...; so a chain can be stopped, split off and continued, and its bits agree with the reference wherever no
        uniform lies within rounding of its probability (``validation.agreement`` states the band).

        Shapes   z1 (B, N1) -> z1 (B, N1), z2 (B, N2); ``out`` may hold z1 itself
        Domain   z1 in {0, 1}; n_sweeps >= 1; seed, step as in ``reference.philox.uniforms``. On a CUDA device step may
                 also be an int64 array of one entry there, read when the kernel runs.
        Units    none
        Raises   ShapeError, DomainError or TypeError as the reference does.
        """
        ...

    def tempering(
        self,
        rbm: Any,
        inv_temps: Any,
        n_chains: int,
        n_rounds: int,
        seed: int,
        first_round: int = 0,
        z1: Any = None,
        sweeps_per_round: int = 1,
    ) -> TemperedReplicas:
        """Rounds of parallel tempering, from fair coins or from all replicas' z1; see ``reference.tempering.run``.

        Rounds a .. a + b - 1, then b more with first_round = a + b and the z1 returned, are a run of all of them.

        Shapes   inv_temps (R,) NumPy or a sequence; z1 None or (R n_chains, N1) -> ``TemperedReplicas``
        Domain   0 <= inv_temps[0] < ... < inv_temps[R-1] = 1; n_chains, n_rounds, sweeps_per_round >= 1
        Units    none
        Raises   ShapeError, DomainError or TypeError as the reference does.
        """
        ...

    def ais(self, rbm: Any, base: Any, inv_temps: Any, n_chains: int, seed: int, first_chain: int = 0) -> Any:
        """Log-weights of forward annealing, float64; see ``reference.partition.anneal``.

        Shapes   base: its biases (a1 (N1,), a2 (N2,)) in the backend's arrays; inv_temps (K + 1,) NumPy or a sequence
                 -> (n_chains,)
        Domain   inv_temps rises strictly from 0 to 1
        Units    nats
        Raises   ShapeError, DomainError or TypeError as the reference does.
        """
        ...

    def reverse_ais(self, rbm: Any, base: Any, inv_temps: Any, z1: Any, seed: int, first_chain: int = 0) -> Any:
        """Log-weights of reverse annealing from samples, float64; see ``reference.partition.anneal_reverse``.

        Shapes   base, inv_temps as ``ais``; z1 (B, N1) -> (B,)
        Domain   as ``ais``; z1 in {0, 1}
        Units    nats
        Raises   ShapeError, DomainError or TypeError as the reference does.
        """
        ...

    def importance_log_mean(self, log_weights: Any, running: LogMean | None = None) -> LogMean:
        """Log of the mean of e^w, going on from ``running``; see ``reference.bound.StreamingLogMeanExp``.

        Shapes   log_weights (B, K), K >= 1, of any floating dtype -> ``LogMean`` of (B,)
        Domain   real or -inf
        Units    nats
        Raises   ShapeError or TypeError for arrays that do not fit.
        """
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """What the backends of a CUDA device have besides: work is put on a stream of the caller's, and not waited for."""

    def on_stream(self, handle: int) -> AbstractContextManager[object]:
        """Puts the work of what is entered under it, in this thread, on the stream of that handle.

        For torch: ``torch.cuda.current_stream().cuda_stream``. 0, which holds outside, is the device's default stream.
        """
        ...


#: Every operation of the protocol.
OPERATIONS = frozenset(
    {
        "inverse_cdf",
        "entropy",
        "cross_entropy",
        "cross_entropy_gradients",
        "gibbs",
        "tempering",
        "ais",
        "reverse_ais",
        "importance_log_mean",
    }
)
