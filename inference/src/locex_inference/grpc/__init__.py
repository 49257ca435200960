"""The protocol, and the older inference services, over gRPC."""

import os

# The service starts processes by fork and exec only. gRPC's own handlers of forks, made for children that go on to use
# gRPC, would write a line to stderr for each.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
