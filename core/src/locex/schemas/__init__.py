"""What crosses locex's borders as JSON, as pydantic models."""
