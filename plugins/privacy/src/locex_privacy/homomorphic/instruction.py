"""What the collector tells nodes with every fit instruction."""

KEY = "homomorphic_key"
"""The id of the key whose ciphertexts are added."""

CLIENTS = "fit_clients"
"""How many nodes were asked, hence the most whose contributions are added; every locex collector tells it."""
