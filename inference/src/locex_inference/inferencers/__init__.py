"""Inferencers: onnxruntime in this process, every other one in a process of its own."""
