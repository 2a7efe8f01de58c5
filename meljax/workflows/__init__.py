"""The stories to read first: train and finish a run, evaluate, predict, report, export."""
