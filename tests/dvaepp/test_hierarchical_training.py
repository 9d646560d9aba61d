"""Training DVAE++: the average of the weights, pieces of a batch, clipping, resuming, what its commands leave."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvaepp import batch_loss, evaluate, experiment, pictures, sample, train
from dvaepp.checkpoint import load
from dvaepp.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    HierarchyConfig,
    ModelConfig,
    OptimisationConfig,
    PriorConfig,
)
from dvaepp.data import Dataset
from dvaepp.errors import ConfigError, DataError
from dvaepp.kl_balancing import coefficients
from dvaepp.partition import exact
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import Trainer

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def stripes(count, seed=0):
    """Images 4 x 4 of one bright row or column: eight kinds, so that log p(x) can come to -log 8."""
    kind = np.random.default_rng(seed).integers(8, size=count)
    images = np.zeros((count, 4, 4), dtype=np.uint8)
    for image, one in zip(images, kind, strict=True):
        image[one if one < 4 else slice(None), slice(None) if one < 4 else one - 4] = 1
    return images


DATASET = Dataset(
    "stripes", *np.split(stripes(300).reshape(300, 16), [200, 250]), 1, (4, 4), provenance="made for this test"
)


def config(hierarchy=None, evaluation=None, model=None, **optimisation):
    return Config(
        model=ModelConfig(
            **{"network": "convolutional", "latents": 4, "groups": 2, "hidden": 8, "layers": 1, **(model or {})}
        ),
        hierarchy=HierarchyConfig(
            **{
                "local_groups": 2,
                "local_channels": 2,
                "width": 4,
                "halvings": 1,
                "local_halvings": 1,
                **(hierarchy or {}),
            }
        ),
        prior=PriorConfig(chains=10, sweeps=2),
        optimisation=OptimisationConfig(**{"iterations": 12, "batch_size": 20, **optimisation}),
        evaluation=EvaluationConfig(
            **{"log_every": 4, "validate_every": 6, "checkpoint_every": 6, "valid_importance": 5, "n_importance": 3}
            | (evaluation or {})
        ),
    )


def trained(settings, iterations):
    trainer = Trainer(settings, DATASET, CPU)
    for _ in range(iterations):
        trainer.iterate()
    return trainer


def weights(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("prior", ["rbm", "factorial", "normal"])
def test_the_kl_of_the_global_latents_is_balanced_with_the_others(prior, monkeypatch):
    seen = []

    def recorded(mean_kl, kl_weight):
        seen.append((mean_kl.clone(), kl_weight))
        return coefficients(mean_kl, kl_weight)

    monkeypatch.setattr(batch_loss, "coefficients", recorded)
    trainer = Trainer(config(model={"prior": prior}, kl_warmup=0.5), DATASET, CPU)
    log_z = 0.0
    for step in range(3):
        if prior == "rbm":
            log_z = exact(trainer.model.prior).log_partition
        trainer.iterate()
        terms = dict(zip(trainer._names, trainer._sums[:, 0].tolist(), strict=True))
        trainer._sums.zero_()
        mean_kl, kl_weight = seen[step]
        assert kl_weight == step / 6
        expected = [log_z - terms["entropy"] + terms["cross_entropy"], terms["local_kl_0"], terms["local_kl_1"]]
        assert mean_kl.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert min(expected) > -0.1


def test_a_batch_in_pieces_has_the_gradient_of_the_whole():
    """In the second iteration, where the KL has a weight, and groups are balanced by what they are over the batch."""
    whole, pieces = (trained(config(accumulate=count, kl_warmup=0.5), 2) for count in (1, 7))  # 20 = 6 * 3 + 2
    for name, parameter in whole.model.named_parameters():
        torch.testing.assert_close(pieces.model.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces._sums, whole._sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("execution", "tolerance"),
    [
        ({"recompute": True}, 0.0),
        ({"channels_last": True}, 1e-4),
        ({"precision": "bfloat16"}, 0.05),
        pytest.param({"compile": True}, 1e-4, marks=[pytest.mark.slow, needs_compiler]),
    ],
)
@pytest.mark.parametrize("decoder", ["unconditional", "conditional"])
def test_how_it_is_computed_changes_the_rounding_alone(execution, tolerance, decoder):
    plain = config({"decoder": decoder})
    expected, got = trained(plain, 1), trained(replace(plain, execution=ExecutionConfig(**execution)), 1)

    def gradient(trainer):
        return torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])

    apart = (gradient(got) - gradient(expected)).norm() / gradient(expected).norm()
    assert apart <= tolerance
    assert "precision" not in execution or apart > 1e-4  # it did compute in another precision
    torch.testing.assert_close(got._sums, expected._sums, rtol=tolerance, atol=tolerance)
    assert got.model.decoder.guess.dtype == torch.float32


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_told_in_one_line(tmp_path):
    """With a compiler that is none; in a process of its own, for torch reads its name when it is loaded."""
    images = tmp_path / "images.npy"
    np.save(images, stripes(100))
    flags = ["--data", images, "--out", tmp_path / "run", "--preset", "digits-dvaepp", "--halvings", 1]
    flags += ["--local-halvings", 1, "--batch-size", 2, "--iterations", 1, "--device", "cpu", "--backend", "torch"]
    done = subprocess.run(
        [sys.executable, "-m", "dvaepp.train", *map(str, flags), "--compile"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "compile cannot work on this machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_tested_is_not_what_is_compiled():
    settings = replace(config(), execution=ExecutionConfig(compile=True))
    trainer = Trainer(settings, DATASET, CPU)
    assert trainer.model.encoder._compiled_call_impl is not None
    assert trainer.model_of(0).encoder._compiled_call_impl is None
    averaged = Trainer(replace(settings, optimisation=replace(settings.optimisation, ema=0.9)), DATASET, CPU)
    assert averaged.model_of(0).encoder._compiled_call_impl is None


@pytest.mark.parametrize("decoder", ["unconditional", "conditional"])
def test_along_a_row_of_a_walk_the_global_latents_alone_change(decoder, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(pictures, "save_grid", lambda path, images, *rest: drawn.append(images))
    model = trained(config({"decoder": decoder}, learning_rate=0.05), 12).model.eval()
    steady = (torch.rand(6, 1, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    monkeypatch.setattr(pictures, "prior_states", lambda *rest: steady.repeat(1, 16, 1))
    pictures.save_walk(tmp_path / "walk.png", model, (4, 4), 0, "torch")
    (images,) = drawn
    assert images.shape == (6, 16, 16)
    torch.testing.assert_close(images, images[:, :1].expand_as(images))
    assert (images[0, 0] != images[1, 0]).any()


def test_a_long_gradient_is_shortened_to_the_norm_asked_for():
    free, clipped = trained(config(), 1), trained(config(gradient_clip=0.5), 1)

    def norm(trainer):
        return math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters()))

    assert norm(free) > 1
    assert norm(clipped) == pytest.approx(0.5, rel=1e-4)
    ratio = norm(clipped) / norm(free)
    for name, parameter in free.model.named_parameters():
        torch.testing.assert_close(clipped.model.get_parameter(name).grad, parameter.grad * ratio, rtol=1e-3, atol=1e-7)


def test_the_average_forgets_as_it_says():
    trainer = Trainer(config(ema=0.4), DATASET, CPU)
    expected = weights(trainer.model)
    for step in range(8):
        trainer.iterate()
        decay = min(0.4, (1 + step) / (10 + step))
        expected = {
            name: decay * before + (1 - decay) * weights(trainer.model)[name] for name, before in expected.items()
        }
    for name, average in weights(trainer.average.model).items():
        torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-6)
        if "gain" in name:
            assert not torch.equal(average, trainer.model.get_parameter(name))
    assert trainer.model_of(0) is trainer.average.model  # what is validated and kept


def test_a_run_goes_on_bit_for_bit(tmp_path):
    settings = config(ema=0.9)
    straight = trained(settings, 10)
    first = trained(settings, 5)
    folder = RunFolder.create(tmp_path / "run", settings, CPU, "torch", lambda own: first.save_one(0, own))
    second = Trainer(settings, DATASET, CPU)
    second.restore([folder], [load(folder.checkpoint)])
    for _ in range(5):
        second.iterate()
    for mine, other in ((second.model, straight.model), (second.average.model, straight.average.model)):
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert torch.equal(second._sums, straight._sums)


@pytest.mark.parametrize("prior", ["rbm", "normal"])
def test_it_learns(prior):
    """Better than the best model of independent pixels, which the decoder alone could be."""
    settings = config(iterations=100, learning_rate=1e-2, schedule="constant", model={"prior": prior})
    trainer = trained(settings, 100)
    p = DATASET.train.mean(0)
    independent = float((DATASET.valid * np.log(p) + (1 - DATASET.valid) * np.log(1 - p)).sum(1).mean())
    (validation,) = trainer.validate()
    assert validation.log_marginal > independent + 1  # -9.0 + 1; the truth is -log 8 = -2.1
    (row,) = trainer.drain_terms()
    local = sum(value for name, value in row.items() if name.startswith("local_kl_"))
    assert row["kl"] == pytest.approx(
        local + row["cross_entropy"] - row["entropy"] + row.get("log_partition", 0.0), abs=1.0
    )
    assert row["gradient_variance"] > 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run by the command, on a user's own colour pictures, and what it printed."""
    place = tmp_path_factory.mktemp("colour")
    pictures = place / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).save(pictures / f"{index:02}.png")
    arguments = [
        *("--data", str(pictures), "--network", "convolutional", "--likelihood", "logistic-mixture", "--mixtures", "2"),
        *("--decoder", "conditional", "--latents", "4", "--hidden", "8", "--layers", "1", "--local-groups", "2"),
        *("--local-channels", "2", "--width", "4", "--halvings", "2", "--local-halvings", "1", "--chains", "10"),
        *("--sweeps", "2", "--iterations", "6", "--batch-size", "8", "--n-importance", "3", "--valid-importance", "2"),
        *("--device", "cpu", "--backend", "torch", "--ema", "0.9"),
    ]
    assert train.main([*arguments, "--out", str(place / "run")]) == 0
    return place / "run"


