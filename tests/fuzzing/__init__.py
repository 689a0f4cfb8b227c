"""Fuzzing: mutated inputs, a worker process that feeds them to the program, and checks of its behaviour.

An input is determined by its target, a seed and its number. `benchmarks/fuzz.py` runs the fuzzer for hours,
`tests/test_fuzz.py` for a minute.
"""
