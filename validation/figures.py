"""The pictures of the course, one or more to a chapter, drawn from nothing but the reference: ``make figures``.

A figure is a function of this module, entered in ``FIGURES`` under the name of its file; its docstring is the caption.
With ``quick`` it takes the same steps with fewer numbers, which is enough to see that it can be drawn. All noise comes
from fixed seeds, so the same versions draw the same picture, byte for byte.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import tyro
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter
from PIL import Image
from scipy.optimize import brentq
from scipy.special import expit, logit

import reference.smoothing
from dvaepp.atomic import temporary
from dvaepp.command import console, parse, run
from dvaepp.config import unknown
from dvaepp.data import load
from dvaepp.errors import ConfigError
from reference import boltzmann, directed, partition, tempering, tiny_model
from reference.autocorrelation import autocorrelation, integrated_time
from reference.gibbs import PersistentChains
from reference.smoothing import BinaryConcrete, MixtureSmoothing, OverlappingExponential, Smoothing, SpikeExponential
from reference.thermodynamic import thermodynamic_estimate
from reference.vocabulary import RBM, Array
from validation.sampling.estimators import FEWEST_DRAWS, Row, table

PROG = "validation.figures"
DPI = 120

#: Okabe & Ito (2008): told apart by readers with any of the common colour deficiencies.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE, GREY = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#888888",
)
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY]),
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "errorbar.capsize": 2,
    "figure.titlesize": 11.5,
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def kinds() -> list[type[Smoothing]]:
    """Every kind of smoothing that ``reference.smoothing`` exports: the paper's first, then by name."""
    classes: list[Any] = [kind for _, kind in inspect.getmembers(reference.smoothing, inspect.isclass)]
    found = [kind for kind in classes if issubclass(kind, Smoothing) and not inspect.isabstract(kind)]
    return sorted(found, key=lambda kind: (kind is not OverlappingExponential, kind.__name__))


def _words(name: str) -> str:
    """The name of a class as words: uniform exponential, binary Concrete."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).split()
    return " ".join(word if word in ("Concrete", "Gaussian") else word.lower() for word in words)


def _number(x: float) -> str:
    """A number with a true minus sign, as matplotlib's axes have it."""
    return f"{x:.4g}".replace("-", "−")


def _sharp(smoothing: Smoothing) -> str:
    """How sharp a smoothing is, as a label: β = 8."""
    symbol = {"beta": "β", "scale": "s", "temperature": "λ"}[smoothing.sharpness]
    return f"{symbol} = {getattr(smoothing, smoothing.sharpness):.3g}"


# ---- smoothing ------------------------------------------------------------------------------------------------------

#: A sharpness at which the shape of each kind shows, by the name it gives to its own; and one exception.
SHOWN = {"beta": 8.0, "scale": 0.1, "temperature": 0.4}
SHOWN_OF = {"Gaussian": 40.0}
MEANS = ((0.1, ORANGE), (0.5, PURPLE), (0.9, BLACK))


def _shown(kind: type[Smoothing], blunter: float = 1.0) -> Any:
    """A kind at the sharpness to be shown, or a number of times blunter."""
    sharpness = SHOWN_OF.get(kind.__name__, SHOWN[kind.sharpness])
    make: Any = kind  # the base class has no sharpness to be made with
    return make(sharpness / blunter if kind.sharpness == "beta" else sharpness * blunter)


def _has_atom(smoothing: Smoothing, z: int) -> bool:
    """Whether a part of r(ζ|z) sits at 0 exactly."""
    return isinstance(smoothing, MixtureSmoothing) and smoothing.unit_interval and bool(smoothing.r_cdf(0.0, z) > 0)


