"""From a student to an artifact: the graph, one file a target (`to_<name>.py`), and the proof that it answers alike."""
