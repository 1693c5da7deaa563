"""What users write, as options: the classes, the command line's grammar, strict structuring."""
