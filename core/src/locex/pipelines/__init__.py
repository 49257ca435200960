"""Pipelines of transformations, as trainings and the serving of models use them alike."""
