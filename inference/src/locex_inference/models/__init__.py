"""Models being served: versions, how they are loaded, checked, swapped and chosen."""
