"""What a run gave: its record, its case table and its configuration. Imports no torch."""
