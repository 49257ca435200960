"""From training to serving: models are followed where they are trained, checked, and swapped in."""
