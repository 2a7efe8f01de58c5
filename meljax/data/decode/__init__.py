"""Decodes the bytes of one recording or image to an array."""
