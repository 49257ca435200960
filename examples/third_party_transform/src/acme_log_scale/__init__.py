"""The transformation log_scale for locex."""
