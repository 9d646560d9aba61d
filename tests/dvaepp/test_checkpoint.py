"""Checkpoints: exact round trips, and one line for every way in which a file can be wrong."""

import errno
import json
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dvaepp import atomic, checkpoint
from dvaepp.checkpoint import load, load_into, load_optimiser, optimiser_tensors, save
from dvaepp.errors import RunError

FACTS = {"step": 12, "best": None, "config": {"beta": 0.1, "name": "Größe"}}


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": torch.randn(3, 5, generator=generator),
        "doubles": torch.randn(7, generator=generator, dtype=torch.float64),
        "generator": generator.get_state(),
        "scalar": torch.tensor(2.5),
        "counts": torch.arange(4),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "transposed": torch.randn(2, 6, generator=generator).t(),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def one_line_naming(path, error):
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_round_trip_is_exact(path):
    given = tensors()
    save(path, given, FACTS)
    loaded, facts = load(path)
    assert facts == FACTS
    assert loaded.keys() == given.keys()
    for name, tensor in given.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        # Bit for bit: NaN and the sign of zero too.
        ours, theirs = (t.contiguous().reshape(-1).view(torch.uint8) for t in (loaded[name], tensor))
        assert torch.equal(ours, theirs), name
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_again_replaces_and_leaves_the_tensors_alone(path):
    parameter = nn.Parameter(torch.ones(3))
    save(path, {"p": parameter}, {"step": 1})
    with torch.no_grad():
        parameter.fill_(2)
    save(path, {"p": parameter}, {"step": 2})
    loaded, facts = load(path)
    assert (loaded["p"] == 2).all()
    assert facts == {"step": 2}
    loaded["p"].zero_()  # a tensor of its own, not the file's memory
    assert (load(path)[0]["p"] == 2).all()
    assert parameter.requires_grad


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def adam(module):
    weights = [p for p in module.parameters() if p.ndim > 1]
    biases = [p for p in module.parameters() if p.ndim == 1]
    return torch.optim.Adam([{"params": weights, "weight_decay": 1e-2}, {"params": biases}], lr=1e-2, eps=1e-3)


def train(module, optimiser, steps):
    for x in steps:
        optimiser.zero_grad()
        module(x).square().sum().backward()
        optimiser.step()


def test_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(path):
    batches = list(torch.randn(8, 6, 3, generator=torch.Generator().manual_seed(2)))
    whole = network()
    whole_optimiser = adam(whole)
    train(whole, whole_optimiser, batches)

    first = network()
    optimiser = adam(first)
    train(first, optimiser, batches[:5])
    stored = {f"model.{n}": t for n, t in first.state_dict().items()} | optimiser_tensors(optimiser, "optimiser.")
    save(path, stored, {})
    loaded, _ = load(path)
    second = network()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second_optimiser = adam(second)
    load_into(second, loaded, "model.", path)
    load_optimiser(second_optimiser, loaded, "optimiser.")
    again = optimiser_tensors(second_optimiser, "optimiser.")
    assert again.keys() == optimiser_tensors(optimiser, "optimiser.").keys()
    assert len(again) == 3 * len(list(second.parameters()))  # step and two moments each
    for name, tensor in optimiser_tensors(optimiser, "optimiser.").items():
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == tensor.dtype
    train(second, second_optimiser, batches[5:])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    assert second_optimiser.param_groups[0]["weight_decay"] == 1e-2


def test_a_fresh_optimiser_has_no_state_to_store():
    optimiser = adam(network())
    assert optimiser_tensors(optimiser, "o.") == {}
    load_optimiser(optimiser, {}, "o.")
    assert optimiser_tensors(optimiser, "o.") == {}


# ---- files that are not what they should be --------------------------------------------------------------------------


def small(path):
    save(path, {"w": torch.tensor([1.5, -2.0]), "b": torch.tensor(3)}, {"step": 7, "seed": 12})
    return path.read_bytes()


def test_every_truncation_is_refused(path):
    whole = small(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError) as error:
            load(path)
        one_line_naming(path, error)
    path.write_bytes(whole + b"\0")
    with pytest.raises(RunError) as error:
        load(path)
    one_line_naming(path, error)


def test_every_flipped_bit_is_refused(path):
    """Tensors, names, facts, digest, header and its length: no bit of the file can change unnoticed."""
    whole = small(path)
    unnoticed, messages = [], set()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                result = load(path)
            except RunError as error:
                messages.add(str(error))
            else:
                unnoticed.append((position, bit, damaged[max(0, position - 8) : position + 8], result))
    assert not unnoticed
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


def test_a_missing_file(path):
    with pytest.raises(RunError) as error:
        load(path)
    assert one_line_naming(path, error) == f"{path}: there is no such file"


def test_a_folder_in_its_place(path):
    path.mkdir()
    with pytest.raises(RunError) as error:
        load(path)
    one_line_naming(path, error)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "dvaepp 0", "facts": "{}", "digest": "0"}])
def test_a_foreign_safetensors_file(path, metadata):
    save_file({"weight": torch.ones(3)}, path, metadata=metadata)
    with pytest.raises(RunError) as error:
        load(path)
    assert one_line_naming(path, error) == f"{path}: not a checkpoint of this version of dvaepp"


