"""Weak-to-strong generalization in JAX (Burns et al. 2023)."""

__version__ = '0.1.0'
