"""Gridloom: a self-hosted hub for the low-voltage edge of the grid."""

__version__ = "0.1.0"