def smoothing(quick: bool = False) -> Figure:
    """Every kind of smoothing: densities of ζ given z on the left, the map from noise ρ to sample ζ on the right.

    Densities r(ζ|0) and r(ζ|1), or for the binary Concrete, which has none, q(ζ|x); infinite peaks are cut off, and the
    arrow is a point mass. The inverse CDF of q(ζ|x) is shown for q(z=1|x) = 0.1, 0.5 and 0.9. Last pair, with
    overlapping exponentials: the limit of sharp smoothing, in which the map becomes the step that draws z itself; and ζ
    as a function of q at ρ = 1/2 (the paper's figure 1b).
    """
    n = 60 if quick else 600
    rho = np.linspace(0, 1, n + 1)[1:-1]
    shown = kinds()
    n_rows = math.ceil((len(shown) + 1) / 2)
    figure = Figure(figsize=(11, 2.4 * n_rows + 0.7), layout="constrained")
    grid = figure.subplots(n_rows, 4, squeeze=False).reshape(-1, 2)
    for kind, (density, inverse) in zip(shown, grid, strict=False):
        smoothing = _shown(kind)
        _draw_densities(density, smoothing, n)
        for mean, colour in MEANS:
            inverse.plot(rho, smoothing.inverse_cdf(rho, logit(mean)), color=colour, label=f"q = {mean:g}")
        inverse.set(xlabel="noise ρ", ylabel="sample ζ", title="inverse CDF of q(ζ|x)")
    _draw_limit(grid[len(shown), 0], rho)
    _draw_against_mean(grid[len(shown), 1], n)
    for axes in grid[len(shown) + 1 :].flat:
        axes.set_axis_off()
    handles, labels = (
        first + second for first, second in zip(*(axes.get_legend_handles_labels() for axes in grid[0]), strict=True)
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle("Smoothing: a binary unit becomes a continuous one, and its sample a function of noise and logit")
    return figure


def _draw_densities(axes: Axes, smoothing: Smoothing, n: int) -> None:
    # Dense towards the ends of [0, 1], where a density may be infinite.
    zeta = expit(np.linspace(-12, 12, n)) if smoothing.unit_interval else np.linspace(-0.75, 1.75, n)
    if isinstance(smoothing, MixtureSmoothing):
        for z, colour, style in ((0, BLUE, "-"), (1, VERMILION, "--")):
            axes.plot(zeta, np.exp(smoothing.log_r(zeta, z)), style, color=colour, label=f"r(ζ|{z})")
            if _has_atom(smoothing, z):
                arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.5}
                axes.annotate("", (0, 1), (0, 0), xycoords=("data", "axes fraction"), arrowprops=arrow)
        axes.set_ylabel("density r(ζ|z)")
    else:
        for mean, colour in MEANS:
            axes.plot(zeta, np.exp(smoothing.log_prob(zeta, logit(mean))), color=colour)
        axes.set_ylabel("density q(ζ|x)")
    inner = (zeta > 0.01) & (zeta < 0.99)
    axes.set(xlabel="ζ", ylim=(0, 1.1 * max(np.asarray(line.get_ydata())[inner].max() for line in axes.lines)))
    axes.set_title(f"{_words(type(smoothing).__name__)}, {_sharp(smoothing)}")


def _draw_limit(axes: Axes, rho: Array) -> None:
    mean = 0.4
    for beta, colour in zip((2.0, 8.0, 32.0, 512.0), (SKY, BLUE, GREEN, BLACK), strict=True):
        axes.plot(rho, OverlappingExponential(beta).inverse_cdf(rho, logit(mean)), color=colour, label=f"β = {beta:g}")
    axes.plot(rho, rho > 1 - mean, ":", color=ORANGE, linewidth=3, label="z", zorder=3)
    axes.set(xlabel="noise ρ", ylabel="sample ζ", title=f"the limit is a step, q = {mean:g}")
    axes.legend(loc="upper left", handlelength=1.5)


def _draw_against_mean(axes: Axes, n: int) -> None:
    mean = np.linspace(0, 1, n + 1)[1:-1]
    for smoothing, name, colour, style in (
        (OverlappingExponential(8.0), "overlapping", BLUE, "-"),
        (SpikeExponential(8.0), "spike", VERMILION, "--"),
    ):
        axes.plot(mean, smoothing.inverse_cdf(0.5, logit(mean)), style, color=colour, label=name)
    axes.plot(mean, mean > 0.5, ":", color=ORANGE, linewidth=3, label="z", zorder=0)
    axes.set(xlabel="q(z=1|x)", ylabel="sample ζ", title="exponentials, ρ = 1/2, β = 8")
    axes.legend(loc="upper left", handlelength=1.5)


# ---- comparison with Concrete ---------------------------------------------------------------------------------------


def _nodes(smoothing: Smoothing, logit_q: float, n: int) -> Array:
    """Values of rho, dense where they are and where their samples are: a plateau of the CDF is a cliff in rho."""
    return np.unique(np.concatenate([np.linspace(0, 1, n), smoothing.cdf(np.linspace(0, 1, n), logit_q)]))


def bluntness(smoothing: Smoothing, n: int = 2000) -> float:
    """How far samples of a fair unit are from binary: the mean of min(ζ, 1 − ζ), 1/4 for a uniform ζ and 0 for z."""
    rho = _nodes(smoothing, 0.0, n)
    zeta = smoothing.inverse_cdf(rho, 0.0)
    return float(np.trapezoid(np.minimum(zeta, 1 - zeta), rho))


