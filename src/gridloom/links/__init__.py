"""Wires without meaning: serial, WebSocket, push streams, MQTT, HTTP out, back-off, and a null modem. No grammar lives here."""
