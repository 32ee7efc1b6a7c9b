"""What is measured: the tasks, their splits and the protocols. Imports no torch."""
