"""The node's other half: the inference service, a process of its own beside it."""
