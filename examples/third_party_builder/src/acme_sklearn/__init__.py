"""Linear models of scikit-learn for locex."""
