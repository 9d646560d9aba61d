"""Proof that the implementations agree with multi-precision arithmetic and each other: ``python -m validation``."""
