"""Where jobs, models and bytes are kept: the embedded store."""
