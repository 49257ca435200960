"""Transformations: one module per id."""
