"""PyTorch for locex: builder, architectures, optimizers, schedulers, warm-up, export."""
