"""Backends with one thing wrong each, built on the oracle so that all else is right; loaded as this module and a name.

In an operation, which it says it has:

    raising         entropy raises RuntimeError("the dog ate it")
    hanging         entropy sleeps for an hour
    dying           entropy ends the process with exit code 3, without a word
    exiting         entropy raises SystemExit
    wrong_shape     entropy returns one row too few
    wrong_dtype     entropy returns float64 for float32 and the other way round
    not_a_number    entropy returns NaN
    nothing         entropy returns None
    bare            entropy returns a tuple without names
    scribbling      entropy writes to its input
    lazy_writer     inverse_cdf returns one and the same array every time
    unsmoothed      inverse_cdf leaves dzeta_drho out
    one_sided       gibbs returns z1 alone
    talking         entropy prints to stdout and to stderr
    wrong           entropy is too large by one part in a thousand, and right otherwise
    wrong_bits      gibbs turns the first unit of z1 over

In what it says of itself:

    lying           operations() names entropy, which it does not have
    boasting        operations() names an operation that does not exist
    silent          operations() is empty
    few             has entropy alone; ``lacks`` says why there is no gibbs
    two_kinds       ``kinds`` are the exponential and the power function
    strange_kinds   ``kinds`` names one that does not exist
    without_device  has no ``device``
    nameless        has neither ``name`` nor ``to_numpy``

In being made, called without arguments:

    unwilling       raises ValueError
    unavailable     raises BackendUnavailable
    needy           imports a library that nobody has
    made_of_text    returns a string
    demanding       takes an argument
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from accelerated import BackendUnavailable
from accelerated.backends.numpy_oracle import NumpyOracle
from accelerated.protocol import OPERATIONS, Entropy

# Built anew wherever one is loaded: the classes are the names, and ``accelerated.load`` calls them.


class raising(NumpyOracle):
    def entropy(self, logit_q):
        raise RuntimeError("the dog ate it")


class hanging(NumpyOracle):
    def entropy(self, logit_q):
        time.sleep(3600)


class dying(NumpyOracle):
    def entropy(self, logit_q):
        os._exit(3)


class exiting(NumpyOracle):
    def entropy(self, logit_q):
        sys.exit("entropy wants to leave")


class wrong_shape(NumpyOracle):
    def entropy(self, logit_q):
        right = super().entropy(logit_q)
        return Entropy(right.value[1:], right.dvalue_dlogit_q)


class wrong_dtype(NumpyOracle):
    def entropy(self, logit_q):
        other = np.float64 if logit_q.dtype == np.float32 else np.float32
        return Entropy(*(part.astype(other) for part in super().entropy(logit_q)))


class not_a_number(NumpyOracle):
    def entropy(self, logit_q):
        right = super().entropy(logit_q)
        return Entropy(np.full_like(right.value, np.nan), right.dvalue_dlogit_q)


class nothing(NumpyOracle):
    def entropy(self, logit_q):
        return None


class bare(NumpyOracle):
    def entropy(self, logit_q):
        return tuple(super().entropy(logit_q))


class scribbling(NumpyOracle):
    def entropy(self, logit_q):
        right = super().entropy(logit_q)
        logit_q[...] = 0
        return right


class lazy_writer(NumpyOracle):
    def __init__(self):
        self.kept = {}

    def inverse_cdf(self, kind, rho, logit_q, beta, extras=("dzeta_dlogit_q",), out=None):
        right = super().inverse_cdf(kind, rho, logit_q, beta, extras, out)
        zeta = self.kept.setdefault((rho.shape, rho.dtype), np.empty_like(rho))
        zeta[...] = right.zeta
        return right._replace(zeta=zeta)


class unsmoothed(NumpyOracle):
    def inverse_cdf(self, kind, rho, logit_q, beta, extras=("dzeta_dlogit_q",), out=None):
        return super().inverse_cdf(kind, rho, logit_q, beta, extras, out)._replace(dzeta_drho=None)


class one_sided(NumpyOracle):
    def gibbs(self, rbm, z1, n_sweeps, seed, step, first_chain=0, out=None):
        return super().gibbs(rbm, z1, n_sweeps, seed, step, first_chain, out)[0]


class talking(NumpyOracle):
    def entropy(self, logit_q):
        print("an entropy, to stdout")
        print("an entropy, to stderr", file=sys.stderr)
        return super().entropy(logit_q)


class wrong(NumpyOracle):
    def entropy(self, logit_q):
        right = super().entropy(logit_q)
        return right._replace(value=(right.value * 1.001).astype(logit_q.dtype))


class wrong_bits(NumpyOracle):
    def gibbs(self, rbm, z1, n_sweeps, seed, step, first_chain=0, out=None):
        z1, z2 = super().gibbs(rbm, z1, n_sweeps, seed, step, first_chain, out)
        z1[:, 0] = 1 - z1[:, 0]
        return z1, z2


class lying(NumpyOracle):
    entropy = None


class boasting(NumpyOracle):
    def operations(self):
        return OPERATIONS | {"telepathy"}


class silent(NumpyOracle):
    def operations(self):
        return frozenset()


class few(NumpyOracle):
    lacks = {"gibbs": "the chains are still being forged"}  # noqa: RUF012

    def operations(self):
        return frozenset({"entropy"})


class two_kinds(NumpyOracle):
    kinds = ("exponential", "power")


class strange_kinds(NumpyOracle):
    kinds = ("exponential", "triangular")


class without_device(NumpyOracle):
    @property
    def device(self):
        raise AttributeError("device")


class nameless:
    device = "cpu"
    operations = NumpyOracle.operations
    asarray = NumpyOracle.asarray


class unwilling(NumpyOracle):
    def __init__(self):
        raise ValueError("this backend is never made")


def unavailable():
    raise BackendUnavailable("backend 'unavailable' cannot run here: no device")


def needy():
    import a_library_nobody_has

    return a_library_nobody_has


def made_of_text():
    return "a backend"


def demanding(what):
    return NumpyOracle()
