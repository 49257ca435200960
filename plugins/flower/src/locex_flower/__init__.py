"""Joins a Flower federation from a locex node."""
