"""Proof that the implementations agree with multi-precision arithmetic and with each other: ``python -m validation``."""
