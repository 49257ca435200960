"""What ``dp-fixed`` and ``dp-adaptive`` share: clipping, noise, weights and charges of a client's whole update."""
