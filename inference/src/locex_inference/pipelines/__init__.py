"""Pre- and postprocessing: the steps of a pipeline around a model."""
