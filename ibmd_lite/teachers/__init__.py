"""Public bridge teachers, and what a reader needs to bring one of their own."""
