"""The directory of a run: its files, whether it may be resumed, its saved results."""
