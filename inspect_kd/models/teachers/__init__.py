"""Large models that look at parts once, at training. None is built yet."""
