"""The pydantic models, each in its module, as in the original package."""
