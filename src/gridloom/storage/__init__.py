"""Storage engines behind core.ports.Store, and what they share."""
