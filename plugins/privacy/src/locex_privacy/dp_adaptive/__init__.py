"""``dp-adaptive``: client-level differential privacy whose clipping norm follows a quantile (Andrew et al. 2021)."""
