"""Initial weights: random, downloaded, or read from a file with torchvision's names."""
