"""The worker process: configures one job, prepares it, and takes part in its rounds."""
