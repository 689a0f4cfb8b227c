"""Side by side with peers: same images, same encoder weights, same runtime and threads, one table.

An entry is trained, measured and written to a file in a process of its own, so that one that fails or eats the memory takes
nobody with it; what is finished is not done again. Only then the files are timed, in turns, in one process.
"""
