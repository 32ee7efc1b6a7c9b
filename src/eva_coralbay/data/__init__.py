"""Scans: where they lie, how they are read, and how crops are drawn from them."""
