"""Sans-I/O grammars that more than one integration speaks. They know no clock, no socket, no asyncio."""
