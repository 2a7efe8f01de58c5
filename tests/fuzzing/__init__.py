"""Reads mutated files as the commands do, and reports what goes wrong."""
