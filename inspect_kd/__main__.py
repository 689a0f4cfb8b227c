"""`python -m inspect_kd` is `inspect-kd`."""

from inspect_kd.cli import main

main()
