"""Small helpers, each in its module, as in the original package."""
