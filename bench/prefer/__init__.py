"""Turns rewards into preferences: routes prompts to domains, adds domain text, annotates, samples and tunes."""
