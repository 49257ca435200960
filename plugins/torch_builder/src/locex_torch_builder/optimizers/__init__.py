"""Optimizers by torch's names. One more is one configuration, one class and one entry point."""
