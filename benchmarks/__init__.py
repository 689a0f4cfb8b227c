"""Programs that measure the results in docs/results: `python -m benchmarks.NAME` for one of them, `make bench` for all."""
