"""Several runs as one batched model: replica by replica what each run alone gives, up to rounding."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dvaepp import objective, replicas
from dvaepp.config import Config, ModelConfig, OptimisationConfig, PriorConfig
from dvaepp.data import Dataset
from dvaepp.errors import ConfigError
from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.networks.feedforward import BatchNorm, feedforward, frozen_statistics
from dvaepp.smoothing import create
from dvaepp.trainer import Trainer

CPU = torch.device("cpu")


def images(n=64, n_pixels=16):
    rng = np.random.default_rng(0)
    on = rng.random(n_pixels)
    splits = [(rng.random((size, n_pixels)) < on).astype(np.uint8) for size in (n, 20, 20)]
    return Dataset("random", *splits, 1, (4, 4), provenance="made for this test")


def config(seed=0, learning_rate=3e-3, beta=8.0, **model):
    settings = {"latents": 8, "hidden": 6, "layers": 1, "beta": beta} | model
    return Config(
        model=ModelConfig(**settings),
        prior=PriorConfig(chains=20, sweeps=2),
        optimisation=OptimisationConfig(iterations=40, batch_size=16, learning_rate=learning_rate),
        seed=seed,
    )


METHODS = {
    "rbm": {},
    "rbm, two groups": {"groups": 2},
    "rbm, three groups across the sides": {"groups": 3, "latents": 12},
    "rolfe": {"groups": 2, "estimator": "rolfe", "smoothing": "spike-exponential"},
    "joint": {"prior": "directed"},
    "joint, linear": {"prior": "directed", "network": "linear"},
    "marginal": {"prior": "directed", "estimator": "marginal", "groups": 2},
    "concrete": {"prior": "directed", "estimator": "marginal", "smoothing": "concrete", "beta": 2.0},
    "logistic": {"prior": "directed", "smoothing": "logistic", "beta_end": 12.0},
    "nvil": {"prior": "directed", "estimator": "nvil", "groups": 2, "batch_norm": False},
    "relax": {"prior": "directed", "estimator": "relax", "batch_norm": False},
    "vimco": {"prior": "directed", "estimator": "vimco", "batch_norm": False, "n_samples": 3},
    "disarm, rbm": {"estimator": "disarm", "batch_norm": False},
    "straight-through": {"prior": "directed", "estimator": "straight-through", "batch_norm": False},
}


@pytest.mark.parametrize("method", METHODS)
def test_replicas_are_the_separate_runs(method):
    # What rounding does to a run grows with the iterations: ten show a mistake, and next to nothing of that.
    settings = METHODS[method]
    configs = [config(0, **settings), config(5, **settings), config(0, learning_rate=1e-3, **settings)]
    together = Trainer(configs, images(), CPU)
    alone = [Trainer(one, images(), CPU) for one in configs]
    for trainer in (together, *alone):
        for _ in range(10):
            trainer.iterate()
    states = replicas.states_of(together.model, 3)
    controls = replicas.states_of(together.controls, 3)
    for index, trainer in enumerate(alone):
        wanted = {**trainer.model.state_dict(), **trainer.controls.state_dict()}
        for name, tensor in {**states[index], **controls[index]}.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=2e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
        ours, theirs = together.runs[index].sampler, trainer.runs[0].sampler
        if ours is not None:
            assert torch.equal(ours.z1, theirs.z1)
    rows = together.drain_terms()
    for index, trainer in enumerate(alone):
        (row,) = trainer.drain_terms()
        assert rows[index] == pytest.approx(row, rel=2e-3, abs=2e-3)
    # and they are different runs
    weights = [state["decoder.0.weight"] for state in states]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(weights, 2))


def test_each_replica_has_its_own_sharpness():
    configs = [config(0, beta=5.0), config(0, beta=9.0)]
    together = Trainer(configs, images(), CPU)
    for _ in range(3):
        together.iterate()
    for index, one in enumerate(configs):
        alone = Trainer(one, images(), CPU)
        for _ in range(3):
            alone.iterate()
        for name, tensor in replicas.states_of(together.model, 2)[index].items():
            torch.testing.assert_close(tensor, alone.model.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_validation_and_checkpoints_are_the_separate_runs(tmp_path):
    configs = [config(0), config(1)]
    together = Trainer(configs, images(), CPU)
    together.iterate()
    for ours, one in zip(together.validate(), configs, strict=True):
        alone = Trainer(one, images(), CPU)
        alone.iterate()
        (theirs,) = alone.validate()
        assert vars(ours) == pytest.approx(vars(theirs), rel=1e-5)


def test_a_single_module_is_not_copied_and_has_no_axis():
    model = DiscreteVAE(4, 6, 2, (3,))
    assert replicas.stack([model]) is model
    assert replicas.states_of(model, 1)[0]["decoder.0.weight"].shape == (3, 6)


def test_a_replica_is_the_module_again():
    models = [DiscreteVAE(4, 6, 2, (3,)) for _ in range(3)]
    stacked = replicas.stack(models)
    for index, model in enumerate(models):
        again = replicas.replica(stacked, index).state_dict()
        assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    again = replicas.replica(stacked, 0)
    with torch.no_grad():
        again.decoder[0].weight.add_(1)
    assert torch.equal(replicas.replica(stacked, 0).decoder[0].weight, models[0].decoder[0].weight)


def test_replicas_share_no_gradient():
    models = [DiscreteVAE(4, 6, 2, (3,)).double() for _ in range(2)]
    stacked = replicas.stack(models)
    x, rho = torch.ones(2, 5, 4).double(), torch.full((2, 5, 6), 0.3).double()
    z = torch.ones(2, 3, 3).double()
    loss = objective.terms(stacked, x, rho, create("exponential", 8.0), z, z).loss(1.0)
    assert loss.shape == (2,)
    loss[1].backward()
    for name, parameter in stacked.named_parameters():
        assert not parameter.grad[0].any(), name
    assert any(parameter.grad[1].any() for parameter in stacked.parameters())


def test_what_may_not_differ():
    with pytest.raises(ConfigError, match=r"replicas may differ in seed, .* alone; latents is 8 and 10"):
        Trainer([config(), config(latents=10)], images(), CPU)
    with pytest.raises(ConfigError, match="replicas must differ; two have seed 3"):
        Trainer([config(3), config(3)], images(), CPU)
    with pytest.raises(ConfigError, match="replicas must be at least 1"):
        Trainer([], images(), CPU)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_batch_normalisation_is_each_networks_own(leading):
    n = int(np.prod(leading))
    generator = torch.Generator().manual_seed(1)
    layers = [BatchNorm(4, eps=1e-2, momentum=0.2) for _ in range(n)]
    x = torch.randn((*leading, 7, 4), generator=generator) * 3 + 1
    stacked = replicas.stack(layers)
    for name in ("weight", "bias", "running_mean", "running_var"):
        with torch.no_grad():
            getattr(stacked, name).uniform_(0.5, 2, generator=generator)
            for index, layer in enumerate(layers if n > 1 else []):
                getattr(layer, name).copy_(getattr(stacked, name)[index])
    if len(leading) == 2:  # two axes: the same numbers in another shape
        for name in ("weight", "bias"):
            setattr(stacked, name, torch.nn.Parameter(getattr(stacked, name).detach().view(*leading, 4)))
        for name in ("running_mean", "running_var"):
            setattr(stacked, name, getattr(stacked, name).view(*leading, 4))
    for _ in range(2):
        ours = stacked(x)
        theirs = torch.stack([layer(rows) for layer, rows in zip(layers, x.view(-1, 7, 4), strict=True)])
        torch.testing.assert_close(ours, theirs.view(ours.shape))
    torch.testing.assert_close(
        stacked.running_mean.view(-1, 4), torch.stack([layer.running_mean for layer in layers]).view(-1, 4)
    )
    stacked.eval()
    theirs = torch.stack([layer.eval()(rows) for layer, rows in zip(layers, x.view(-1, 7, 4), strict=True)])
    torch.testing.assert_close(stacked(x), theirs.view(x.shape))


def test_frozen_statistics_leave_the_running_averages():
    network = feedforward(3, 2, (4,))
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with frozen_statistics(network):
        inside = network(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(inside, network(x))  # by batch statistics, as in training
    assert not torch.equal(network.state_dict()["1.running_mean"], before["1.running_mean"])
    assert network.state_dict()["1.num_batches_tracked"] == 1


def test_differing_learning_rates_are_followed():
    configs = [config(0), replace(config(0), optimisation=replace(config(0).optimisation, learning_rate=1e-2))]
    trainer = Trainer(configs, images(), CPU)
    start = [state["decoder.0.weight"].clone() for state in replicas.states_of(trainer.model, 2)]
    trainer.iterate()
    moved = [
        float((state["decoder.0.weight"] - before).abs().max())
        for state, before in zip(replicas.states_of(trainer.model, 2), start, strict=True)
    ]
    # Adam's first step is the rate times g / (|g| + epsilon): the same g, so rates show as they are.
    assert moved[1] / moved[0] == pytest.approx(1e-2 / 3e-3, rel=1e-4)
