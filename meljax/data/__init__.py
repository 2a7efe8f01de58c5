"""Reads a folder, CSV, TFDS set or the embedded voices; returns labeled, split arrays."""
