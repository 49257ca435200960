"""locex: AI Local Execution, a federated-learning node that runs next to its data."""
