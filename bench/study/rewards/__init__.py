"""Rewards as pure functions of a pair's stored scores, one module per family; `known.KNOWN` lists them all.

A function takes the responses that both models scored, one row each: the columns of SCORES under the strong model, the
same with the ending `_weak` under the weak model, `difference` (strong's sum minus weak's, end of turn included, nats)
and the joint `status`; a reward that needs tokens finds TOKEN_SCORES' lists in it too. It returns a reward for each
row, NaN unless the status is ok.
"""
