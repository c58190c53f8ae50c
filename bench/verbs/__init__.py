"""The work behind each verb of the command, one module for each verb."""
