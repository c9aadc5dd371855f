"""The stores, each in its module, as in the original package."""
