"""What builders share about model artefacts: checked archives, and the manifest of a named architecture."""
