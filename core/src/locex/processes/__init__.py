"""Processes of our own: starting, speaking with and ending them, from both ends."""
