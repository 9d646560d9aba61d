"""Boltzmann machines as priors, complete modules for anybody's model.

    prior = RestrictedBoltzmann(100, 100, sampler="tempering", n_chains=500)
    kl = prior.cross_entropy(mu, nu, n_groups=2) - entropy + prior.log_partition_surrogate()   # its gradient is right
    log_z = prior.log_partition_bracket()                                                      # and this its value

Parameters are trained; the sampler's chains are buffers, so that ``state_dict`` carries both, and ``to`` moves both.
"""

from dvaepp.priors.general import BoltzmannMachine
from dvaepp.priors.protocol import BoltzmannPrior
from dvaepp.priors.restricted import RestrictedBoltzmann

__all__ = ["BoltzmannMachine", "BoltzmannPrior", "RestrictedBoltzmann"]
