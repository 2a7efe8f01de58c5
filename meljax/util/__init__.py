"""Shared by all packages: errors, files, the console, devices and versions."""
