"""The shared words and the two doors: what a device, a reading, an event, an order and an account are, whoever speaks of them."""
