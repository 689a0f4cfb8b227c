"""Export of a student as an artifact: the graph, one file per target (`to_<name>.py`), and its verification against PyTorch."""
