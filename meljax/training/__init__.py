"""Training: state, optimizer, random keys, step, loop over epochs, checkpoints and logs."""
