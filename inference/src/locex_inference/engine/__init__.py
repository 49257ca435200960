"""The way of a request through a version: admission, preprocessing, batching, the model, postprocessing."""
