"""Small models for the line, trained with everything a teacher knows and shipped without it."""
