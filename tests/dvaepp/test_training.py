"""Training sessions of one run or several: what they leave, where they go on, what they refuse.

Runs are judged by other runs (alone, uninterrupted), by enumeration of all latents, or by numbers put in on purpose.
"""

import itertools
import json
import os
import signal
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from rich.console import Console

from dvaepp import config as settings
from dvaepp import sample, train, trainer, training
from dvaepp.checkpoint import load, save
from dvaepp.command import INTERRUPTED
from dvaepp.config import SMOOTHED, Config, EvaluationConfig, ModelConfig, OptimisationConfig, PriorConfig
from dvaepp.data import Dataset
from dvaepp.errors import ConfigError, NonFiniteError, RunError
from dvaepp.evaluate import evaluate, load_data
from dvaepp.run_folder import RunFolder
from dvaepp.trainer import Trainer

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


def bars(count):
    rng = np.random.default_rng(0)
    images = np.zeros((count, 4, 4), dtype=np.uint8)
    for image in images:
        image[:, rng.integers(4)] = 1
        image[rng.integers(4), :] |= rng.integers(0, 2, 4, dtype=np.uint8)
    return images


DATASET = Dataset("bars", *np.split(bars(100).reshape(100, 16), [60, 80]), 1, (4, 4), provenance="made for this test")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "bars.npy"
    np.save(path, bars(120))
    return path


def config(images="digits", seed=0, sampler="gibbs", optimisation=None, **model):
    changes = {"iterations": 20, "batch_size": 10} | (optimisation or {})
    return Config(
        model=ModelConfig(**{"latents": 8, "groups": 2, "hidden": 6, "layers": 1, "beta": 8.0} | model),
        prior=PriorConfig(chains=10, sweeps=2, sampler=sampler),
        optimisation=OptimisationConfig(**changes),
        data=settings.DataConfig(data=str(images)),
        evaluation=EvaluationConfig(
            log_every=5, validate_every=10, checkpoint_every=5, valid_importance=2, n_importance=3
        ),
        seed=seed,
    )


def flags(images, seed=3):
    """The command line of ``config``."""
    return [
        *("--latents", "8", "--groups", "2", "--hidden", "6", "--layers", "1", "--beta", "8"),
        *("--chains", "10", "--sweeps", "2", "--iterations", "20", "--batch-size", "10", "--log-every", "5"),
        *("--validate-every", "10", "--checkpoint-every", "5", "--valid-importance", "2", "--n-importance", "3"),
        *("--data", str(images), "--seed", str(seed), "--device", "cpu", "--backend", "torch"),
    ]


def complete(paths, configs, draw=False):
    return training.complete(paths, configs, "cpu", "torch", QUIET, draw)


def opened(paths):
    """A session of runs that were begun."""
    return training.resume(paths, [RunFolder(path).config() for path in paths], "cpu", "torch", QUIET)


def seeds_of(folder):
    return [folder / "seed-3", folder / "seed-4"]


def standing(folder):
    """The iterations at which the checkpoints of two seeds stand."""
    return [load(path / "checkpoint.safetensors")[1]["step"] for path in seeds_of(folder)]


def files(folder):
    return {path.name for path in folder.iterdir()}


def metrics(folder):
    rows = RunFolder(folder).read_metrics()
    for row in rows:
        del row["seconds"]
    return rows


def record(folder):
    (path,) = folder.glob("evaluation-K*.json")
    found = json.loads(path.read_text())
    del found["seconds"]
    return found


def assert_equal_runs(folder, other):
    """Bit for bit, but for the time they took."""
    assert files(folder) == files(other)
    for name in ("checkpoint.safetensors", "best.safetensors"):
        (ours, our_facts), (theirs, their_facts) = load(folder / name), load(other / name)
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            assert torch.equal(tensor, theirs[key]), key
        assert our_facts | {"seconds": 0} == their_facts | {"seconds": 0}
    assert metrics(folder) == metrics(other)
    assert record(folder) == record(other)


def one_line(found, *words):
    assert "\n" not in str(found.value)
    for word in words:
        assert str(word) in str(found.value)


