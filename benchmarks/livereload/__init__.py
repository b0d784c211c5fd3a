"""The time from a save to the repaint in a browser."""
