"""What readings mean in money and amperes: tariffs, costs, charge control. Pure functions, and loops that app.py starts."""