def raw(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"__metadata__": {"format": "dvaepp 1"}},
        {"__metadata__": {"format": "dvaepp 1", "facts": "{}"}},
        {"__metadata__": {"format": "dvaepp 1", "digest": "0" * 32}},
        {"__metadata__": {"format": "dvaepp 1", "facts": "[1, ", "digest": "0" * 32}},
        {"__metadata__": {"format": 1}},
        {"w": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}},
        {"w": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}},
        {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 2]}},
        {"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
    ],
)
def test_headers_made_by_hand(path, header):
    size = max((entry["data_offsets"][1] for name, entry in header.items() if name == "w"), default=0)
    raw(path, header, bytes(size))
    with pytest.raises(RunError) as error:
        load(path)
    one_line_naming(path, error)


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (self.trace, "w"))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_nothing_is_unpickled(path, writer):
    trace = str(path.with_name("trace"))
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"w": Trap(trace)}))
    else:
        torch.save({"w": torch.ones(2), "trap": Trap(trace)}, path)
    with pytest.raises(RunError) as error:
        load(path)
    one_line_naming(path, error)
    assert not path.with_name("trace").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.0.weight"), "model.0.weight is missing"),
        (lambda t: t.pop("model.1.running_var"), "model.1.running_var is missing"),
        (lambda t: t.update({"model.9.weight": torch.ones(1)}), "model.9.weight is not part of this model"),
        (
            lambda t: t.update({"model.2.weight": torch.ones(4, 2)}),
            "model.2.weight must be (2, 4); it is (4, 2): a checkpoint of another configuration",
        ),
        (
            lambda t: t.update({"model.0.bias": torch.ones(1)}),
            "model.0.bias must be (4,); it is (1,): a checkpoint of another configuration",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_model(path, change, message):
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    stored = {f"model.{name}": torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    stored["other.weight"] = torch.ones(2)  # another prefix is nobody's business
    load_into(network(), stored, "model.", path)
    change(stored)
    with pytest.raises(RunError) as error:
        load_into(module, stored, "model.", path)
    assert one_line_naming(path, error) == f"{path}: {message}"
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])  # refused before anything was copied


# ---- writing that fails ----------------------------------------------------------------------------------------------


def files_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), checkpoint.SafetensorError("I/O: half")]
)
@pytest.mark.parametrize("after_writing", [False, True])
def test_a_failure_while_writing_leaves_the_old_file(monkeypatch, path, failure, after_writing):
    small(path)
    before = files_in(path.parent)

    def failing(stored, part, metadata):
        if after_writing:
            part.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(checkpoint, "save_file", failing)
    with pytest.raises(RunError) as error:
        save(path, {"w": torch.zeros(5)}, {})
    message = one_line_naming(path, error)
    assert message.startswith(f"cannot write {path}: ")
    assert "No space left on device" in message or "I/O: half" in message
    assert message.endswith("what was there before is unchanged")
    assert files_in(path.parent) == before


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ZeroDivisionError(), TypeError("odd")])
def test_any_other_failure_passes_and_leaves_the_old_file_too(monkeypatch, path, failure):
    small(path)
    before = files_in(path.parent)

    def failing(stored, part, metadata):
        part.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(checkpoint, "save_file", failing)
    with pytest.raises(type(failure)):
        save(path, {"w": torch.zeros(5)}, {})
    assert files_in(path.parent) == before


def test_a_failure_of_the_rename_or_of_fsync(monkeypatch, path):
    small(path)
    before = files_in(path.parent)

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic.os, "fsync", failing)
    with pytest.raises(RunError, match="Input/output error") as error:
        save(path, {"w": torch.zeros(5)}, {})
    one_line_naming(path, error)
    assert files_in(path.parent) == before


def test_a_disk_that_fills_up(path):
    """The system itself refuses, by its limit on file sizes, in a process of its own: over a file and without one."""
    small(path)
    before = files_in(path.parent)
    new = path.with_name("new.safetensors")
    script = textwrap.dedent(
        """
        import pathlib, resource, sys, torch
        from dvaepp.checkpoint import save
        from dvaepp.errors import RunError
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for path in sys.argv[1:]:
            try:
                save(pathlib.Path(path), {"w": torch.zeros(1_000_000)}, {"step": 1})
            except RunError as error:
                print(error)
        """
    )
    result = subprocess.run([sys.executable, "-c", script, path, new], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for line, target in zip(lines, (path, new), strict=True):
        assert line.startswith(f"cannot write {target}: ")
    assert files_in(path.parent) == before


def test_a_folder_that_is_not_there_or_not_ours(tmp_path):
    for path in (tmp_path / "nowhere" / "c.safetensors", tmp_path / "file" / "c.safetensors"):
        (tmp_path / "file").touch()
        with pytest.raises(RunError) as error:
            save(path, {"w": torch.zeros(1)}, {})
        one_line_naming(path, error)
    assert not (tmp_path / "nowhere").exists()


def test_text_is_written_the_same_way(monkeypatch, tmp_path):
    path = tmp_path / "config.json"
    atomic.write_text(path, "größer\n")
    assert path.read_text(encoding="utf-8") == "größer\n"
    monkeypatch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(RunError, match="Read-only") as error:
        atomic.write_text(path, "new")
    one_line_naming(path, error)
    assert files_in(tmp_path) == {"config.json": "größer\n".encode()}


def test_a_part_left_by_a_killed_process_does_no_harm(path):
    path.with_name(f".{path.name}.part{path.suffix}").write_bytes(b"half of an old file")
    small(path)
    assert load(path)[1] == {"step": 7, "seed": 12}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