def test_a_run_on_colour_pictures_leaves_what_it_should(finished):
    (path,) = finished.glob("evaluation-K3.json")
    record = json.loads(path.read_text())
    assert record["bits_per_dimension"] == pytest.approx(record["negative_log_likelihood"] / (90 * math.log(2)))
    assert 4 < record["bits_per_dimension"] < 16  # noise has 8 bits
    assert len(record["local_kl"]) == 2
    assert record["kl"] > sum(record["local_kl"]) - 0.5  # the rest is that of the global latents
    assert {path.stem for path in finished.glob("*.png")} == {
        *("samples", "reconstructions", "learning_curves", "prior", "active_units", "kl_by_group", "walk")
    }
    assert "hierarchy" in json.loads((finished / "config.json").read_text())


def test_its_cost_is_told(finished, capsys):
    assert train.main(["--resume", str(finished), "--device", "cpu"]) == 0  # what is left to do: the test
    said = " ".join(capsys.readouterr().out.split())
    assert int(said.split(" images a second")[0].split()[-1]) > 0
    if Path("/proc/self/status").exists():
        assert 100 < int(said.split(" MiB at most")[0].split()[-1]) < 100_000


def test_its_samples_share_the_global_latents_row_by_row(finished, tmp_path):
    out = tmp_path / "drawn.png"
    arguments = [str(finished), "--rows", "2", "--columns", "3", "--sweeps", "1", "--device", "cpu"]
    assert sample.main([*arguments, "--out", str(out), "--temperature", "0.5"]) == 0
    numbers = np.load(out.with_suffix(".npz"))
    assert numbers["z"].shape == (2, 4)
    assert numbers["draws"].shape == numbers["means"].shape == (2, 3, 3, 5, 6)
    assert numbers["draws"].dtype == np.uint8
    np.testing.assert_allclose(numbers["means"], numbers["draws"] / 255, rtol=1e-6)  # of a mixture what is shown is x
    assert (numbers["draws"][0, 0] != numbers["draws"][0, 1]).any()


