"""Mutated inputs, a worker process that feeds them to the program, and a watch that says what went wrong.

An input follows from its target, a seed and its number, so a finding is three words long. `benchmarks/fuzz.py` runs it for
hours, `tests/test_fuzz.py` for a minute.
"""
