"""CLIP as a teacher needs it: safe loading, dense features, learnable sentences."""
