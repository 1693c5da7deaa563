"""What backends of any kind can have: a copy of the output, a recording."""
