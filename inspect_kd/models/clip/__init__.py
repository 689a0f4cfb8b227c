"""CLIP for teachers: safe loading, dense features, learnable prompts."""
