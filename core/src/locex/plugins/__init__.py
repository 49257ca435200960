"""Plugins: what is installed (catalog, describe) and how a worker loads it (host)."""
