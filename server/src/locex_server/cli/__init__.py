"""The service's part of the command line: serve, job, demo."""
