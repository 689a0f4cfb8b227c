"""Applications: the Studio. Torch-free: trainings run in processes of their own."""
