"""``homomorphic``: nodes encrypt what they send with CKKS; the collector adds what it cannot read."""
