"""Run the command line as `python -m inspect_kd`."""

from inspect_kd.cli import main

main()
