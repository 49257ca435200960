"""The AI Local Execution service: a REST API over jobs, models, data and plugins."""
