"""``reference.tiny_model`` once more, from the parts that ``dvaepp`` trains with: for automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor, nn

from dvaepp.boltzmann import RBM, cross_entropy, entropy
from dvaepp.likelihoods import bernoulli_log_prob
from dvaepp.smoothing import OverlappingExponential, nu
from reference.boltzmann import all_states
from reference.tiny_model import Parameters

#: The parameters, in the order of ``tiny_model.Parameters``.
NAMES = tuple(field.name for field in fields(Parameters))


def log_partition(prior: RBM) -> Tensor:
    """Exact log Z, differentiable: side 1 enumerated, side 2 summed out; see ``reference.boltzmann.log_partition``."""
    states = torch.cat([torch.tensor(chunk) for chunk in all_states(prior.n1)])
    return torch.logsumexp(prior.log_marginal_z1(states), 0)


class TinyModel(nn.Module):
    """The same numbers under the same names, in float64; see ``reference.tiny_model.Parameters`` for shapes."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.prior = RBM(parameters.n_side, parameters.n_side).double()
        of_prior = dict(self.prior.named_parameters())
        self.weights = nn.ParameterDict()
        for name in NAMES:
            value = torch.tensor(getattr(parameters, name))
            if name in of_prior:
                with torch.no_grad():
                    of_prior[name].copy_(value)
            else:
                self.weights[name] = value

    def by_name(self) -> dict[str, Tensor]:
        """Every parameter, in the order of ``NAMES``."""
        of_prior = dict(self.prior.named_parameters())
        return {name: of_prior[name] if name in of_prior else self.weights[name] for name in NAMES}

    def bounds(
        self,
        x: Tensor,
        rho: Tensor,
        smoothing: OverlappingExponential,
        kl_weight: float,
        log_partition: Callable[[RBM], Tensor] = log_partition,
    ) -> Tensor:
        """Both terms of each image's bound; see ``reference.tiny_model.forward`` and ``Forward.bound``.

        Shapes   x (B, D), rho (B, 2 M) -> (B,)
        Units    nats
        """
        w, n_side = self.weights, self.prior.n1
        logit1 = torch.tanh(x @ w["V1"] + w["u1"]) @ w["A1"] + w["c1"]
        zeta1 = smoothing.inverse_cdf(rho[:, :n_side], logit1)
        logit2 = torch.tanh(x @ w["V2"] + (2 * zeta1 - 1) @ w["S2"] + w["u2"]) @ w["A2"] + w["c2"]
        zeta = torch.cat([zeta1, smoothing.inverse_cdf(rho[:, n_side:], logit2)], 1)
        logit_q = torch.cat([logit1, logit2], 1)
        pixel_logits = torch.tanh((2 * zeta - 1) @ w["V3"] + w["u3"]) @ w["A3"] + w["c3"]

        energy = cross_entropy(self.prior, logit_q.sigmoid(), nu(smoothing, zeta, logit_q), 2)
        kl = log_partition(self.prior) - entropy(logit_q).sum(1) + energy
        return bernoulli_log_prob(x, pixel_logits) - kl_weight * kl
