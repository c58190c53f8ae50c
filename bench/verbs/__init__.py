"""What each verb of the command does, one module a verb."""
