"""Architectures that artefacts name. Third parties add theirs in the group ``locex.architecture``."""
