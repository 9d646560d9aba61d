"""Every public function of the reference refuses what it is not defined for, by the named error, naming the argument.

One valid call of each stands in ``EXAMPLES``. Every argument of it is spoiled in turn (NaN, a wrong shape, a dtype that
is no number, a count that is no count) with the others as they are. A function without an example fails the last test.
"""

import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

import reference
from reference import (
    autocorrelation,
    bernoulli,
    boltzmann,
    boltzmann_kl,
    bound,
    directed,
    estimators,
    general_boltzmann,
    gibbs,
    kl_balancing,
    likelihoods,
    normal,
    partition,
    philox,
    population,
    posterior,
    single_site,
    smoothing,
    tempering,
    thermodynamic,
    tiny_model,
)
from reference.smoothing import MixtureSmoothing, OverlappingExponential, Smoothing
from reference.vocabulary import RBM, BoltzmannMachine, DomainError, ShapeError

rng = np.random.default_rng(0)
KIND = OverlappingExponential(4.0)
MACHINE = RBM(np.array([0.3, -0.2]), np.array([0.1, 0.4, -0.5]), rng.normal(size=(2, 3)))
BASE = RBM(np.zeros(2), np.zeros(3), np.zeros((2, 3)))
GENERAL = MACHINE.general()
Z1, Z2 = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
Z = np.hstack([Z1, Z2])
U1, U2, U = rng.random((3, 2)), rng.random((3, 3)), rng.random((3, 5))
LOGITS, OTHER = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
UNITS, BINARY = rng.random((3, 4)), np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
LADDER = np.array([0.0, 0.3, 1.0])
INTEGRAND = estimators.Integrand(lambda x: (x**2).sum(axis=1), lambda x: 2 * x)
NETWORKS = [lambda earlier: np.zeros((len(earlier), 1)), lambda earlier: np.repeat(earlier, 3, axis=1) - 0.5]
LEVELS = np.array([[0.0, 3.0, 255.0, 17.0]] * 3)
MIX, MEANS, SCALES = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
COLOURS = np.array([[[0.0, 100.0, 255.0]] * 4] * 3)
COLOUR_MEANS, COLOUR_SCALES, COEFFICIENTS = rng.normal(size=(3, 3, 4, 3, 2))
IMAGES = rng.integers(0, 2, (6, 9)).astype(float)
TINY = tiny_model.Parameters.init(IMAGES, 2, 3, seed=0)
TRAINING = tiny_model.Training.init(IMAGES, 2, 3, seed=0, n_chains=4)
FORWARD = tiny_model.forward(TINY, IMAGES, rng.random((6, 4)), KIND)

