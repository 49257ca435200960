"""The protocol over gRPC: `grpc.aio` on the service's event loop, with descriptors in a pool of their own."""

import os

# Read when the library is imported: processes of models are made by exec, so its handlers of fork have no use.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
