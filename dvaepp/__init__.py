"""Discrete VAEs with Boltzmann priors in torch: ``python -m dvaepp.train`` trains, evaluates and shows one.

Importing this package does not import torch; its modules do. Where nobody has chosen an OMP_WAIT_POLICY it is set to
PASSIVE: after an operation of torch its threads would turn in a loop for some milliseconds, waiting for the next one,
and the Gibbs sampler's threads would have to share the cores with them.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
