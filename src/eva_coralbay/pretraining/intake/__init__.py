"""Scans on their way into a store: found, examined, prepared."""
