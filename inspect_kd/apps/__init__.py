"""Applications: the Studio. It does not import torch: each training runs in its own process."""
