"""One training: the Flower server process with its rounds. Run as ``python -m locex_controller.training``."""