# ---- replicas by the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def group(tmp_path_factory, images):
    """Two seeds trained as one, undisturbed."""
    path = tmp_path_factory.mktemp("group") / "both"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvaepp.pictures.save_all", lambda *_: [])
        assert train.main([*flags(images), "--replicas", "2", "--out", str(path)]) == 0
    return path


@pytest.fixture
def no_pictures(monkeypatch):
    """They take longer than the runs."""
    monkeypatch.setattr("dvaepp.pictures.save_all", lambda *_: [])


def close(found, wanted):
    """Nested dictionaries of numbers and words, numbers up to rounding."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        if isinstance(value, dict):
            close(found[key], value)
        else:
            assert found[key] == (pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value), key
    return True


@pytest.mark.usefixtures("no_pictures")
def test_replicas_leave_what_separate_runs_leave(group, images, tmp_path):
    assert files(group) == {"seed-3", "seed-4"}
    for seed, ours in zip((3, 4), seeds_of(group), strict=True):
        alone = tmp_path / "alone" / ours.name
        assert train.main([*flags(images, seed), "--out", str(alone)]) == 0
        assert files(ours) == files(alone)
        assert RunFolder(ours).config() == RunFolder(alone).config()
        assert len(metrics(ours)) == 6
        assert all(close(one, other) for one, other in zip(metrics(ours), metrics(alone), strict=True))
        assert close(record(ours), record(alone))
        for name in ("checkpoint.safetensors", "best.safetensors"):
            (found, facts), (wanted, same) = load(ours / name), load(alone / name)
            assert facts["step"] == same["step"]
            assert found.keys() == wanted.keys()
            for key, tensor in found.items():
                assert tensor.shape == wanted[key].shape
                assert tensor.dtype == wanted[key].dtype
                torch.testing.assert_close(tensor, wanted[key], rtol=1e-3, atol=1e-4, msg=key)
    negative = [record(path)["negative_log_likelihood"] for path in seeds_of(group)]
    assert abs(negative[0] - negative[1]) > 1e-2


@pytest.fixture
def at_iteration(monkeypatch):
    """Do something before an iteration, once."""

    def arrange(step, act):
        iterate, waiting = Trainer.iterate, [act]

        def watched(self):
            if self.step == step and waiting:
                waiting.pop()()
            iterate(self)

        monkeypatch.setattr(Trainer, "iterate", watched)

    return arrange


@pytest.mark.usefixtures("no_pictures")
def test_replicas_interrupted_and_resumed_equal_uninterrupted(group, images, tmp_path, at_iteration, capsys):
    at_iteration(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    path = tmp_path / "both"
    assert train.main([*flags(images), "--replicas", "2", "--out", str(path)]) == INTERRUPTED
    assert f"--resume {path}\n" in capsys.readouterr().out.replace("resume \n", "resume ")
    assert standing(path) == [13, 13]
    assert not any(path.glob("*/evaluation*"))
    assert train.main(["--resume", str(path)]) == 0
    for ours, other in zip(seeds_of(path), seeds_of(group), strict=True):
        assert_equal_runs(ours, other)


@pytest.mark.usefixtures("no_pictures")
def test_one_of_the_replicas_goes_on_alone(group, images, tmp_path, at_iteration):
    at_iteration(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    path = tmp_path / "both"
    assert train.main([*flags(images), "--replicas", "2", "--out", str(path)]) == INTERRUPTED
    assert train.main(["--resume", str(path / "seed-4")]) == 0
    assert close(record(path / "seed-4"), record(group / "seed-4"))
    assert standing(path) == [13, 20]
    with pytest.raises(RunError) as found:
        train.main(["--resume", str(path)])
    one_line(found, path, "they stand at 13, 20", "resume each alone")


# ---- a process that dies while replicas are saved --------------------------------------------------------------------


class Died(BaseException):
    """What no code of ours catches."""


def die_at(monkeypatch, owner, name, call):
    """The process dies at a call of a function, before it has done anything."""
    function, count = getattr(owner, name), itertools.count(1)

    def dying(*arguments):
        if next(count) == call:
            raise Died
        return function(*arguments)

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("where", "call", "left", "step"),
    [
        ("rename", 2, [5, 0], 5),  # between the first two renames: the other one is made up for
        ("rename", 4, [10, 5], 10),
        ("rename", 1, [0, 0], 0),  # all written, none renamed: forgotten
        ("write", 4, [0, 0], 0),  # two checkpoints at the start, then the first of the next: forgotten
    ],
)
def test_a_death_while_checkpoints_are_replaced(where, call, left, step, group, images, tmp_path, monkeypatch):
    path = tmp_path / "both"
    with monkeypatch.context() as patch:
        if where == "rename":
            die_at(patch, RunFolder, "take_next_checkpoint", call)
        else:
            die_at(patch, trainer, "save", call)
        with pytest.raises(Died):
            train.main([*flags(images), "--replicas", "2", "--out", str(path)])
    assert standing(path) == left
    assert any(path.glob("*/next.safetensors"))
    with opened(seeds_of(path)) as session:
        assert session.trainer.step == step
        assert not any(path.glob("*/next.safetensors"))
        session.run(draw=False)
    for ours, other in zip(seeds_of(path), seeds_of(group), strict=True):
        assert_equal_runs(ours, other)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_replicas_are_refused(group, images, tmp_path):
    def refused(error, *arguments):
        with pytest.raises(error) as found:
            train.main([str(argument) for argument in arguments])
        return found

    for count in (0, -1, 1001):
        found = refused(ConfigError, *flags(images), "--replicas", count, "--out", tmp_path / "never")
        one_line(found, f"replicas must lie in 1..1000; got {count}")
    found = refused(ConfigError, "--resume", group, "--replicas", 2)
    one_line(found, "--replicas makes no sense with --resume", group)
    # Whatever --resume would take for this group, or together with it.
    for path, words in ((group, [group, "exists"]), (group / "seed-3", ["seed-3", "exists"])):
        one_line(refused(RunError, *flags(images, 10), "--replicas", 2, "--out", path), *words)
        assert not any(path.glob("seed-1*"))
    assert not (tmp_path / "never").exists()


def test_names_that_are_no_replicas_are_left_alone(group, tmp_path):
    path = tmp_path / "both"
    path.mkdir()
    for name in ("seed-3", "seed-4"):
        (path / name).symlink_to(group / name)
    for name in ("5", "seed-x", "seed-"):
        (path / name).mkdir()
    assert train._paths(path) == [path / "seed-3", path / "seed-4"]


def test_a_missing_folder_of_a_group(group, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in group.rglob("*")}
    configs = [RunFolder(path).config() for path in seeds_of(group)]
    with pytest.raises(RunError) as found:
        complete([group / "seed-3", tmp_path / "gone"], configs)
    one_line(found, tmp_path / "gone", "is missing", "alone")
    assert not (tmp_path / "gone").exists()
    assert {path: path.stat().st_mtime_ns for path in group.rglob("*")} == before


def test_a_group_that_cannot_be_begun_leaves_nothing(images, tmp_path):
    (tmp_path / "file").write_text("")
    paths = [tmp_path / "first", tmp_path / "file" / "second"]
    with pytest.raises(RunError) as found:
        complete(paths, [config(images, 3), config(images, 4)])
    one_line(found, "cannot create", paths[1])
    assert files(tmp_path) == {"file"}


def test_a_group_of_which_one_is_held_or_damaged(images, tmp_path):
    path = tmp_path / "both"
    with training.begin(seeds_of(path), [config(images, 3), config(images, 4)], "cpu", "torch", QUIET):
        with pytest.raises(RunError) as found:
            opened(seeds_of(path)[1:])
        one_line(found, "seed-4", "another process")
    with RunFolder(path / "seed-4").locked():
        with pytest.raises(RunError) as found:
            opened(seeds_of(path))
        one_line(found, "seed-4", "another process")
        with RunFolder(path / "seed-3").locked():
            pass  # was let go of
    damaged = path / "seed-4" / "checkpoint.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-7])
    with pytest.raises(RunError) as found:
        opened(seeds_of(path))
    one_line(found, damaged, "damaged")
    damaged.write_bytes(whole)
    with opened(seeds_of(path)) as session:
        assert session.trainer.step == 0


def test_folders_of_another_configuration(group):
    configs = [replace(RunFolder(path).config(), seed=index) for index, path in enumerate(seeds_of(group))]
    with pytest.raises(RunError) as found:
        complete(seeds_of(group), configs)
    one_line(found, "another configuration: seed is 3, not 0")


# ---- runs of before --------------------------------------------------------------------------------------------------

#: What runs were configured with before there were directed priors and other estimators.
FORMER = {
    "model": {"latents", "groups", "network", "hidden", "layers", "beta"},
    "prior": {"chains", "sweeps"},
    "optimisation": {
        *("iterations", "batch_size", "learning_rate", "adam_epsilon", "weight_decay", "kl_warmup"),
    },
}


def former(values):
    return {
        section: {name: content[name] for name in FORMER.get(section, content)} if section != "seed" else content
        for section, content in values.items()
    }


def test_a_run_of_a_former_revision_goes_on(images, tmp_path, at_iteration):
    whole, run = tmp_path / "whole", tmp_path / "run"
    complete([whole], [config(images)])
    at_iteration(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(training.Interrupted):
        complete([run], [config(images)])
    tensors, facts = load(run / "checkpoint.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"model", "chains", "optimiser", "generator", "sums"}
    assert {name for name in tensors if name.startswith("chains.")} == {"chains.z1", "chains.z2", "chains.step"}
    assert tensors["sums"].shape == (4,)
    stored = former(facts["config"])
    assert "estimator" not in stored["model"]
    save(run / "checkpoint.safetensors", tensors, facts | {"config": stored})
    (run / "config.json").write_text(json.dumps(stored))
    complete([run], [RunFolder(run).config()])
    assert_equal_runs(run, whole)


# ---- every method ----------------------------------------------------------------------------------------------------


def methods():
    """All that the configuration allows, of every prior, estimator and smoothing."""
    found = []
    for prior, estimator, smoothing in itertools.product(
        get_args(settings.Prior), get_args(settings.Estimator), get_args(settings.Smoothing)
    ):
        model = {"prior": prior, "estimator": estimator, "smoothing": smoothing}
        model |= {} if estimator in SMOOTHED else {"batch_norm": False}
        model |= {"n_samples": 2} if estimator == "vimco" else {}
        for n_groups in (2, 1):
            try:
                config(**model, groups=n_groups)
            except ConfigError:
                continue
            found.append(model | {"groups": n_groups})
            break
    return found


METHODS = methods()


def test_no_method_is_left_out():
    names = {(one["prior"], one["estimator"], one["smoothing"]) for one in METHODS}
    assert len(names) == len(METHODS) == 7 + 1 + 8 + 7 + 6 + 8  # rbm: joint, rolfe, binary; directed: marginal as well
    assert {smoothing for _, _, smoothing in names} == set(get_args(settings.Smoothing))
    assert {estimator for _, estimator, _ in names} == set(get_args(settings.Estimator))


@pytest.mark.parametrize("method", METHODS, ids=lambda one: "-".join(map(str, list(one.values())[:3])))
def test_every_method_trains_and_is_tested(method):
    optimisation = {"iterations": 4, "kl_warmup": 0.5, "weight_decay": 0.0}
    one = config(**method, optimisation=optimisation)
    learner = Trainer(one, DATASET, CPU)
    start = {name: tensor.clone() for name, tensor in learner.model.named_parameters()}
    learner.iterate()  # the KL's weight is 0, and the prior is in nothing else
    for name, tensor in learner.model.named_parameters():
        moved = not torch.equal(tensor, start[name])
        assert moved != name.startswith("prior."), name
    for _ in range(2):
        learner.iterate()
    for name, tensor in learner.model.named_parameters():
        assert not torch.equal(tensor, start[name]), name
    (row,) = learner.drain_terms()
    assert all(np.isfinite(value) for value in row.values())
    assert ("log_partition" in row) == (one.model.prior == "rbm")
    assert row["gradient_variance"] > 0
    (validation,) = learner.validate()
    model = learner.model.eval()
    found = evaluate(model, DATASET, one, CPU, QUIET, 0, "torch")
    numbers = [value for value in found.values() if isinstance(value, float)]
    assert len(numbers) >= 10
    assert np.isfinite(numbers).all()
    assert (found["log_partition"] is None) == (one.model.prior == "directed")
    assert found["n_images"] == 20
    # 16 pixels, hardly trained: a coin for each pixel is worth 11.1 nats
    assert 0 < found["negative_log_likelihood"] < 20
    assert abs(validation.log_marginal + found["negative_log_likelihood"]) < 5


@pytest.mark.parametrize("kind", get_args(settings.Smoothing))
def test_replicas_differ_in_sharpness_of_every_smoothing(kind):
    configs = [config(prior="directed", smoothing=kind, beta=beta, beta_end=9.0) for beta in (3.0, 7.0)]
    together = Trainer(configs, DATASET, CPU)
    alone = [Trainer(one, DATASET, CPU) for one in configs]
    for one in (together, *alone):
        for _ in range(2):
            one.iterate()
    for index, one in enumerate(alone):
        ours, wanted = together.model_of(index).state_dict(), one.model.state_dict()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6, msg=name)
    first, second = (one.model.state_dict()["encoders.0.0.weight"] for one in alone)
    assert (first - second).abs().max() > 1e-5


# ---- going on --------------------------------------------------------------------------------------------------------

COURSES = {
    "tempering": [{"sampler": "tempering"}],
    "population": [{"sampler": "population"}],
    "relax": [{"prior": "directed", "estimator": "relax", "batch_norm": False}],
    "nvil, rbm": [{"estimator": "nvil", "batch_norm": False}],
    "rebar, two seeds": [{"estimator": "rebar", "batch_norm": False, "seed": seed} for seed in (0, 1)],
    "tempering, two seeds": [{"sampler": "tempering", "seed": seed} for seed in (0, 1)],
    "annealed": [{"prior": "directed", "estimator": "marginal", "smoothing": "logistic", "beta_end": 16.0}],
}


@pytest.mark.parametrize("course", COURSES)
def test_a_restored_trainer_goes_on_bit_for_bit(course, tmp_path, monkeypatch):
    configs = [config(**one) for one in COURSES[course]]
    whole, part, again = (Trainer(configs, DATASET, CPU) for _ in range(3))
    for _ in range(7):
        whole.iterate()
    for _ in range(3):
        part.iterate()
    paths = [tmp_path / str(index) for index in range(len(configs))]
    folders = [
        RunFolder.create(path, one, CPU, "torch", lambda run, index=index: part.save_one(index, run))
        for index, (path, one) in enumerate(zip(paths, configs, strict=True))
    ]
    again.restore(folders, [load(folder.checkpoint) for folder in folders])
    betas = []
    made = trainer.create

    def create(kind, beta, *rest):
        betas.append(beta)
        return made(kind, beta, *rest)

    monkeypatch.setattr("dvaepp.trainer.create", create)
    for _ in range(4):
        again.iterate()
    for index in range(len(configs)):
        (ours, our_facts), (wanted, facts) = again._checkpoint(index), whole._checkpoint(index)
        assert our_facts == facts
        assert ours.keys() == wanted.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, wanted[name]), name
    assert again.drain_terms() == whole.drain_terms()
    if course == "annealed":
        assert betas == pytest.approx([8 + 8 * step / 20 for step in (3, 4, 5, 6)], rel=1e-12)


# ---- directed models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directed(tmp_path_factory, images):
    """A trained directed model of four latents, with its pictures."""
    path = tmp_path_factory.mktemp("directed") / "run"
    one = config(images, prior="directed", latents=4, network="linear", optimisation={"iterations": 60})
    (found,) = complete([path], [one.with_evaluation(n_importance=4000)], draw=True)
    return path, found


def test_the_reported_likelihood_is_the_enumerated_one(directed, images):
    path, found = directed
    assert found == json.loads((path / "evaluation-K4000.json").read_text())
    assert found["log_partition"] is None
    assert found["negative_log_likelihood_low"] == found["negative_log_likelihood_high"]
    assert found["iterations"] == 60
    tensors, _ = load(path / "best.safetensors")
    weight = {name.removeprefix("model."): tensor.double().numpy() for name, tensor in tensors.items()}

    def linear(name, inputs):
        return inputs @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]

    def log_prob(bits, logits):
        return -np.logaddexp(0, (1 - 2 * bits) * logits).sum(-1)

    x = load_data(RunFolder(path).config()).test.astype(float)[:, None]  # (B, 1, D)
    z = np.indices((2,) * 4).reshape(4, -1).T.astype(float)  # (16, 4)
    first, second = z[:, :2], z[:, 2:]
    log_p = log_prob(first, weight["prior.first"]) + log_prob(second, linear("prior.networks.0.0", 2 * first - 1))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)
    joint = log_p + log_prob(x, linear("decoder.0", 2 * z - 1))  # (B, 16)
    exact = np.logaddexp.reduce(joint, axis=1)
    centred = x - weight["train_mean"]
    given = np.broadcast_to(2 * first - 1, (len(x), 16, 2))
    seen = np.concatenate([np.broadcast_to(centred, (len(x), 16, 16)), given], axis=-1)  # 16 states, 16 pixels
    log_q = log_prob(first, linear("encoders.0.0", centred)) + log_prob(second, linear("encoders.1.0", seen))
    np.testing.assert_allclose(np.exp(log_q).sum(1), 1, atol=1e-12)
    # What chance does to the mean of K weights w = p(x, z)/q(z|x), to first order in log p(x).
    ratio = np.exp(joint - log_q - exact[:, None])
    variance = (np.exp(log_q) * (ratio - 1) ** 2).sum(1) / 4000
    error = np.sqrt(variance.sum()) / len(x)
    assert error < 0.02
    assert abs(found["negative_log_likelihood"] + exact.mean()) < 4 * error + variance.mean()
    elbo = (np.exp(log_q) * (joint - log_q)).sum(1)
    spread = np.sqrt((np.exp(log_q) * (joint - log_q - elbo[:, None]) ** 2).sum(1).sum() / 4000) / len(x)
    assert abs(found["elbo"] - elbo.mean()) < 4 * spread


def test_pictures_and_samples_of_a_directed_model(directed, tmp_path):
    path, _ = directed
    drawn = {file.name for file in path.glob("*.png")}
    assert drawn == {"samples.png", "reconstructions.png", "learning_curves.png", "active_units.png"}
    out = tmp_path / "mine.png"
    arguments = [str(path), "--rows", "40", "--columns", "3", "--out", str(out), "--device", "cpu"]
    assert sample.main([*arguments, "--backend", "torch"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "mine.npz", allow_pickle=False) as numbers:
        z, means, draws = (numbers[name] for name in ("z", "means", "draws"))
    assert z.shape == (40, 4)
    assert draws.shape == (40, 2, 4, 4)
    tensors, _ = load(path / "best.safetensors")
    inputs = torch.from_numpy(2.0 * z - 1).float()
    wanted = torch.sigmoid(inputs @ tensors["model.decoder.0.weight"].T + tensors["model.decoder.0.bias"])
    np.testing.assert_allclose(means.reshape(40, 16), wanted.numpy(), rtol=1e-5)
    assert len(np.unique(z, axis=0)) > 1


@pytest.mark.parametrize("sampler", ["gibbs", "population"])
def test_samples_of_an_rbm(sampler, images, tmp_path):
    path = tmp_path / "run"
    complete([path], [config(images, sampler=sampler, optimisation={"iterations": 10})])
    out = tmp_path / "mine.png"
    arguments = [str(path), "--rows", "3", "--columns", "2", "--sweeps", "2", "--out", str(out), "--device", "cpu"]
    assert sample.main([*arguments, "--backend", "torch"]) == 0
    with np.load(tmp_path / "mine.npz", allow_pickle=False) as numbers:
        assert numbers["z"].shape == (3, 8)


# ---- numbers that are none -------------------------------------------------------------------------------------------


def two(**changes):
    return Trainer([config(seed=2, **changes), config(seed=5, **changes)], DATASET, CPU)


def poison(tensor, index):
    with torch.no_grad():
        tensor[index].view(-1)[-1] = torch.nan


@pytest.mark.parametrize("index", [0, 1])
def test_the_replica_that_diverged_is_named(index, tmp_path):
    seed = (2, 5)[index]
    learner = two()
    folders = [RunFolder(tmp_path / str(number)) for number in range(2)]
    poison(learner.model.decoder[0].weight, index)
    with pytest.raises(NonFiniteError) as found:
        learner.iterate()
    one_line(found, "log_likelihood became NaN or infinite at iteration 1", f"(replica of seed {seed})")
    with pytest.raises(NonFiniteError) as found:
        learner.validate()
    one_line(found, "the validation's", f"(replica of seed {seed})")
    learner = two()
    poison(learner.model.prior.W, index)
    for act in (lambda: learner.save(folders), learner.drain_terms):
        with pytest.raises(NonFiniteError) as found:
            act()
        one_line(found, "the weights prior.W became NaN or infinite at iteration 0", f"(replica of seed {seed})")
    assert files(tmp_path) == set()


def test_a_backend_that_refuses_what_diverged_has_its_replica_named():
    learner = Trainer([config(seed=2), config(seed=5)], DATASET, CPU, "numpy_oracle")
    poison(learner.model.prior.W, 1)
    with pytest.raises(NonFiniteError) as found:
        learner.iterate()
    one_line(found, "prior.W", "(replica of seed 5)")


def test_control_variates_that_diverged_are_not_saved(tmp_path):
    learner = Trainer(config(estimator="relax", batch_norm=False), DATASET, CPU)
    poison(learner.controls.eta, slice(None))
    with pytest.raises(NonFiniteError) as found:
        learner.save([RunFolder(tmp_path)])
    one_line(found, "the weights eta became NaN or infinite")
    assert files(tmp_path) == set()


# ---- optimisers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("prior", ["rbm", "directed"])
def test_weights_decay_and_biases_do_not(prior, seeds):
    learner = Trainer([config(seed=seed, prior=prior) for seed in seeds], DATASET, CPU)
    for run in learner.runs:
        names = {id(leaf): name for name, leaf in run.leaves.items()}
        decayed, others = ({names[id(leaf)] for leaf in part["params"]} for part in run.optimiser.param_groups)
        assert [part["weight_decay"] for part in run.optimiser.param_groups] == [1e-4, 0.0]
        wanted = {"encoders.0.0.weight", "encoders.0.3.weight", "encoders.1.0.weight", "encoders.1.3.weight"}
        wanted |= {"decoder.0.weight", "decoder.3.weight"}
        wanted |= {"prior.W"} if prior == "rbm" else {"prior.networks.0.0.weight", "prior.networks.0.3.weight"}
        assert decayed == wanted
        assert {"encoders.0.1.weight", "encoders.0.1.bias", "decoder.3.bias"} < others
        assert ({"prior.a1", "prior.a2"} if prior == "rbm" else {"prior.first"}) < others


def test_learning_rates_of_control_variates():
    rates = (1e-3, 4e-3)
    configs = [
        config(
            prior="directed",
            estimator="nvil",
            batch_norm=False,
            optimisation={"learning_rate": rate, "schedule": "constant", "control_rate": 10.0},
        )
        for rate in rates
    ]
    learner = Trainer(configs, DATASET, CPU)
    before = learner.controls.baselines[0][0].weight.detach().clone()
    learner.iterate()
    moved = (learner.controls.baselines[0][0].weight.detach() - before).flatten(1).abs().amax(1)
    # Adam's first step is the rate, whatever the gradient.
    assert moved.numpy() == pytest.approx(10 * np.array(rates), rel=1e-3)


@pytest.mark.parametrize("n_steps", [2, 5, 100])
def test_the_gradients_variance_is_what_was_put_in(n_steps):
    learner = Trainer(config(hidden=40, optimisation={"weight_decay": 0.0}), DATASET, CPU)
    (run,) = learner.runs
    noise = torch.Generator().manual_seed(n_steps)
    assert run.gradient_variance() == 0
    for _ in range(n_steps):
        for name, leaf in run.leaves.items():
            mean, deviation = (0.7, 0.3) if name.startswith("encoders.") else (0.0, 9.0)
            leaf.grad = mean + deviation * torch.randn(leaf.shape, generator=noise)
        run.optimiser.step()
    # some 1,900 entries, whose noise leaves 5 per cent of it after two steps, and less later
    assert run.gradient_variance() == pytest.approx(0.09, rel=0.1)
