"""What scoring costs: this engine against its peers, in one run of `make perf`.

    workloads   RewardBench rows -> token ids, the same for every scorer
    scorers     four ways from token ids to summed log-probabilities
    gauge       FLOP, the matmul rate, memory, computed tokens
    timing      one scorer on one workload in a process of its own -> PERF
    checks      do the sums agree, with the peers' and across our own budgets
    scaling     rows, models, pairs
    precision   what a dtype costs and moves
    small       starting a verb, four rows, two rewards; beside another commit
    kinds       a folder per kind of processor
    report      bars, figures, README from the CSVs

Needs the extra `perf`; pytest collects nothing here.
"""
