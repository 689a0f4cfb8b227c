"""Compare models on the same images, encoder weights, runtime and number of threads.

Each entry is trained, measured and exported in a process of its own, so that a failure or lack of memory ends only that entry;
finished entries are not run again. Then all exported files are timed, in turns, in one process.
"""
