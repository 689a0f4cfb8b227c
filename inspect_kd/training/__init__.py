"""Training: from a recipe and a data set to a complete run. Start to read at `pipeline`."""
