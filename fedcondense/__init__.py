"""Federated dataset distillation that a hospital can run.

Importing the package loads nothing heavy; each wing is imported by its own name.
"""

__version__ = "0.1.0"
