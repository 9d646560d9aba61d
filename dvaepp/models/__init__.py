"""Generative models with their encoders."""
