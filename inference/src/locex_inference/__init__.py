"""Local inference: the Open Inference Protocol over HTTP and gRPC."""
