"""Models that are served: their options, their versions, the registry of them, and how they are loaded."""
