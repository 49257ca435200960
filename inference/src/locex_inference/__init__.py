"""Local inference: the Open Inference Protocol over HTTP and gRPC."""

import os

# Before anything imports grpc. The service starts processes by fork and exec only, and uvloop runs every handler of
# forks in the child: gRPC's, made for children that go on to use gRPC, can deadlock there before the exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