def gradient_spread(smoothing: Smoothing, logit_q: float, n: int = 2000) -> float:
    """Standard deviation over the noise of dζ/dlogit, the factor through which every gradient passes."""
    rho = _nodes(smoothing, logit_q, n)
    slope = smoothing.inverse_cdf_with_derivatives(rho, logit_q).dzeta_dlogit_q
    mean = np.trapezoid(slope, rho)
    return float(np.sqrt(np.trapezoid((slope - mean) ** 2, rho)))


def matching_temperature(smoothing: Smoothing, n: int = 2000) -> float:
    """Temperature at which binary Concrete samples of a fair unit are as far from binary as those of a smoothing."""
    target = bluntness(smoothing, n)
    return float(brentq(lambda temperature: bluntness(BinaryConcrete(temperature), n) - target, 0.02, 3.0))


def concrete(quick: bool = False) -> Figure:
    """Overlapping exponentials against the binary Concrete at equal sharpness, and what sharpness costs each kind.

    Equal sharpness: a fair unit's samples have the same mean distance min(ζ, 1 − ζ) from binary. First three panels:
    density of ζ, noise to sample, and the derivative that carries the gradient, for two means q. Last: the standard
    deviation over the noise of that derivative for a fair unit, against the distance from binary, for every kind on
    [0, 1] without a point mass, up to β = 40 (λ = 1/20).
    """
    n = 100 if quick else 2000
    exponential = OverlappingExponential(8.0)
    temperature = matching_temperature(exponential, n)
    pair = (
        (exponential, f"exponentials, {_sharp(exponential)}", "-"),
        (BinaryConcrete(temperature), f"Concrete, λ = {temperature:.2f}", "--"),
    )
    figure = Figure(figsize=(9.5, 7), layout="constrained")
    density, inverse, slope, cost = figure.subplots(2, 2).flat
    zeta = np.linspace(0, 1, n)[1:-1]
    for smoothing, name, style in pair:
        for mean, colour in ((0.5, BLUE), (0.8, VERMILION)):
            rho = _nodes(smoothing, logit(mean), n)[1:-1]
            sample = smoothing.inverse_cdf_with_derivatives(rho, logit(mean))
            label = f"{name}, q = {mean:g}"
            density.plot(zeta, np.exp(smoothing.log_prob(zeta, logit(mean))), style, color=colour, label=label)
            inverse.plot(rho, sample.zeta, style, color=colour, label=label)
            slope.plot(rho, sample.dzeta_dlogit_q, style, color=colour, label=label)
    density.set(xlabel="ζ", ylabel="density q(ζ|x)", title="Concrete has infinite peaks at both ends", ylim=(0, 7))
    inverse.set(xlabel="noise ρ", ylabel="sample ζ", title="A similar map from noise to sample")
    slope.set(xlabel="noise ρ", ylabel="∂ζ/∂logit", title="The exponentials' derivative is a higher, narrower peak")
    density.legend(loc="upper center")
    _draw_cost(cost, 3 if quick else 25, n)
    figure.suptitle(
        "Exponential smoothing and binary Concrete at equal sharpness: similar samples, different gradients"
    )
    return figure


def _draw_cost(axes: Axes, n_points: int, n: int) -> None:
    for kind in kinds():
        if not kind.unit_interval or _has_atom(_shown(kind), 0):
            continue
        make: Any = kind
        sharpnesses = np.geomspace(1.05, 40, n_points)
        smoothings = [make(float(s if kind.sharpness == "beta" else 2 / s)) for s in sharpnesses]
        axes.plot(
            [bluntness(s, n) for s in smoothings],
            [gradient_spread(s, 0.0, n) for s in smoothings],
            label=_words(kind.__name__),
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(0.03, 0.26),
        xlabel="mean distance of ζ from binary (sharp is left)",
        ylabel="standard deviation of ∂ζ/∂logit",
        title="The price of sharpness, q = 0.5",
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([0.03, 0.05, 0.1, 0.2])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.legend()


# ---- posterior ------------------------------------------------------------------------------------------------------


def nu(quick: bool = False) -> Figure:
    """What a smoothed unit tells about its binary one: ν = q(z=1|ζ, x) against ζ, for three logits and two sharpnesses.

    ν = σ(l + log r(ζ|1)/r(ζ|0)), for every kind that has r(ζ|z). Dashed: four times blunter. The logit shifts the
    curve, sharpness makes it steeper; but the power function's has a limit, σ(l + logit ζ), for its sharpness is in the
    samples. With a spike, a ζ above 0 leaves no doubt, and ν has no gradient to give.
    """
    n = 80 if quick else 800
    shown = [kind for kind in kinds() if issubclass(kind, MixtureSmoothing)]
    columns = 3
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(9.5, 2.7 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for kind, axes in zip(shown, grid, strict=False):
        sharp, blunt = _shown(kind), _shown(kind, blunter=4.0)
        zeta = np.linspace(*((0.0, 1.0) if kind.unit_interval else (-0.5, 1.5)), n + 1)
        atom = _has_atom(sharp, 0)
        for logit_q, colour in ((-2.0, BLUE), (0.0, BLACK), (2.0, VERMILION)):
            for smoothing, style in ((sharp, "-"), (blunt, "--")):
                nus = smoothing.nu(zeta, logit_q)
                axes.plot(zeta[atom:], nus[atom:], style, color=colour, label=f"l = {_number(logit_q)}")
            if atom:
                axes.plot(0, nus[0], "o", color=colour, clip_on=False)
        if atom:
            axes.text(0.5, 0.5, "all six curves: 1 where ζ > 0,\n0 at ζ = 0 (dot)", ha="center", va="center")
        axes.set_title(f"{_words(kind.__name__)}, {_sharp(sharp)}\n(dashed: {_sharp(blunt)})")
        axes.set(xlabel="ζ", ylim=(-0.03, 1.03))
    for axes in figure.axes[::columns]:
        axes.set_ylabel("ν = q(z=1|ζ, x)")
    for axes in figure.axes[len(shown) :]:
        axes.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::2], labels[::2], loc="outside lower center", ncols=3)
    figure.suptitle("What ζ tells about z: the logit and the log ratio of the two densities add up")
    return figure


