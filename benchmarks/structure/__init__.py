"""How a request and a save go through the modules of the package."""
