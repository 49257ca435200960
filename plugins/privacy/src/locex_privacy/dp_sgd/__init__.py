"""``dp-sgd``: example-level differential privacy by clipped, noised gradients of Poisson-sampled batches."""
