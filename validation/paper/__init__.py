"""The paper's tables, published values beside those of run records."""
