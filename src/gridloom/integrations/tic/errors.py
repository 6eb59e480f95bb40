"""Errors of the TIC integration that are not values. What a line says never raises: it is a ``codec.Damage``."""

from __future__ import annotations

from gridloom.core.errors import InvalidInput


class Unsendable(InvalidInput):
    """A group that no TIC frame can hold was to be sent; the message names it and what is allowed."""

    code = "tic-unsendable"
