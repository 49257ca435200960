"""Keras for locex: builder, architectures, optimizers, callbacks, export."""