#: Valid calls: callable and its arguments by name. A key may carry "#" and a number, for a second call.
GREY = {"logits": MIX, "means": MEANS, "log_scales": SCALES, "n_levels": 256}
COLOUR = {
    "logits": MIX,
    "means": COLOUR_MEANS,
    "log_scales": COLOUR_SCALES,
    "coefficients": COEFFICIENTS,
    "n_levels": 256,
}
EXAMPLES = {
    "bernoulli.sigmoid": (bernoulli.sigmoid, {"logits": LOGITS}),
    "bernoulli.softplus": (bernoulli.softplus, {"logits": LOGITS}),
    "bernoulli.log_prob": (bernoulli.log_prob, {"z": BINARY, "logits": LOGITS}),
    "bernoulli.entropy": (bernoulli.entropy, {"logits": LOGITS}),
    "bernoulli.kl": (bernoulli.kl, {"logit_q": LOGITS, "logit_p": OTHER}),
    "philox.uniforms": (philox.uniforms, {"seed": 1, "step": 2, "n_chains": 3, "n_units": 4, "stream": 5}),
    "philox.as_seed": (philox.as_seed, {"seed": 1}),
    "posterior.nu": (posterior.nu, {"smoothing": KIND, "zeta": UNITS, "logit_q": LOGITS}),
    "posterior.smoothed_posterior": (
        posterior.smoothed_posterior,
        {"networks": NETWORKS, "smoothing": KIND, "rho": UNITS},
    ),
    "posterior.binary_posterior": (posterior.binary_posterior, {"networks": NETWORKS, "rho": UNITS}),
    "posterior.group_logits": (posterior.group_logits, {"networks": NETWORKS, "zeta": UNITS}),
    "posterior.log_prob": (posterior.log_prob, {"networks": NETWORKS, "z": BINARY}),
    "directed.joint_kl": (directed.joint_kl, {"logit_q": LOGITS, "logit_p": OTHER}),
    "directed.joint_kl_gradient": (directed.joint_kl_gradient, {"logit_q": LOGITS, "logit_p": OTHER}),
    "directed.marginal_kl": (
        directed.marginal_kl,
        {"smoothing": KIND, "zeta": UNITS, "logit_q": LOGITS, "logit_p": OTHER},
    ),
    "directed.marginal_kl_gradient": (
        directed.marginal_kl_gradient,
        {"smoothing": KIND, "zeta": UNITS, "logit_q": LOGITS, "logit_p": OTHER},
    ),
    "directed.gap": (directed.gap, {"smoothing": KIND, "zeta": UNITS, "logit_q": LOGITS, "logit_p": OTHER}),
    "boltzmann.energy": (boltzmann.energy, {"rbm": MACHINE, "z1": Z1, "z2": Z2}),
    "boltzmann.logits_z2": (boltzmann.logits_z2, {"rbm": MACHINE, "z1": Z1}),
    "boltzmann.logits_z1": (boltzmann.logits_z1, {"rbm": MACHINE, "z2": Z2}),
    "boltzmann.log_marginal_z1": (boltzmann.log_marginal_z1, {"rbm": MACHINE, "z1": Z1}),
    "boltzmann.free_energy": (boltzmann.free_energy, {"rbm": MACHINE, "z1": Z1}),
    "boltzmann.log_partition_surrogate": (boltzmann.log_partition_surrogate, {"rbm": MACHINE, "z1": Z1, "z2": Z2}),
    "boltzmann.log_partition_gradient": (boltzmann.log_partition_gradient, {"rbm": MACHINE, "z1": Z1, "z2": Z2}),
    "boltzmann.all_states": (lambda **kw: list(boltzmann.all_states(**kw)), {"n_units": 3, "width": 2}),
    "general_boltzmann.energy": (general_boltzmann.energy, {"machine": GENERAL, "z": Z}),
    "general_boltzmann.logits": (general_boltzmann.logits, {"machine": GENERAL, "z": Z}),
    "general_boltzmann.free_energy": (
        general_boltzmann.free_energy,
        {"machine": GENERAL, "z_visible": Z1, "visible": [0, 1]},
    ),
    "boltzmann_kl.group_slices": (boltzmann_kl.group_slices, {"n_units": 6, "n_groups": 3}),
    "boltzmann_kl.cross_entropy": (
        boltzmann_kl.cross_entropy,
        {"machine": GENERAL, "mu": U, "nu": U, "n_groups": 5},
    ),
    "boltzmann_kl.kl": (
        boltzmann_kl.kl,
        {"machine": MACHINE, "logit_q": U, "nu": U, "n_groups": 1, "log_partition": 2.0},
    ),
    "boltzmann_kl.kl_with_gradients": (
        boltzmann_kl.kl_with_gradients,
        {"machine": MACHINE, "logit_q": U, "nu": U, "n_groups": 1, "log_partition": 2.0},
    ),
    "boltzmann_kl.rolfe_gradient": (
        boltzmann_kl.rolfe_gradient,
        {"logit_q": U, "z": np.ones((3, 5)), "g": U, "dcoupling_dzeta": U, "dzeta_dlogit_q": U},
    ),
    "gibbs.sweep": (gibbs.sweep, {"rbm": MACHINE, "z1": Z1, "u2": U2, "u1": U1, "inv_temp": np.array([0.5, 1.0, 1.0])}),
    "gibbs.as_inv_temp_column": (
        lambda inv_temp: gibbs.as_inv_temp_column(inv_temp, 3),
        {"inv_temp": np.array([0.5, 1.0, 1.0])},
    ),
    "gibbs.as_chains": (gibbs.as_chains, {"name": "value", "value": Z}),
    "gibbs.PersistentChains": (gibbs.PersistentChains, {"z1": Z1, "z2": Z2, "seed": 0, "step": 1}),
    "gibbs.PersistentChains.init": (gibbs.PersistentChains.init, {"rbm": MACHINE, "n_chains": 3, "seed": 0}),
    "gibbs.PersistentChains.run": (gibbs.PersistentChains(Z1, Z2, 0).run, {"rbm": MACHINE, "n_sweeps": 2}),
    "single_site.sweep": (
        single_site.sweep,
        {"machine": GENERAL, "z": Z, "u": U, "order": np.arange(5), "inv_temp": np.array([0.5, 1.0, 1.0])},
    ),
    "single_site.chromatic_sweep": (
        single_site.chromatic_sweep,
        {"machine": GENERAL, "z": Z, "u": U, "colours": [[0, 1], [2, 3, 4]], "inv_temp": np.array([0.5, 1.0, 1.0])},
    ),
    "single_site.PersistentChains": (single_site.PersistentChains, {"z": Z, "seed": 0, "step": 1}),
    "single_site.PersistentChains.init": (
        single_site.PersistentChains.init,
        {"machine": GENERAL, "n_chains": 3, "seed": 0},
    ),
    "single_site.PersistentChains.run": (
        single_site.PersistentChains(Z, 0).run,
        {"machine": GENERAL, "n_sweeps": 2},
    ),
    "tempering.swap": (
        tempering.swap,
        {"energies": rng.normal(size=(3, 2)), "inv_temps": LADDER, "u": rng.random((2, 2)), "parity": 0},
    ),
    "tempering.rounds": (
        tempering.rounds,
        {"rbm": MACHINE, "inv_temps": LADDER, "n_chains": 2, "seed": 0, "sweeps_per_round": 1},
    ),
    "tempering.replica_rounds": (
        tempering.replica_rounds,
        {
            "rbm": MACHINE,
            "inv_temps": LADDER,
            "n_chains": 2,
            "seed": 0,
            "sweeps_per_round": 1,
            "first_round": 0,
            "z1": np.tile(Z1[:1], (2 * len(LADDER), 1)),
        },
    ),
    "tempering.run": (
        tempering.run,
        {"rbm": MACHINE, "inv_temps": LADDER, "n_chains": 2, "n_rounds": 2, "seed": 0, "sweeps_per_round": 1},
    ),
    "population.resample": (population.resample, {"log_weights": rng.normal(size=(3, 4)), "u": rng.random(3)}),
    "population.anneal": (
        population.anneal,
        {"rbm": MACHINE, "inv_temps": LADDER, "n_populations": 2, "n_replicas": 4, "seed": 0, "sweeps_per_rung": 1},
    ),
    "autocorrelation.autocorrelation": (autocorrelation.autocorrelation, {"x": rng.normal(size=(2, 50))}),
    "autocorrelation.integrated_time": (autocorrelation.integrated_time, {"x": rng.normal(size=(2, 50))}),
    "autocorrelation.effective_sample_size": (autocorrelation.effective_sample_size, {"x": rng.normal(size=(2, 50))}),
    "partition.fitted_base": (partition.fitted_base, {"data_means1": U1[0], "data_means2": U2[0], "clip": 0.01}),
    "partition.independent_log_partition": (partition.independent_log_partition, {"base": BASE}),
    "partition.as_path": (partition.as_path, {"rbm": MACHINE, "base": BASE, "inv_temps": LADDER}),
    "partition.path_biases": (partition.path_biases, {"rbm": MACHINE, "base": BASE, "inv_temp": LADDER}),
    "partition.anneal": (
        partition.anneal,
        {"rbm": MACHINE, "base": BASE, "inv_temps": LADDER, "n_chains": 3, "seed": 0, "first_chain": 0},
    ),
    "partition.anneal_reverse": (
        partition.anneal_reverse,
        {"rbm": MACHINE, "base": BASE, "inv_temps": LADDER, "z1": Z1, "seed": 0, "first_chain": 0},
    ),
    "partition.forward_estimate": (
        partition.forward_estimate,
        {"rbm": MACHINE, "base": BASE, "inv_temps": LADDER, "n_chains": 3, "seed": 0},
    ),
    "partition.reverse_estimate": (
        partition.reverse_estimate,
        {"rbm": MACHINE, "base": BASE, "inv_temps": LADDER, "z1": Z1, "seed": 0},
    ),
    "partition.bennett_estimate": (
        partition.bennett_estimate,
        {"log_weights": rng.normal(size=5), "reverse_log_weights": rng.normal(size=4)},
    ),
    "partition.estimate": (lambda log_weights: partition.estimate(log_weights, 1), {"log_weights": rng.normal(size=5)}),
    "partition.bracket": (
        partition.bracket,
        {"rbm": MACHINE, "seed": 0, "n_chains": 3, "n_machines": 2, "n_replicas": 2, "n_rounds": 2},
    ),
    "thermodynamic.clenshaw_curtis": (thermodynamic.clenshaw_curtis, {"n_nodes": 3}),
    "thermodynamic.slopes": (
        thermodynamic.slopes,
        {"rbm": MACHINE, "base": BASE, "inv_temps": LADDER, "z1": Z1},
    ),
    "thermodynamic.thermodynamic_estimate": (
        thermodynamic.thermodynamic_estimate,
        {"rbm": MACHINE, "base": BASE, "n_chains": 2, "n_rounds": 2, "seed": 0, "burn_in": 1, "n_rungs": 3},
    ),
    "likelihoods.bernoulli_log_prob": (likelihoods.bernoulli_log_prob, {"x": BINARY, "logits": LOGITS}),
    "likelihoods.bernoulli_log_prob_gradient": (
        likelihoods.bernoulli_log_prob_gradient,
        {"x": BINARY, "logits": LOGITS},
    ),
    "likelihoods.discretised_logistic_log_prob": (
        likelihoods.discretised_logistic_log_prob,
        {"x": LEVELS, "mean": MEANS[..., 0], "log_scale": SCALES[..., 0], "n_levels": 256},
    ),
    "likelihoods.mixture_log_prob": (likelihoods.mixture_log_prob, {"x": LEVELS, **GREY}),
    "likelihoods.mixture_log_prob_gradient": (likelihoods.mixture_log_prob_gradient, {"x": LEVELS, **GREY}),
    "likelihoods.mixture_sample": (
        likelihoods.mixture_sample,
        {"u_component": LEVELS / 256, "u": LEVELS / 256, **GREY},
    ),
    "likelihoods.colour_mixture_log_prob": (likelihoods.colour_mixture_log_prob, {"x": COLOURS, **COLOUR}),
    "likelihoods.colour_mixture_log_prob_gradient": (
        likelihoods.colour_mixture_log_prob_gradient,
        {"x": COLOURS, **COLOUR},
    ),
    "likelihoods.colour_mixture_sample": (
        likelihoods.colour_mixture_sample,
        {"u_component": COLOURS[..., 0] / 256, "u": COLOURS / 256, **COLOUR},
    ),
    "likelihoods.bits_per_dimension": (likelihoods.bits_per_dimension, {"nats": U1, "n_dimensions": 4}),
    "normal.sample": (normal.sample, {"eps": LOGITS, "mean": OTHER, "log_std": UNITS}),
    "normal.log_prob": (normal.log_prob, {"h": LOGITS, "mean": OTHER, "log_std": UNITS}),
    "normal.kl": (normal.kl, {"mean_q": LOGITS, "log_std_q": UNITS, "mean_p": OTHER, "log_std_p": U[:, :4]}),
    "normal.kl_gradient": (
        normal.kl_gradient,
        {"mean_q": LOGITS, "log_std_q": UNITS, "mean_p": OTHER, "log_std_p": U[:, :4]},
    ),
    "bound.terms": (bound.terms, {"log_likelihood": U1[:, 0], "kl": U1[:, 1]}),
    "bound.Terms.loss": (bound.Terms(-3.0, 1.0).loss, {"kl_weight": 0.5}),
    "bound.likelihood": (bound.likelihood, {"log_joint": LOGITS, "log_q": OTHER}),
    "bound.check_kl_weight": (bound.check_kl_weight, {"kl_weight": 0.5}),
    "bound.StreamingLogMeanExp": (bound.StreamingLogMeanExp, {"n_rows": 3}),
    "bound.StreamingLogMeanExp.add": (bound.StreamingLogMeanExp(3).add, {"log_weights": LOGITS}),
    "kl_balancing.coefficients": (kl_balancing.coefficients, {"group_kl": UNITS, "kl_weight": 0.5}),
    "kl_balancing.balanced_kl": (kl_balancing.balanced_kl, {"group_kl": UNITS, "kl_weight": 0.5}),
    "estimators.draw": (estimators.draw, {"rho": UNITS, "logits": LOGITS}),
    "estimators.score": (estimators.score, {"z": BINARY, "logits": LOGITS}),
    "estimators.exact_value": (estimators.exact_value, {"f": INTEGRAND, "logits": LOGITS[0]}),
    "estimators.exact_gradient": (estimators.exact_gradient, {"f": INTEGRAND, "logits": LOGITS[0]}),
    "estimators.reinforce": (
        estimators.reinforce,
        {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS, "baseline": np.array([0.1, 0.2, 0.3])},
    ),
    "estimators.RunningMoments.updated": (
        estimators.RunningMoments().updated,
        {"signal": rng.normal(size=5), "decay": 0.9},
    ),
    "estimators.nvil": (
        estimators.nvil,
        {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS, "baseline": np.array([0.1, 0.2, 0.3]), "scale": 2.0},
    ),
    "estimators.muprop": (
        estimators.muprop,
        {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS, "baseline": np.array([0.1, 0.2, 0.3])},
    ),
    "estimators.vimco": (estimators.vimco, {"log_f": INTEGRAND, "rho": rng.random((3, 2, 4)), "logits": LOGITS}),
    "estimators.exact_multi_sample_value": (
        estimators.exact_multi_sample_value,
        {"log_f": INTEGRAND, "logits": LOGITS[0], "n_samples": 2},
    ),
    "estimators.exact_multi_sample_gradient": (
        estimators.exact_multi_sample_gradient,
        {"log_f": INTEGRAND, "logits": LOGITS[0], "n_samples": 2},
    ),
    "estimators.arm": (estimators.arm, {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS}),
    "estimators.disarm": (estimators.disarm, {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS}),
    "estimators.logistic": (estimators.logistic, {"rho": UNITS, "logits": LOGITS}),
    "estimators.conditional_logistic": (
        estimators.conditional_logistic,
        {"z": BINARY, "v": UNITS, "logits": LOGITS},
    ),
    "estimators.matching_noise": (estimators.matching_noise, {"rho": UNITS, "logits": LOGITS}),
    "estimators.relax": (
        estimators.relax,
        {"f": INTEGRAND, "surrogate": INTEGRAND, "rho": UNITS, "v": UNITS, "logits": LOGITS},
    ),
    "estimators.rebar_surrogate": (
        estimators.rebar_surrogate,
        {"f": INTEGRAND, "temperature": 0.5, "eta": 1.0},
    ),
    "estimators.rebar": (
        estimators.rebar,
        {"f": INTEGRAND, "rho": UNITS, "v": UNITS, "logits": LOGITS, "temperature": 0.5, "eta": 1.0},
    ),
    "estimators.straight_through": (estimators.straight_through, {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS}),
    "estimators.concrete": (
        estimators.concrete,
        {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS, "temperature": 0.5},
    ),
    "estimators.smoothed": (
        estimators.smoothed,
        {"f": INTEGRAND, "rho": UNITS, "logits": LOGITS, "smoothing": KIND},
    ),
    "tiny_model.Parameters.init": (
        tiny_model.Parameters.init,
        {"x": IMAGES, "n_side": 2, "n_hidden": 3, "seed": 0},
    ),
    "tiny_model.forward": (
        tiny_model.forward,
        {"parameters": TINY, "x": IMAGES, "rho": rng.random((6, 4)), "smoothing": KIND},
    ),
    "tiny_model.Forward.bound": (FORWARD.bound, {"kl_weight": 0.5}),
    "tiny_model.backward": (
        tiny_model.backward,
        {
            "parameters": TINY,
            "fwd": FORWARD,
            "upstream": rng.normal(size=6),
            "kl_weight": 0.5,
            "prior_means": boltzmann.marginals(TINY.prior),
        },
    ),
    "tiny_model.Adam.step": (
        tiny_model.Adam.init(TINY).step,
        {"parameters": TINY, "gradient": TINY, "learning_rate": 0.1},
    ),
    "tiny_model.Training.init": (
        tiny_model.Training.init,
        {"x": IMAGES, "n_side": 2, "n_hidden": 3, "seed": 0, "n_chains": 4},
    ),
    "tiny_model.train": (
        tiny_model.train,
        {
            "training": TRAINING,
            "x": IMAGES,
            "n_iterations": 1,
            "learning_rate": 0.01,
            "batch_size": 2,
            "beta": 8.0,
            "kl_warmup": 3,
            "n_sweeps": 1,
        },
    ),
    "tiny_model.likelihood_estimate": (
        tiny_model.likelihood_estimate,
        {"parameters": TINY, "x": IMAGES, "n_importance": 3, "seed": 0, "log_partition": 2.0},
    ),
    "tiny_model.log_likelihood": (tiny_model.log_likelihood, {"parameters": TINY, "x": IMAGES}),
    "tiny_model.elbo": (tiny_model.elbo, {"parameters": TINY, "x": IMAGES}),
    "vocabulary.RBM": (RBM, {"a1": MACHINE.a1, "a2": MACHINE.a2, "W": MACHINE.W}),
    "vocabulary.BoltzmannMachine": (BoltzmannMachine, {"a": GENERAL.a, "J": GENERAL.J}),
}
for _name in smoothing.__all__:
    _class = getattr(smoothing, _name)
    if issubclass(_class, Smoothing) and not inspect.isabstract(_class):
        _kind, _place = _class(3.0), f"smoothing.{_name}"
        EXAMPLES[_place] = (_class, {_class.sharpness: 3.0})
        EXAMPLES |= {
            f"{_place}.log_prob": (_kind.log_prob, {"zeta": UNITS, "logit_q": LOGITS}),
            f"{_place}.cdf": (_kind.cdf, {"zeta": UNITS, "logit_q": LOGITS}),
            f"{_place}.inverse_cdf": (_kind.inverse_cdf, {"rho": UNITS, "logit_q": LOGITS}),
            f"{_place}.inverse_cdf_with_derivatives": (
                _kind.inverse_cdf_with_derivatives,
                {"rho": UNITS, "logit_q": LOGITS},
            ),
        }
        if isinstance(_kind, MixtureSmoothing):
            EXAMPLES |= {
                f"{_place}.log_r": (_kind.log_r, {"zeta": UNITS, "z": BINARY}),
                f"{_place}.r_cdf": (_kind.r_cdf, {"zeta": UNITS, "z": BINARY}),
                f"{_place}.log_ratio": (_kind.log_ratio, {"zeta": UNITS}),
                f"{_place}.nu": (_kind.nu, {"zeta": UNITS, "logit_q": LOGITS}),
            }

