"""Export a student as an artifact: the graph, one module per target (`to_<name>.py`), and the verification against PyTorch."""
