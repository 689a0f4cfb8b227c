"""The programs behind the figures in docs/results, one a file: `python -m benchmarks.NAME`, or all of them by `make bench`."""
