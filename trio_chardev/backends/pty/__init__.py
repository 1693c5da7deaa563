"""PTYs."""
