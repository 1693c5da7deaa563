"""Sockets: stream connections of any kind, and the protocols on them."""
