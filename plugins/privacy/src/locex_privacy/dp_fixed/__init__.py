"""``dp-fixed``: client-level differential privacy by fixed clipping and Gaussian noise on the node."""
