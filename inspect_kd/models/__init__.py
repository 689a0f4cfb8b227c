"""The models: big teachers, small students, the encoders and layers beneath them."""
