"""The AI Task Controller: Training Collector."""