#: Takes any shape: an elementwise function of one argument, or the one that sets the size for all others.
ANY_SHAPE = {
    ("bernoulli.sigmoid", "logits"),
    ("bernoulli.softplus", "logits"),
    ("bernoulli.entropy", "logits"),
    ("likelihoods.bits_per_dimension", "nats"),
    ("partition.path_biases", "inv_temp"),
    ("estimators.RunningMoments.updated", "signal"),
} | {(place, "zeta") for place in EXAMPLES if place.endswith(".log_ratio")}

#: Public, but nothing to refuse: no argument, or only machines and results that were checked when they were made.
NOTHING_TO_REFUSE = {
    "boltzmann.log_partition",
    "boltzmann.marginals",
    "general_boltzmann.log_partition",
    "general_boltzmann.marginals",
    "single_site.colouring",
    "posterior.check_mixture",
    "bound.StreamingLogMeanExp.result",
    "bound.StreamingLogMeanExp.likelihood",
    "tiny_model.Parameters.map",
    "tiny_model.Adam.init",
}

#: Refuses by rules of its own, tested beside its other tests.
TESTED_ELSEWHERE = {"philox.philox4x32"}


def spoiled(place, name, value):
    """Bad values in the place of a good one, and the errors that may answer."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        nan = value.copy()
        nan.flat[0] = np.nan
        yield "NaN", nan, DomainError
        yield "complex", value + 0j, TypeError
        yield "text", value.astype(str), TypeError
    elif isinstance(value, float):
        yield "NaN", np.nan, DomainError
        yield "text", "much", TypeError
    elif isinstance(value, int) and not isinstance(value, bool):
        yield "negative", -1, DomainError
        yield "not whole", 2.5, (DomainError, TypeError)
        yield "text", "many", TypeError


CASES = [
    pytest.param(place, name, bad, error, id=f"{place}({name}: {label})")
    for place, (_, arguments) in EXAMPLES.items()
    for name, value in arguments.items()
    for label, bad, error in spoiled(place, name, value)
]


SHAPED = [
    pytest.param(place, name, id=f"{place}({name})")
    for place, (_, arguments) in EXAMPLES.items()
    for name, value in arguments.items()
    if isinstance(value, np.ndarray) and (place, name) not in ANY_SHAPE
]


@pytest.mark.parametrize("place", EXAMPLES)
def test_the_example_is_valid(place):
    function, arguments = EXAMPLES[place]
    function(**arguments)


@pytest.mark.parametrize(("place", "name", "bad", "error"), CASES)
def test_a_spoiled_argument_is_refused_by_name(place, name, bad, error):
    function, arguments = EXAMPLES[place]
    with pytest.raises(error) as caught:
        function(**arguments | {name: bad})
    assert re.search(rf"\b{name}\b", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("place", "name"), SHAPED)
def test_a_wrong_shape_is_refused_by_name(place, name):
    # A further column may fit (a longer series) or break another rule (a ladder that rises), and a further axis may
    # broadcast; nothing takes both.
    function, arguments = EXAMPLES[place]
    value = arguments[name]
    refusals = []
    for bad in (np.concatenate([value, value[..., -1:]], axis=-1), value[..., None, None]):
        try:
            function(**arguments | {name: bad})
        except ShapeError as error:
            refusals.append(str(error))
        except DomainError:
            pass
    assert any(re.search(rf"\b{name}\b", refusal) for refusal in refusals), refusals


def test_no_public_function_is_left_out():
    missing = []
    for info in pkgutil.walk_packages(reference.__path__, "reference."):
        place = info.name.removeprefix("reference.")
        if info.ispkg or place == "vocabulary" or place.startswith("smoothing."):
            continue  # kinds of smoothing are found by their export; checks are what all these tests test
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != info.name:
                continue
            names = [f"{place}.{name}"] if inspect.isfunction(thing) else []
            if inspect.isclass(thing):
                names = [
                    f"{place}.{name}.{method}"
                    for method, value in vars(thing).items()
                    if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
                ]
            missing += [n for n in names if n not in EXAMPLES.keys() | NOTHING_TO_REFUSE | TESTED_ELSEWHERE]
    assert not missing
