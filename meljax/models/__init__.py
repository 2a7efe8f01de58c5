"""The networks, their layers and their pretrained weights."""
