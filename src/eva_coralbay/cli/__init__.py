"""The command `eva-coralbay`: parsing, printing and progress; the library does the work."""
