"""Large models that look at parts once, at training."""
