"""Options as users write them: attrs classes, the command line's grammar, strict structuring."""
