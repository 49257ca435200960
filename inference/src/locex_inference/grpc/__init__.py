"""The protocol, and the older inference services, over gRPC."""
