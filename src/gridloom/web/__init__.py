"""The web room: HTTP server, sign-in, problems, the hub's own API, the live stream, metrics, the first page."""
