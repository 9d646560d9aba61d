"""Tensors and a few facts in one safetensors file: written atomically, verified when read. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dvaepp.atomic import temporary
from dvaepp.errors import RunError

_FORMAT = "dvaepp 1"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors with JSON facts and a digest of both.

    Raises   RunError if the file cannot be written; the previous one is then unchanged.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    metadata = {"format": _FORMAT, "facts": text, "digest": _digest(stored, text)}
    with temporary(path) as part:
        try:
            save_file(stored, part, metadata=metadata)
        except SafetensorError as error:  # wraps the operating system's error in text
            raise OSError(str(error)) from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save`` wrote, on the CPU.

    Raises   RunError if the file is missing, truncated, changed or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such file") from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as a checkpoint ({_first_line(error)}); it is damaged") from error
    if metadata.get("format") != _FORMAT:
        raise RunError(f"{path}: not a checkpoint of this version of dvaepp")
    text = metadata.get("facts", "")
    if metadata.get("digest") != _digest(tensors, text):
        raise RunError(f"{path}: the digest of its contents does not match; the file was changed or is damaged")
    return tensors, json.loads(text)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Copy the tensors named ``prefix`` + parameter or buffer into a module.

    Raises   RunError unless names and shapes match exactly.
    """
    module.load_state_dict(state_of(module.state_dict(), tensors, prefix, path))


def state_of(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    """The tensors named ``prefix`` + a name of the wanted state.

    Raises   RunError unless names and shapes match exactly.
    """
    given = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for name in sorted(wanted.keys() ^ given.keys()):
        raise RunError(f"{path}: {prefix}{name} is {'missing' if name in wanted else 'not part of this model'}")
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            raise RunError(
                f"{path}: {prefix}{name} must be {tuple(wanted[name].shape)}; it is {tuple(tensor.shape)}: "
                "a checkpoint of another configuration"
            )
    return given


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: prefix + parameter index + "." + name."""
    return {
        f"{prefix}{index}.{name}": value
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Inverse of ``optimiser_tensors``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.blake2b(facts.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
