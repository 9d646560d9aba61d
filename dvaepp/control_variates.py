"""What gradient estimators learn beside the model: baselines, and the temperature and scale of relaxed controls.

None of it changes what an estimate is on average, all of it how noisy it is. For each group of latents:

    nvil, muprop   a baseline C(x, earlier latents), a network, and the running mean and variance of what it leaves
    rebar          a baseline, the temperature of the relaxed unit, and the scale eta of the control variate
    relax          temperature, eta and a network c(x, earlier latents, g) that is added to REBAR's surrogate
    all others     nothing
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvaepp.estimators import RunningMoments
from dvaepp.networks.feedforward import feedforward

#: Of the running moments: Mnih & Gregor's (2014) alpha.
DECAY = 0.8
#: Where REBAR's temperature starts: that of Tucker et al.'s (2017) public experiments, as is the width of baselines.
FIRST_TEMPERATURE = 0.5
HIDDEN = (100,)


class ControlVariates(nn.Module):
    """The learned control variates of one estimator, for each group of latents.

    Networks have tanh layers without batch normalisation, and see centred images and 2 z - 1. RELAX's start as zero, so
    that it starts as REBAR.

    normalise   whether NVIL divides the encoder's gradient by max(1, running standard deviation of the signal).

    Source   Mnih & Gregor (2014); Gu et al. (2015); Tucker et al. (2017) and their public code, whose REBAR has a
             baseline too; Grathwohl et al. (2018).
    Departs  running moments are used first and updated then, see ``reference.estimators.RunningMoments``. NVIL's
             normalisation is off unless asked for: Tucker et al., whose comparison Table 1 repeats, did without it, and
             Adam has its own. RELAX's network sees tanh(g/2), not g, and can not run away with a rare large g.
    Shapes   groups cut the N latents, in order. With leading axes, as ``dvaepp.replicas`` stacks them, moments,
             temperatures and etas are (..., G).
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        estimator: str,
        n_pixels: int,
        groups: Sequence[slice],
        hidden: tuple[int, ...] = HIDDEN,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.estimator, self.normalise = estimator, normalise
        if estimator in ("nvil", "muprop", "rebar"):
            self.baselines = nn.ModuleList(feedforward(n_pixels + group.start, 1, hidden, False) for group in groups)
        if estimator in ("nvil", "muprop"):
            self.register_buffer("mean", torch.zeros(len(groups)))
            self.register_buffer("variance", torch.ones(len(groups)))
        if estimator in ("rebar", "relax"):
            self.log_temperature = nn.Parameter(torch.full((len(groups),), math.log(FIRST_TEMPERATURE)))
            self.eta = nn.Parameter(torch.ones(len(groups)))
        if estimator == "relax":
            self.surrogates = nn.ModuleList(feedforward(n_pixels + group.stop, 1, hidden, False) for group in groups)
            for network in self.surrogates:
                output = list(network.children())[-1]
                assert isinstance(output, nn.Linear)
                nn.init.zeros_(output.weight)

    def baseline(self, g: int, centred: Tensor, before: Sequence[Tensor]) -> Tensor:
        """C_g(x, earlier latents), a prediction of group g's signal: (..., B, D) -> (..., B)."""
        return _rows(self.baselines[g], [centred, *(2 * latents - 1 for latents in before)])

    def surrogate(self, g: int, centred: Tensor, before: Sequence[Tensor], logistic: Tensor) -> Tensor:
        """c_g(x, earlier latents, g's logistic sample), what RELAX adds to REBAR's surrogate: (..., B)."""
        return _rows(self.surrogates[g], [centred, *(2 * latents - 1 for latents in before), torch.tanh(logistic / 2)])

    def temperature(self, g: int) -> Tensor:
        """Temperature (...) of group g's relaxed units."""
        return self.log_temperature[..., g].exp()

    def moments(self, g: int) -> RunningMoments:
        """Running moments (...) of what the baseline leaves of group g's signal."""
        return RunningMoments(self.mean[..., g], self.variance[..., g])

    @torch.no_grad()
    def update(self, g: int, signal: Tensor) -> None:
        """In training, move the moments towards those of a batch (..., B). Use them first."""
        if self.training:
            moments = self.moments(g).updated(signal, DECAY)
            self.mean[..., g] = moments.mean
            self.variance[..., g] = moments.variance

    def scaled(self, g: int, logits: Tensor) -> Tensor:
        """The logits; NVIL's normalisation divides whatever gradient comes back to them, that of the KL included.

        To divide the score part alone would weight it against the KL's, and be the gradient of nothing.
        """
        if not self.normalise or self.estimator != "nvil":
            return logits
        still = logits.detach()
        return still + (logits - still) / self.moments(g).scale.clamp(min=1).view(*self.mean.shape[:-1], 1, 1)


def _rows(network: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """A network's one output for each row of its inputs side by side, (..., B)."""
    output: Tensor = network(torch.cat(list(inputs), dim=-1))
    return output.squeeze(-1)
