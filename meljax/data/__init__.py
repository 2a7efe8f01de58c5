"""Reads a folder, table, TFDS set or the embedded voices; returns labeled, split arrays."""
