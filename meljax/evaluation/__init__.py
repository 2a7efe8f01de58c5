"""Scores of a network: forward pass, batched scorer, metrics, calibration, Grad-CAM.

It scores a plain `Model` and knows neither training states nor runs.
"""
