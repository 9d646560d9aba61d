"""Several models of one shape as one batched model, and back.

The modules of this package take leading axes: where each parameter is a stack (R, ...) of R models' and each input a
stack (R, B, ...) of their batches, one call runs all R models, each matrix product a batched one. Small networks leave
a GPU almost idle otherwise. No number of one replica enters another's: stacking changes how results are rounded, no
more.

    model = stack([model0, model1])       one module, parameters (2, ...)
    alone = replica(model, 1)             model1 again, a copy
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def stack(modules: Sequence[M]) -> M:
    """One module whose parameters and buffers are those of all, stacked along a new first axis.

    A single module is returned as it is, without the axis.

    Shapes   parameters and buffers of equal names and shapes (...) -> (R, ...)
    """
    if len(modules) == 1:
        return modules[0]
    result = copy.deepcopy(modules[0])
    states = [dict(_tensors(module)) for module in modules]
    for name in states[0]:
        _set(result, name, torch.stack([state[name] for state in states]))
    return result


@torch.no_grad()
def replica(module: M, index: int) -> M:
    """A copy of one of the stacked modules, without the axis."""
    result = copy.deepcopy(module)
    for name, tensor in _tensors(module):
        _set(result, name, tensor[index].clone())
    return result


def states_of(module: nn.Module, n_replicas: int) -> list[dict[str, Tensor]]:
    """The state dictionary of each replica, as the replica alone would have it; the same memory."""
    state = module.state_dict()
    if n_replicas == 1:
        return [state]
    return [{name: tensor[index] for name, tensor in state.items()} for index in range(n_replicas)]


@torch.no_grad()
def load_states(module: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
    """Inverse of ``states_of``."""
    if len(states) == 1:
        module.load_state_dict(states[0])
    else:
        module.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})


class Leaves:
    """The parameters of each replica as tensors of their own, for an optimiser of its own.

    They share the memory of the stacked parameters, and their gradients that of the stacked gradients: every replica is
    updated by exactly the arithmetic of a run alone, with a learning rate of its own.

    Shapes   of replica r: parameter[r] of every stacked parameter (R, ...), by name
    """

    def __init__(self, module: nn.Module, n_replicas: int) -> None:
        self._parameters = dict(module.named_parameters())
        if n_replicas == 1:
            self.of: list[dict[str, Tensor]] = [dict(self._parameters)]
            return
        self.of = [{} for _ in range(n_replicas)]
        for name, parameter in self._parameters.items():
            parameter.grad = torch.zeros_like(parameter)
            for index, leaves in enumerate(self.of):
                leaf = parameter.detach()[index].requires_grad_()
                leaf.grad = parameter.grad[index]
                leaves[name] = leaf

    def zero_grad(self) -> None:
        """Forget the gradients; where there are leaves, in place: they look at this memory."""
        for parameter in self._parameters.values():
            if len(self.of) == 1:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def set_grad(self, gradients: Sequence[Tensor]) -> None:
        """Put gradients that were computed by hand where the optimisers find them, in the order of the parameters."""
        for parameter, gradient in zip(self._parameters.values(), gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.copy_(gradient)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    where, _, leaf = name.rpartition(".")
    owner = module.get_submodule(where)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(tensor)
    else:
        owner._buffers[leaf] = tensor
