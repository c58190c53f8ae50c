"""Reads preferences, candidates and prompts from files and from the hub, and checks every row."""
