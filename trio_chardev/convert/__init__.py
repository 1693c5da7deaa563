"""Configurations of ser2net and conserver, as a configuration of this service."""
