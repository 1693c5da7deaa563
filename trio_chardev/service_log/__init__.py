"""What the service's log says, and how: areas and levels, fields, formats; without I/O."""
