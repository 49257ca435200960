"""Transformations and local data sources for locex."""
