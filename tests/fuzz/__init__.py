"""A campaign of malformed input: `python -m tests.fuzz --help`, or `nox -s fuzz`.

A kind of input is a module with a `Kind`: it writes one malformed input from a seed, and reads it
as a user's command would. `tests.fuzz.kinds` lists them.
"""
