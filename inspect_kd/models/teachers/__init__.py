"""Large models that are used in training only."""
