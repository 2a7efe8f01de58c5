"""The commands of `python -m meljax`: each parses its arguments and calls one workflow."""