def test_the_test_can_be_repeated(finished):
    assert evaluate.main([str(finished), "--n-importance", "2", "--device", "cpu", "--backend", "torch"]) == 0
    record = json.loads((finished / "evaluation-K2.json").read_text())
    assert math.isfinite(record["negative_log_likelihood"])


def test_what_goes_with_it_and_what_does_not(tmp_path):
    with pytest.raises(
        ConfigError, match=r"replicas must be 1 for network convolutional.*; got 2: train them one by one"
    ):
        Trainer([config(), replace(config(), seed=1)], DATASET, CPU)
    with pytest.raises(ConfigError, match=r"likelihood logistic-mixture is .* 256 levels; those of stripes are binary"):
        Trainer(config({"likelihood": "logistic-mixture"}), DATASET, CPU)
    with pytest.raises(ConfigError, match=r"likelihood, mixtures: for network convolutional alone; got .* nonlinear"):
        Config(hierarchy=HierarchyConfig(likelihood="logistic-mixture", mixtures=3))
    with pytest.raises(ConfigError, match=r"recompute and compile are for network convolutional"):
        Config(execution=ExecutionConfig(compile=True))
    with pytest.raises(ConfigError, match="accumulate must be 1 for network nonlinear"):
        Config(optimisation=OptimisationConfig(accumulate=2))
    colour = Dataset(
        "colour", *np.split(np.zeros((9, 48), np.uint8), 3), 255, (4, 4), channels=3, provenance="made for this test"
    )
    with pytest.raises((ConfigError, DataError), match="logistic-mixture"):
        Trainer(config(batch_size=2), colour, CPU)
    with pytest.raises((ConfigError, DataError), match="logistic-mixture"):
        Trainer(Config(optimisation=OptimisationConfig(batch_size=2)), colour, CPU)


def test_the_temperature_is_for_local_latents(tmp_path):
    settings = Config(data=DataConfig(), optimisation=OptimisationConfig(iterations=1))
    RunFolder.create(tmp_path / "run", settings, CPU, "torch", lambda own: None)
    with pytest.raises(ConfigError, match=r"temperature is for network convolutional.*: leave it out"):
        sample.main([str(tmp_path / "run"), "--temperature", "0.7"])
    with pytest.raises(ConfigError, match=r"temperature must be positive; got 0\.0"):
        sample.main([str(tmp_path / "run"), "--temperature", "0"])


def test_every_cell_of_table_3_is_trained_by_one_command(capsys):
    assert experiment.main(["table3", "--dry-run", "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count("would be trained") == 25
    assert experiment.main(["table3", "--dry-run", "--seeds", "1", "--cell", "ablation-*/mnist-dynamic"]) == 0
    assert capsys.readouterr().out.count("would be trained") == 9