# ---- directed priors ------------------------------------------------------------------------------------------------

#: Logits of one unit under posterior and prior: near, far, and far with a posterior that is nearly certain.
DIRECTED = ((1.0, 0.0), (1.5, -1.5), (4.0, 0.0))


def mean_over_zeta(
    of_draws: Callable[..., Array], smoothing: OverlappingExponential, logits: tuple[float, float], n_nodes: int
) -> float:
    """Mean over ζ ~ q(ζ) of a function of one unit's draw and its two logits, by Gauss' quadrature.

    In ζ and not in ρ: there the integrand is smooth, however sharp the smoothing.
    """
    x, weights = np.polynomial.legendre.leggauss(n_nodes)
    zeta = (1 + x[:, None]) / 2
    density = np.exp(smoothing.log_prob(zeta[:, 0], logits[0])) * weights / 2
    return float(density @ of_draws(smoothing, zeta, *(np.full_like(zeta, value) for value in logits)))


def directed_kl(quick: bool = False) -> Figure:
    """Joint and marginal KL of a directed prior, and the gap between them, against the sharpness β of the smoothing.

    One unit with the logits of posterior and prior given in the legend, overlapping exponentials. Left: lines by
    quadrature, dots the mean of 2,000 draws of ζ with 2 standard errors. Right: the gap, which is how much posterior
    and prior still disagree about z once ζ is seen; it falls about as fast as exp(−β/2).
    """
    n_draws, n_nodes, n_points = (50, 40, 5) if quick else (2000, 120, 60)
    rng = np.random.default_rng(4)
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rising, falling = np.geomspace(0.3, 60, n_points), np.linspace(0.5, 60, n_points)
    for logits, colour, style in zip(DIRECTED, (BLUE, VERMILION, GREEN), ("-", "--", "-."), strict=True):
        joint = directed.joint_kl([[logits[0]]], [[logits[1]]])[0]
        kls = [mean_over_zeta(directed.marginal_kl, OverlappingExponential(b), logits, n_nodes) for b in rising]
        gaps = [mean_over_zeta(directed.gap, OverlappingExponential(b), logits, n_nodes) for b in falling]
        label = f"{_number(logits[0])} and {_number(logits[1])}"
        left.axhline(joint, color=colour, linewidth=1, linestyle=":")
        left.plot(rising, kls, style, color=colour, label=label)
        right.plot(falling, gaps, style, color=colour, label=label)
        for beta in np.geomspace(0.3, 60, 4 if quick else 10):
            mixture = OverlappingExponential(beta)
            zeta = mixture.inverse_cdf(rng.random((n_draws, 1)), logits[0])
            draws = directed.marginal_kl(mixture, zeta, *(np.full_like(zeta, value) for value in logits))
            error = 2 * draws.std(ddof=1) / np.sqrt(n_draws)
            left.errorbar(beta, draws.mean(), error, fmt="o", color=colour, markersize=3.5)
    right.plot(falling, np.exp(-falling / 2), ":", color=BLACK, label="exp(−β/2)", zorder=0)
    left.set(xscale="log", xlabel="sharpness β", ylabel="KL (nats)", title="Marginal KL, and joint KL (dotted)")
    right.set(yscale="log", xlabel="sharpness β", ylabel="joint − marginal KL (nats)", title="The gap closes")
    left.legend(title="logits of q and p", loc="upper left", bbox_to_anchor=(0, 0.87))
    right.legend(title="logits of q and p")
    figure.suptitle("The marginal KL never exceeds the joint one, and reaches it as the smoothing gets sharp")
    return figure


