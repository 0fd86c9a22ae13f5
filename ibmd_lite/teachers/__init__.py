"""Teachers that others trained."""
