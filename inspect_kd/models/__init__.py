"""Models: large teachers, small students, and their encoders and layers."""
