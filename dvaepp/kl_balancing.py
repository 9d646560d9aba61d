"""KL balancing in torch: the factors of the groups' KL while it is annealed; twin of ``reference.kl_balancing``."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.bound import check_kl_weight
from reference.vocabulary import ShapeError


@torch.no_grad()
def coefficients(mean_kl: Tensor, kl_weight: float) -> Tensor:
    """Turn each group's KL, the mean over a batch, into the factor it is multiplied by.

    See ``reference.kl_balancing.coefficients``. Where several processes share a batch the mean has to be that over all
    of it, or each balances by its own. The result is without gradient.

    Shapes   mean_kl (G,) in nats -> (G,)
    Domain   kl_weight in [0, 1]; a mean that is NaN or infinite makes NaN of the result, which is not looked at
    Raises   ShapeError for no vector or no group; DomainError for a kl_weight outside its interval.
    """
    if mean_kl.ndim != 1 or len(mean_kl) == 0:
        raise ShapeError(f"mean_kl must be (G,), one mean for each group, with a group; got {tuple(mean_kl.shape)}")
    if check_kl_weight(kl_weight) == 1:
        return torch.ones_like(mean_kl)
    share = mean_kl.clamp_min(0)
    largest = share.max()
    share = share / largest  # the sum below neither overflows nor underflows
    return torch.where(largest == 0, torch.ones_like(share), share / share.mean())
