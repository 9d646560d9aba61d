"""Discrete VAEs with Boltzmann priors in torch: ``python -m dvaepp.train`` trains, evaluates and shows one.

Importing this package does not import torch; its modules do.
"""

__version__ = "0.1.0"
