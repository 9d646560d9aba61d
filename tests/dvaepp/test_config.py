"""Every hyper-parameter's rule, the schedules by hand, and a configuration's way through JSON."""

import dataclasses
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvaepp.config import (
    PRESETS,
    Config,
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    HierarchyConfig,
    ModelConfig,
    OptimisationConfig,
    PriorConfig,
    preset,
    scaled_intervals,
    unknown,
)
from dvaepp.errors import ConfigError, UserError

NAN, INF = math.nan, math.inf

RULES = [
    (ModelConfig, "latents", 0, "latents must be positive; got 0"),
    (ModelConfig, "latents", -2, "latents must be positive; got -2"),
    (ModelConfig, "latents", 7, "latents must be even, one half for each side of the RBM prior; got 7"),
    (ModelConfig, "groups", 0, "groups must be positive; got 0"),
    (ModelConfig, "groups", 3, "groups must divide latents (200); got 3"),
    (ModelConfig, "network", "deep", "network must be one of linear, nonlinear, convolutional; got 'deep'"),
    (ModelConfig, "hidden", 0, "hidden must be positive; got 0"),
    (ModelConfig, "layers", -1, "layers must be positive; got -1"),
    (ModelConfig, "beta", 0.0, "beta must be positive; got 0.0"),
    (ModelConfig, "beta", NAN, "beta must be positive; got nan"),
    (ModelConfig, "beta", INF, "beta must be positive; got inf"),
    (PriorConfig, "chains", 0, "chains must be positive; got 0"),
    (PriorConfig, "sweeps", -1, "sweeps must be positive; got -1"),
    (OptimisationConfig, "iterations", 0, "iterations must be positive; got 0"),
    (OptimisationConfig, "batch_size", 0, "batch_size must be positive; got 0"),
    (OptimisationConfig, "batch_size", 1, "batch_size must be at least 2, for batch normalisation; got 1"),
    (OptimisationConfig, "learning_rate", 0.0, "learning_rate must be positive; got 0.0"),
    (OptimisationConfig, "learning_rate", INF, "learning_rate must be positive; got inf"),
    (OptimisationConfig, "adam_epsilon", -1e-8, "adam_epsilon must be positive; got -1e-08"),
    (OptimisationConfig, "weight_decay", -1.0, "weight_decay must not be negative; got -1.0"),
    (OptimisationConfig, "weight_decay", NAN, "weight_decay must not be negative; got nan"),
    (OptimisationConfig, "kl_warmup", -0.1, "kl_warmup must lie in [0, 1], a fraction of the iterations; got -0.1"),
    (OptimisationConfig, "kl_warmup", 1.5, "kl_warmup must lie in [0, 1], a fraction of the iterations; got 1.5"),
    (OptimisationConfig, "kl_warmup", NAN, "kl_warmup must lie in [0, 1], a fraction of the iterations; got nan"),
    (DataConfig, "binarisation", "often", "binarisation must be one of dynamic, static; got 'often'"),
    (DataConfig, "binarisation_seed", -1, "binarisation_seed must lie in 0..2**63 - 1; got -1"),
    (DataConfig, "binarisation_seed", 2**63, f"binarisation_seed must lie in 0..2**63 - 1; got {2**63}"),
    *(
        (EvaluationConfig, name, 0, f"{name} must be positive; got 0")
        for name in (
            "log_every",
            "validate_every",
            "checkpoint_every",
            "valid_importance",
            "n_importance",
            "ais_temperatures",
            "ais_chains",
        )
    ),
    (EvaluationConfig, "ais_chains", 1, "ais_chains must be at least 2, for a standard error; got 1"),
    (ModelConfig, "n_samples", 0, "n_samples must be positive; got 0"),
    (ModelConfig, "beta_end", 1e4, "beta_end must lie in [0.01, 1000], where the smoothing was validated; got 10000.0"),
    (OptimisationConfig, "adam_beta2", 1.0, "adam_beta2 must lie in [0, 1); got 1.0"),
    (OptimisationConfig, "control_rate", 0.0, "control_rate must be positive; got 0.0"),
    (OptimisationConfig, "schedule", "cosine", "schedule must be one of steps, constant; got 'cosine'"),
    (OptimisationConfig, "gradient_clip", 0.0, "gradient_clip must be positive; got 0.0"),
    (OptimisationConfig, "ema", 1.0, "ema must lie in [0, 1); got 1.0"),
    (OptimisationConfig, "accumulate", 0, "accumulate must lie in 1..batch_size (100); got 0"),
    *(
        (HierarchyConfig, name, 0, f"{name} must be positive; got 0")
        for name in ("local_groups", "local_channels", "mixtures", "width", "depth", "halvings")
    ),
    (HierarchyConfig, "halvings", 9, "halvings must lie in 1..8; got 9"),
    (HierarchyConfig, "local_halvings", 4, "local_halvings must lie in 0..halvings (3); got 4"),
    (HierarchyConfig, "local", "gaussian", "local must be one of normal, bernoulli; got 'gaussian'"),
    (ExecutionConfig, "precision", "half", "precision must be one of float32, bfloat16; got 'half'"),
    (Config, "seed", -1, "seed must lie in 0..2**63 - 1; got -1"),
    (Config, "seed", 2**63, f"seed must lie in 0..2**63 - 1; got {2**63}"),
]

