"""Numbers as a person reads them."""

import pytest

from bench import units


@pytest.mark.parametrize(
    ("value", "text"),
    [(127_020_182_662.95651, "127 GFLOP"), (18942908333252608, "18.9 PFLOP"), (999.6, "1 kFLOP"), (0, "0 FLOP"),
     (8.23e17, "823 PFLOP"), (1.5, "1.5 FLOP"), (9.999e29, "1,000,000 YFLOP")],
)  # fmt: skip
def test_a_quantity_has_three_digits_and_an_si_prefix(value, text):
    assert units.si(value, "FLOP") == text


def test_counts_are_whole_until_they_are_long():
    assert [units.count(n) for n in (0, 7, 2985, 99_999, 100_000, 54_200_000)] == [
        "0", "7", "2,985", "99,999", "100 k", "54.2 M",
    ]  # fmt: skip
    assert [units.amount(n) for n in (60_000, 16.06e9, 0)] == ["60 k", "16.1 B", "0"]


def test_shares_become_percent_and_differences_points_with_a_sign():
    assert [units.percent(x) for x in (0.5642, 1, 0)] == ["56.4", "100.0", "0.0"]
    assert [units.points(x) for x in (0.0123, -0.2, -0.00001)] == ["+1.2", "-20.0", "+0.0"]


def test_a_duration_is_told_in_the_unit_that_keeps_it_small():
    seconds = (0.84, 47.2, 90, 11_520, 259_200, 864_000)
    assert [units.duration(s) for s in seconds] == ["0.8 s", "47 s", "1.5 min", "3.2 h", "3.0 d", "10.0 d"]


def test_three_digits_are_kept_of_any_size():
    assert [units.significant(x) for x in (2.4762, -37.83, 0.0123, 123456, 1e-9, 0)] == [
        "2.48", "-37.8", "0.0123", "1.23e+05", "1.00e-09", "0.00",
    ]  # fmt: skip
    assert [units.signed(x) for x in (0.5, -0.5)] == ["+0.500", "-0.500"]
    assert [units.p_value(x) for x in (0.0001, 0.0123, 1)] == ["<0.001", "0.012", "1.000"]
