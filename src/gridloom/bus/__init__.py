"""Buses behind core.ports.Bus: tell who listens, after the store has kept."""
