"""What people look at: the Studio. Torch-free: what trains is a process of its own."""
