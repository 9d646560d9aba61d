"""The models that ``python -m dvaepp.train`` trains."""

from dvaepp.models.feedforward import DiscreteVAE
from dvaepp.models.hierarchical import HierarchicalVAE

Model = DiscreteVAE | HierarchicalVAE

__all__ = ["DiscreteVAE", "HierarchicalVAE", "Model"]
