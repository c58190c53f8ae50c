"""What a GPU is right about and how fast it is: one command of at most eight minutes, without a network.

All weights are random and made on the device, so speed and rounding are real and the texts' probabilities are not.
"""
