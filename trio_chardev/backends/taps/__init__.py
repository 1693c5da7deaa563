"""What any kind can have: a copy of its output, a recording."""
