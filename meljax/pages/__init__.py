"""The pages that tell of runs: of one, and of several beside each other."""
