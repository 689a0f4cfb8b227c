"""Small models for the line: trained with teachers, shipped without them."""
