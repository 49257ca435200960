"""What builders share: checked archives, named architectures, bounds, and the batches of a round."""