# ---- gradient estimators --------------------------------------------------------------------------------------------


def estimators(quick: bool = False) -> Figure:
    """Every gradient estimator on one problem with a known gradient: bias and standard deviation of a single draw.

    All relative to the norm of the exact gradient; four units, 20,000 draws, all on the same noise
    (``validation.sampling.estimators``). Left: estimators that are unbiased; their measured bias is of the size of its
    standard error, as it must be. (VIMCO estimates the gradient of another function, its multi-sample bound.) Right:
    biased ones; larger markers are sharper, and the band holds the spreads of the left. Hollow: a single draw makes up
    more than 2 % of the spread, so heavier ones are still missing, and neither number can be trusted. (Kinds on the
    whole line have spread when blunt too: they ask for f, which is partly an exponential, far outside [0, 1].)
    """
    rows = table(FEWEST_DRAWS if quick else 20_000, seed=5)
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.05, 1))
    unbiased = [row for row in rows if row.unbiased]
    position = np.arange(len(unbiased))[::-1]
    left.plot([row.spread for row in unbiased], position, "o", color=BLUE, label="spread of a draw")
    left.plot(
        [row.bias for row in unbiased], position, "D", color=VERMILION, fillstyle="none", label="bias of the mean"
    )
    errors = [row.standard_error for row in unbiased]
    left.plot(errors, position, "|", color=BLACK, markersize=12, label="its standard error")
    left.set_yticks(position, [", ".join(filter(None, (row.estimator, row.parameter))) for row in unbiased])
    left.set(xscale="log", xlabel="relative to the exact gradient", title="Unbiased estimators differ in spread")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, columnspacing=1)
    spreads = [row.spread for row in unbiased]
    right.axhspan(min(spreads), max(spreads), color=BLACK, alpha=0.1, linewidth=0, label="unbiased estimators")
    _draw_biased([row for row in rows if not row.unbiased], right)
    figure.suptitle("Gradient estimators: a relaxation trades bias against spread by its sharpness")
    return figure


