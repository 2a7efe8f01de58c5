"""The commands of `meljax`: each parses its arguments and calls one workflow."""
