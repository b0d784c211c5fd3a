"""What objects live through which edit, here and in other tools that reload code."""
