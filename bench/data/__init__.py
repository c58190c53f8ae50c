"""Reads preferences, candidates and prompts from files and from the hub into checked examples."""
