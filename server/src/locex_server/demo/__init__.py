"""The main job on one machine: a collector, two nodes with different halves of MNIST, a training over REST."""
