"""The SQLite engine: one file, one writer thread, no server."""