SECTIONS = {
    "model": ModelConfig,
    "hierarchy": HierarchyConfig,
    "prior": PriorConfig,
    "optimisation": OptimisationConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "execution": ExecutionConfig,
}


@pytest.mark.parametrize(("section", "name", "value", "message"), RULES)
def test_every_rule_is_one_line(section, name, value, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        section(**{name: value})


def test_every_numeric_hyper_parameter_has_a_rule():
    tested = {(section, name) for section, name, _, _ in RULES}
    for section in (*SECTIONS.values(), Config):
        for field in dataclasses.fields(section):
            if field.type in ("int", "float", "float | None"):
                assert (section, field.name) in tested


INCONSISTENT = [
    ({"estimator": "rolfe"}, "estimator rolfe needs prior rbm and smoothing spike-exponential"),
    ({"estimator": "rolfe", "smoothing": "logistic"}, "got prior rbm and smoothing logistic: use estimator joint"),
    (
        {"estimator": "rolfe", "smoothing": "spike-exponential", "prior": "directed"},
        "estimator rolfe needs prior rbm and smoothing spike-exponential",
    ),
    ({"estimator": "marginal"}, "estimator marginal needs a directed prior, .* use estimator joint"),
    (
        {"estimator": "marginal", "prior": "directed", "smoothing": "spike-exponential"},
        "estimator marginal needs a smoothing with a density",
    ),
    ({"smoothing": "spike-exponential", "groups": 2}, "got smoothing spike-exponential: use estimator rolfe"),
    ({"smoothing": "concrete", "groups": 2}, "got smoothing concrete: use groups 1 or another smoothing"),
    (
        {"estimator": "vimco", "batch_norm": False},
        "n_samples must be at least 2 for estimator vimco, .* got 1 with vimco",
    ),
    (
        {"estimator": "arm", "batch_norm": False, "n_samples": 4},
        "n_samples must be .* 1 for all others; got 4 with arm",
    ),
    ({"n_samples": 2}, "n_samples must be .* got 2 with joint"),
    ({"estimator": "nvil"}, "estimator nvil needs batch_norm off: .* use --no-batch-norm"),
    ({"estimator": "nvil", "batch_norm": False, "smoothing": "logistic"}, "nvil takes binary samples: leave smoothing"),
    (
        {"estimator": "arm", "network": "linear", "beta_end": 12.0},
        "beta_end is for estimators .*; arm has no sharpness",
    ),
    ({"estimator": "reinforce"}, "estimator must be one of joint, marginal, rolfe, .*; got 'reinforce'"),
    ({"prior": "gaussian"}, "prior must be one of rbm, directed, factorial, normal; got 'gaussian'"),
    ({"smoothing": "cubic"}, "smoothing must be one of exponential, .*; got 'cubic'"),
]


@pytest.mark.parametrize(("settings", "message"), INCONSISTENT)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^[^\n]*{message}[^\n]*$"):
        ModelConfig(**settings)


CONSISTENT = [
    {"estimator": "rolfe", "smoothing": "spike-exponential", "groups": 2},
    {"smoothing": "spike-exponential"},  # one group: mean field, without nu
    {"smoothing": "concrete"},
    {"prior": "directed", "estimator": "marginal", "smoothing": "concrete", "groups": 2},
    {"prior": "directed", "smoothing": "spike-exponential", "groups": 2},
    {"prior": "directed", "latents": 7, "estimator": "vimco", "network": "linear", "n_samples": 2},
    {"estimator": "straight-through", "batch_norm": False},
]


@pytest.mark.parametrize("settings", CONSISTENT)
def test_what_goes_together_is_accepted(settings):
    config = Config(model=ModelConfig(**settings))
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_sharpness_is_annealed_linearly():
    assert ModelConfig(beta=5.0).beta_at(0.7) == 5
    annealed = ModelConfig(beta=5.0, beta_end=15.0)
    assert [annealed.beta_at(done) for done in (0, 0.5, 1)] == [5, 10, 15]


def test_the_cell_of_an_experiment_is_carried_and_is_no_hyper_parameter():
    cell = {"table": "table2", "row": "mnist-1-nonlinear", "column": "rbm-rolfe"}
    config = Config.from_dict({"experiment": cell})
    assert config.to_dict()["experiment"] == cell
    assert "experiment" not in Config().to_dict()
    assert config.differences(Config()) == []
    with pytest.raises(ConfigError, match="experiment must name a table, a row and a column; got table alone"):
        Config.from_dict({"experiment": {"table": "table2"}})


def test_a_constant_schedule():
    settings = OptimisationConfig(schedule="constant", learning_rate=0.25, iterations=100)
    assert {settings.learning_rate_at(step) for step in range(100)} == {0.25}


def test_the_edges_of_the_rules_are_accepted():
    ModelConfig(latents=2, groups=2, hidden=1, layers=1, beta=1e-2)
    ModelConfig(latents=6, groups=3)
    PriorConfig(chains=1, sweeps=1)
    OptimisationConfig(iterations=1, batch_size=2, weight_decay=0.0, kl_warmup=0.0)
    OptimisationConfig(kl_warmup=1.0)
    DataConfig(binarisation_seed=2**63 - 1)
    EvaluationConfig(1, 1, 1, 1, 1, 1, 2)
    assert Config(seed=2**63 - 1).seed == 2**63 - 1
    assert issubclass(ConfigError, UserError)


def test_a_configuration_is_frozen_and_compared_by_value():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    assert config == Config()
    assert config != Config(seed=1)


def test_hidden_sizes():
    assert ModelConfig(hidden=7, layers=3).hidden_sizes == (7, 7, 7)
    assert ModelConfig(hidden=7, layers=3, network="linear").hidden_sizes == ()


# ---- dictionaries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_json(name):
    config = preset(name)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert config.differences(again) == []
    assert "\n" not in PRESETS[name].about


CONFIGS = st.builds(
    Config,
    model=st.builds(
        ModelConfig,
        latents=st.sampled_from([4, 12, 40]),
        groups=st.sampled_from([1, 2, 4]),
        network=st.sampled_from(["linear", "nonlinear"]),
        beta=st.floats(1e-2, 1e3),
    ),
    optimisation=st.builds(
        OptimisationConfig,
        iterations=st.integers(1, 10**9),
        learning_rate=st.floats(1e-9, 10),
        kl_warmup=st.floats(0, 1),
    ),
    data=st.builds(DataConfig, data=st.text(), data_dir=st.none() | st.text()),
    seed=st.integers(0, 2**63 - 1),
)


@settings(deadline=None, derandomize=True)
@given(CONFIGS)
def test_any_configuration_survives_json(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_is_left_out_takes_its_default():
    assert Config.from_dict({}) == Config()
    assert Config.from_dict({"model": {"groups": 2}}) == Config(model=ModelConfig(groups=2))
    # A whole number where a float is meant, as JSON writers may leave it.
    beta = Config.from_dict({"model": {"beta": 8}}).model.beta
    assert (beta, type(beta)) == (8.0, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "unknown hyper-parameter 'sed'; did you mean 'seed'?"),
        ({"modell": {}}, "unknown hyper-parameter 'modell'; did you mean 'model'?"),
        ({"model": {"latent": 4}}, "unknown hyper-parameter 'model.latent'; did you mean 'model.latents'?"),
        (
            {"optimisation": {"learning-rate": 1.0}},
            "unknown hyper-parameter 'optimisation.learning-rate'; did you mean 'optimisation.learning_rate'?",
        ),
        ({"zzzzzz": 4}, "unknown hyper-parameter 'zzzzzz'"),
        ({"seed": "1"}, "seed must be of type int; got '1'"),
        ({"seed": 1.0}, "seed must be of type int; got 1.0"),
        ({"seed": True}, "seed must be of type int; got True"),
        ({"seed": None}, "seed must be of type int; got None"),
        ({"model": {"beta": "8"}}, "model.beta must be of type float; got '8'"),
        ({"model": {"beta": True}}, "model.beta must be of type float; got True"),
        ({"model": {"latents": [4]}}, "model.latents must be of type int; got [4]"),
        ({"model": {"network": 3}}, "model.network must be of type Network; got 3"),
        ({"model": {"network": "deep"}}, "network must be one of linear, nonlinear, convolutional; got 'deep'"),
        ({"data": {"data": None}}, "data.data must be of type str; got None"),
        ({"data": {"data_dir": 3}}, "data.data_dir must be of type str | None; got 3"),
        ({"model": 3}, "model must be a table of names and values; got 3"),
        ({"data": "mnist"}, "data must be a table of names and values; got 'mnist'"),
        ({"evaluation": None}, "evaluation must be a table of names and values; got None"),
        ([1], "the configuration must be a table of names and values; got [1]"),
        ({"model": {"latents": 7}}, "latents must be even, one half for each side of the RBM prior; got 7"),
    ],
)
def test_dictionaries_that_are_refused(values, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Config.from_dict(values)


def test_differences_are_named_as_flags():
    here = Config()
    there = Config(model=ModelConfig(beta=8.0), data=DataConfig(data="mnist"), seed=3)
    assert here.differences(there) == [("beta", 10.0, 8.0), ("data", "digits", "mnist"), ("seed", 0, 3)]
    assert here.differences(here) == []
    # Flags carry no section, so no two hyper-parameters may share a name.
    names = [field.name for section in SECTIONS.values() for field in dataclasses.fields(section)]
    assert len({*names, "seed"}) == len(names) + 1


def test_unknown_names():
    assert unknown("flag", "betta", ["beta", "seed"]) == "unknown flag 'betta'; did you mean 'beta'?"
    assert unknown("flag", "xyz", ["beta", "seed"]) == "unknown flag 'xyz'"
    with pytest.raises(ConfigError) as error:
        preset("mnist-1-liner")
    assert str(error.value) == (
        "unknown preset 'mnist-1-liner'; did you mean 'mnist-1-linear'?  (python -m dvaepp.train --list)"
    )


# ---- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1000, 5000, 1_000_000])
def test_the_learning_rate_by_hand(iterations):
    """A tenth for the first 2 %, then 1, a third from 60 %, a tenth from 75 %, a 33rd from 95 %."""
    rates = OptimisationConfig(iterations=iterations, learning_rate=3.3)
    for first, last, expected in (
        (0, 0.02, 0.33),
        (0.02, 0.60, 3.3),
        (0.60, 0.75, 1.1),
        (0.75, 0.95, 0.33),
        (0.95, 1.0, 0.1),
    ):
        for step in (round(first * iterations), round(last * iterations) - 1):
            assert rates.learning_rate_at(step) == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_of_very_short_runs():
    # Of 7 steps the first is at 0 %, the sixth at 71 %, the seventh at 86 %.
    rates = OptimisationConfig(iterations=7, learning_rate=33.0)
    assert [round(rates.learning_rate_at(step), 9) for step in range(7)] == [3.3, 33, 33, 33, 33, 11, 3.3]
    assert OptimisationConfig(iterations=1, learning_rate=33.0).learning_rate_at(0) == pytest.approx(3.3)


def test_the_weight_of_the_kl_by_hand():
    weights = OptimisationConfig(iterations=1000, kl_warmup=0.3)
    # Warm-up over 300 steps.
    for step, expected in ((0, 0), (1, 1 / 300), (150, 0.5), (299, 299 / 300), (300, 1), (301, 1), (999, 1)):
        assert weights.kl_weight_at(step) == pytest.approx(expected, rel=1e-12)
    assert OptimisationConfig(iterations=1000, kl_warmup=0.0).kl_weight_at(0) == 1
    whole = OptimisationConfig(iterations=1000, kl_warmup=1.0)
    assert whole.kl_weight_at(500) == 0.5
    assert whole.kl_weight_at(999) == 0.999


@settings(deadline=None, derandomize=True)
@given(CONFIGS, st.floats(0, 1))
def test_schedules_keep_their_bounds(config, fraction):
    optimisation = config.optimisation
    step = int(fraction * optimisation.iterations)
    assert 0 <= optimisation.kl_weight_at(step) <= optimisation.kl_weight_at(step + 1) <= 1
    assert 0 < optimisation.learning_rate_at(step) <= optimisation.learning_rate


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (1_000_000, (100, 500, 500)),  # long enough: nothing changes
        (5000, (100, 500, 500)),
        (4999, (100, 499, 499)),
        (1000, (100, 100, 100)),
        (60, (6, 6, 6)),
        (9, (1, 1, 1)),
        (1, (1, 1, 1)),
    ],
)
def test_intervals_are_no_longer_than_a_tenth_of_the_run(iterations, expected):
    config = Config(optimisation=OptimisationConfig(iterations=iterations))
    scaled = scaled_intervals(config, Config())
    evaluation = scaled.evaluation
    assert (evaluation.log_every, evaluation.validate_every, evaluation.checkpoint_every) == expected
    assert {name for name, _, _ in config.differences(scaled)} <= {"log_every", "validate_every", "checkpoint_every"}


def test_intervals_the_user_asked_for_are_kept():
    config = Config(optimisation=OptimisationConfig(iterations=60), evaluation=EvaluationConfig(validate_every=20))
    scaled = scaled_intervals(config, Config()).evaluation
    assert (scaled.log_every, scaled.validate_every, scaled.checkpoint_every) == (6, 20, 6)


def test_with_evaluation_replaces_and_checks():
    config = preset("digits")
    changed = config.with_evaluation(n_importance=7)
    assert config.differences(changed) == [("n_importance", 1000, 7)]
    with pytest.raises(ConfigError, match="n_importance must be positive; got 0"):
        config.with_evaluation(n_importance=0)


def test_presets_of_table_2():
    assert next(iter(PRESETS)) == "digits"
    for data in ("mnist-static", "mnist"):
        for groups in (1, 2):
            for network in ("linear", "nonlinear"):
                config = preset(f"{data}-{groups}-{network}")
                assert (config.data.data, config.model.groups, config.model.network) == (data, groups, network)
                assert config.model.latents == {1: 200, 2: 400}[groups]
                assert config.optimisation.iterations == 1_000_000
                assert config.evaluation.n_importance == 4000
    digits = preset("digits")
    assert scaled_intervals(digits, digits) == digits
