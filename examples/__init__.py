"""Code that is judged here without being part of the project; see README.md."""
