"""What people look at: the Studio. Torch-free; of training they know only what an artifact says."""