def _draw_biased(rows: Sequence[Row], axes: Axes) -> None:
    families: dict[str, list[Row]] = {}
    for row in rows:
        kind = row.parameter.split(",")[0] if row.estimator == "smoothed" else row.estimator
        families.setdefault(kind, []).append(row)
    # The largest marker is the sharpest; one without a sharpness is large.
    for (name, members), marker in zip(families.items(), "*osD^vPX<>", strict=False):
        (line,) = axes.plot([row.bias for row in members], [row.spread for row in members], "-", linewidth=1)
        for size, row in zip(np.linspace(9, 4, len(members))[::-1], members, strict=True):
            fill: Any = "full" if row.trustworthy else "none"
            axes.plot(row.bias, row.spread, marker, color=line.get_color(), fillstyle=fill, markersize=size)
        axes.plot([], [], marker=marker, color=line.get_color(), label=_words(name))
    axes.set(xscale="log", yscale="log", xlabel="bias", ylabel="spread of a draw")
    axes.set_title("Relaxations: bias (right) against spread (up)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


# ---- log Z ----------------------------------------------------------------------------------------------------------


def many_modes(n_side: int = 10, strength: float = 0.55, seed: int = 3) -> RBM:
    """A machine with four far modes: two random patterns and their negatives, stored as couplings between spins."""
    rng = np.random.default_rng(seed)
    patterns = [rng.choice([-1.0, 1.0], size=(2, n_side)) for _ in range(2)]
    W = sum(4 * strength * weight * np.outer(*pair) for weight, pair in zip((1.0, 0.8), patterns, strict=True))
    assert isinstance(W, np.ndarray)
    return RBM(-W.sum(axis=1) / 2, -W.sum(axis=0) / 2, W)


def log_partition(quick: bool = False) -> Figure:
    """Estimates of log Z less its exact value, against the number of temperatures; and the standard errors they report.

    A machine of 10 + 10 units with four far modes, so small that log Z is known. Annealed importance sampling with 256
    chains from fair coins (forward) and from samples by parallel tempering (reverse; 16 rungs, 500 rounds); Bennett's
    acceptance ratio, of both sets of weights; and thermodynamic integration, whose temperatures are the nodes of a
    quadrature and cost 25 times as much each (32 chains, 150 rounds after 50). One run each; bars are 2 of the standard
    errors reported. Thin on the right: the quadrature's own estimate of its error, which the standard error leaves out.
    """
    n_chains, n_rounds = (16, 5) if quick else (256, 500)
    rbm = many_modes(4 if quick else 10)
    exact = boltzmann.log_partition(rbm)
    base = partition.fitted_base(np.full(rbm.n1, 0.5), np.full(rbm.n2, 0.5))
    samples = tempering.run(rbm, np.linspace(0, 1, 16), n_chains, n_rounds, seed=6).z1
    steps = [2, 4] if quick else [2**k for k in range(2, 11)]
    forward, reverse, bennett = [], [], []
    for n_steps in steps:
        path = np.linspace(0, 1, n_steps + 1)
        upwards = partition.anneal(rbm, base, path, n_chains, seed=7)
        downwards = partition.anneal_reverse(rbm, base, path, samples, seed=8)
        forward.append(partition.estimate(upwards, sign=1))
        reverse.append(partition.estimate(downwards, sign=-1))
        bennett.append(partition.bennett_estimate(upwards, downwards))
    rungs = [3, 5] if quick else [3, 5, 9, 17, 33, 65]
    rounds, burn_in = (3, 2) if quick else (150, 50)
    integrals = [thermodynamic_estimate(rbm, base, n_chains // 8, rounds, 9, burn_in, n) for n in rungs]

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn: tuple[tuple[str, list[int], Sequence[partition.Estimate], str, str], ...] = (
        ("annealing, forward", steps, forward, BLUE, "o-"),
        ("annealing, reverse", steps, reverse, VERMILION, "s-"),
        ("Bennett, of both", steps, bennett, BLACK, "D--"),
        ("thermodynamic", rungs, integrals, GREEN, "^-."),
    )
    for label, counts, estimates, colour, style in drawn:
        errors = [estimate.log_partition - exact for estimate in estimates]
        bars = np.array([estimate.standard_error for estimate in estimates])
        left.errorbar(counts, errors, 2 * bars, fmt=style, color=colour, markersize=4, linewidth=1.2, label=label)
        right.plot(counts, bars, style, color=colour, markersize=4, linewidth=1.2, label=label)
    right.plot(
        rungs,
        [i.quadrature_error for i in integrals],
        "^:",
        color=GREEN,
        markersize=3,
        linewidth=0.8,
        label="its quadrature error",
    )
    bracket = ([estimate.log_partition - exact for estimate in estimates] for estimates in (forward, reverse))
    left.fill_between(steps, *bracket, color=SKY, alpha=0.25, linewidth=0)
    left.axhline(0, color=ORANGE, linewidth=2, zorder=0)
    left.set(ylabel="estimate − exact log Z (nats)", title=f"The bracket closes (exact log Z = {exact:.3f} nats)")
    right.set(yscale="log", ylabel="reported standard error (nats)", title="What they say of themselves")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="temperatures on the path")
    left.legend()
    right.legend(loc="upper right")
    figure.suptitle("log Z: annealing errs low forwards and high in reverse; both together are better than either")
    return figure


# ---- mixing ---------------------------------------------------------------------------------------------------------

RUNGS = np.linspace(0.0, 1.0, 6)


def two_modes(n_side: int = 9, coupling: float = 0.8, tilt: float = 0.1) -> RBM:
    """A machine that wants all units on or all units off, off a little less, with a barrier in between."""
    bias = np.full(n_side, -n_side * coupling / 2)
    return RBM(bias + tilt, bias, np.full((n_side, n_side), coupling))


def on_probability(rbm: RBM) -> float:
    """Exact probability that more than half of the first side is on."""
    (states,) = boltzmann.all_states(rbm.n1)
    probabilities = np.exp(boltzmann.log_marginal_z1(rbm, states) - boltzmann.log_partition(rbm))
    return float(probabilities[states.mean(axis=1) > 0.5].sum())


def gibbs_trace(rbm: RBM, n_chains: int, n_sweeps: int, seed: int) -> Array:
    """Fraction of the first side that is on, after every sweep of persistent chains: (n_chains, n_sweeps)."""
    chains, trace = PersistentChains.init(rbm, n_chains, seed), np.empty((n_chains, n_sweeps))
    for t in range(n_sweeps):
        chains = chains.run(rbm, 1)
        trace[:, t] = chains.z1.mean(axis=1)
    return trace


def tempering_trace(rbm: RBM, inv_temps: Array, n_chains: int, n_rounds: int, seed: int) -> Array:
    """The same after every round of parallel tempering, at inverse temperature 1: (n_chains, n_rounds)."""
    rounds = itertools.islice(tempering.rounds(rbm, inv_temps, n_chains, seed), n_rounds)
    return np.stack([one.z1.mean(axis=1) for one in rounds], axis=1)


def mixing(quick: bool = False) -> Figure:
    """Gibbs sampling against parallel tempering on a machine with two modes: trace, autocorrelation, time per mode.

    9 + 9 units that want to be all on or all off; 48 chains each, from fair coins. The observable is the fraction of
    the first side that is on. Autocorrelation is pooled over chains and drawn against *sweeps of one machine*: a round
    of tempering costs six, one for each rung. Right: of its first 3,000 sweeps (500 rounds), the fraction that each
    chain spends in the mode "on", and the exact probability of that mode.
    """
    n_chains, n_sweeps = (6, 400) if quick else (48, 8000)
    rbm = two_modes(3) if quick else two_modes()
    cost = len(RUNGS)
    runs = (
        ("Gibbs", gibbs_trace(rbm, n_chains, n_sweeps, seed=10), 1, VERMILION, "-"),
        ("tempering", tempering_trace(rbm, RUNGS, n_chains, n_sweeps // cost, seed=11), cost, BLUE, "--"),
    )
    figure = Figure(figsize=(11, 6), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 2))
    traces = {"Gibbs": figure.add_subplot(grid[0, :]), "tempering": figure.add_subplot(grid[1, :])}
    times, modes = figure.add_subplot(grid[2, 0]), figure.add_subplot(grid[2, 1])
    exact = on_probability(rbm)
    for name, trace, sweeps, colour, style in runs:
        shown = trace[0, : 3000 // sweeps]
        traces[name].plot(sweeps * np.arange(len(shown)), shown, color=colour, linewidth=0.8)
        traces[name].set(ylabel="fraction on", ylim=(-0.05, 1.05), title=f"{name}, one chain")
        time_ = integrated_time(trace)
        label = f"{name}: τ = {sweeps * time_.time:.0f} ± {sweeps * time_.standard_error:.0f} sweeps"
        lags = np.arange(min(trace.shape[1], 1500 // sweeps))
        times.plot(sweeps * lags, autocorrelation(trace)[: len(lags)], style, color=colour, label=label)
        fractions = (trace[:, : len(shown)] > 0.5).mean(axis=1)
        bins = [k / 20 for k in range(21)]
        modes.hist(fractions, bins, histtype="step", linestyle=style, color=colour, linewidth=1.8, label=name)
    traces["tempering"].set_xlabel("sweeps of one machine")
    times.set(xlabel="lag (sweeps of one machine)", ylabel="autocorrelation", title="How long a chain remembers")
    times.axhline(0, color=BLACK, linewidth=0.8)
    times.legend()
    modes.axvline(exact, color=BLACK, linestyle=":", linewidth=2, label=f"exact: {exact:.3f}")
    modes.set(xlabel="fraction of 3,000 sweeps that a chain is “on”", ylabel="chains", title="Chains agree, or not")
    modes.legend(loc="upper left")
    figure.suptitle("Mixing: Gibbs chains stay in a mode for long; tempering carries them over the barrier")
    return figure


# ---- bounds ---------------------------------------------------------------------------------------------------------

#: Iterations and learning rate, in turn.
STAGES = ((500, 0.03), (250, 0.01), (250, 0.003))
SHARPNESS = 8.0


def small_digits(split: str) -> Array:
    """The digits of the package as 8x8 binary images: the middle 24x24, averaged over 3x3 squares, on above 100."""
    middle = getattr(load("digits"), split).reshape(-1, 28, 28)[:, 2:26, 2:26].astype(float)
    return (middle.reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4)) > 100).astype(float).reshape(-1, 64)


def bounds(quick: bool = False) -> Figure:
    """Training of the tiny model, and its importance-weighted bound against the number K of samples.

    8x8 digits (4,000 to train on, 500 held out), 4 + 4 latent units with an RBM prior, 32 hidden units, overlapping
    exponentials with β = 8; 1,000 iterations of Adam on batches of 100, learning rate 0.03, 0.01 and 0.003, KL weight
    rising for 300 iterations, persistent chains. Left: held-out images while it trains; the smoothed bound is that of
    one draw of ζ per image. Right: the trained model on 40 held-out images; dots are means over independent runs with
    2 standard errors, lines are exact, by enumeration of all 256 latent states.
    """
    train, valid = small_digits("train"), small_digits("valid")
    stages = ((2, 0.03), (1, 0.01)) if quick else STAGES
    every = 1 if quick else 25
    smoothing = OverlappingExponential(SHARPNESS)
    state = tiny_model.Training.init(train, n_side=2 if quick else 4, n_hidden=32, seed=12)
    noise = np.random.default_rng(13).random((len(valid), state.parameters.n_latents))
    curves: dict[str, list[float]] = {"step": [], "smoothed": [], "elbo": [], "exact": []}
    for n_iterations, learning_rate in stages:
        for _ in range(n_iterations // every):
            state = tiny_model.train(state, train, every, learning_rate, beta=SHARPNESS)
            curves["step"].append(state.adam.n_steps)
            curves["smoothed"].append(tiny_model.forward(state.parameters, valid, noise, smoothing).bound().mean())
            curves["elbo"].append(tiny_model.elbo(state.parameters, valid).mean())
            curves["exact"].append(tiny_model.log_likelihood(state.parameters, valid).mean())

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label, style in (
        ("exact", "log p(x), exact", "-"),
        ("elbo", "ELBO in the binary limit, exact", "--"),
        ("smoothed", f"smoothed bound, β = {SHARPNESS:g}", ":"),
    ):
        left.plot(curves["step"], curves[name], style, label=label)
    left.set(xlabel="iteration", ylabel="nats per image, held out", title="Training")
    left.legend(loc="lower right")
    _draw_tightening(right, state.parameters, valid[: 5 if quick else 40], quick)
    figure.suptitle("Bounds on log p(x): what is trained, and how the importance-weighted bound closes the gap")
    return figure


def _draw_tightening(axes: Axes, parameters: tiny_model.Parameters, images: Array, quick: bool) -> None:
    exact = float(tiny_model.log_likelihood(parameters, images).mean())
    elbo = float(tiny_model.elbo(parameters, images).mean())
    normaliser = boltzmann.log_partition(parameters.prior)
    counts = [1, 2] if quick else [2**k for k in range(10)]
    for n_importance in counts:
        seeds = 1000 * n_importance + np.arange(4 if quick else max(12, 512 // n_importance))
        runs = [
            tiny_model.likelihood_estimate(parameters, images, n_importance, int(seed), normaliser).log_marginal.mean()
            for seed in seeds
        ]
        error = 2 * np.std(runs, ddof=1) / np.sqrt(len(runs))
        axes.errorbar(n_importance, np.mean(runs), error, fmt="o", color=GREEN, markersize=4)
    axes.axhline(exact, color=BLUE, label=f"log p(x), exact: {_number(exact)}")
    axes.axhline(elbo, color=VERMILION, linestyle="--", label=f"ELBO, exact: {_number(elbo)}")
    axes.plot([], [], "o", color=GREEN, markersize=4, label="importance-weighted bound")
    axes.set(
        xscale="log", xlabel="importance samples K", ylabel="nats per image", title="Evaluation of the trained model"
    )
    axes.legend(loc="center right")


# ---- the command ----------------------------------------------------------------------------------------------------

#: Name of each picture, in the order of the course -> how it is drawn.
FIGURES: dict[str, Callable[..., Figure]] = {
    "smoothing": smoothing,
    "concrete": concrete,
    "nu": nu,
    "directed": directed_kl,
    "estimators": estimators,
    "log-partition": log_partition,
    "mixing": mixing,
    "bounds": bounds,
}


def save(name: str, folder: Path, quick: bool = False) -> Path:
    """Draw one figure into a folder, under its name; matplotlib's settings are ours only meanwhile.

    Raises   RunError if the file cannot be written; what was there before stays.
    """
    path = folder / f"{name}.png"
    with matplotlib.rc_context(), temporary(path) as part:
        matplotlib.rcdefaults()  # whatever the user's own style, the picture is the same
        matplotlib.rcParams.update(STYLE)
        figure = FIGURES[name](quick)
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        # A palette holds all colours of a line drawing, at a third of the size.
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        image.quantize(256, dither=Image.Dither.NONE).save(part, dpi=(DPI, DPI), optimize=True)
    return path


@dataclass(frozen=True)
class Command:
    """Draw the figures of the course as PNG files; exit code 2 for bad arguments."""

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar=" ".join(f"[{n}]" for n in FIGURES))
    ] = ()
    """Figures to draw; none named: all."""
    out: Path = Path("docs/figures")
    """Folder to write to."""
    quick: bool = False
    """With fewer numbers: not for publication."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 if all pictures were written."""
    command = parse(Command, arguments, PROG)
    for name in command.names:
        if name not in FIGURES:
            raise ConfigError(f"{unknown('figure', name, FIGURES)}  ({PROG} --help)")
    command.out.mkdir(parents=True, exist_ok=True)
    out = console()
    for name in dict.fromkeys(command.names or FIGURES):
        start = time.perf_counter()
        with out.status(f"{name} ..."):
            path = save(name, command.out, command.quick)
        out.print(f"{path}  {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
