"""The life of jobs: states, registry, queue, worker processes and the messages between."""
