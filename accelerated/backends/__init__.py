"""One file per backend, found by name: see ``accelerated.load``. Each provides ``create() -> Backend``."""
