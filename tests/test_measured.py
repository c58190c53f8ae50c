"""Measured scores: a file that a registry folder adds to models, whoever defines them."""

import pytest
from tiny_models import entry

from bench.entries import Score
from bench.measured import HEADER, MeasuredScore, add_score, replace_scores, typical_stderr
from bench.registry import load_registry
from bench.schema import UsageError

ROW = MeasuredScore(model_id="mine", performance_id="ifeval", value=41.5, stderr=1.5, source='said "so"\nhere')
PERFORMANCE = '[[performances]]\nperformance_id = "ifeval"\nname = "IFEval"\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models.toml").write_text(entry("mine", "x"))
    return tmp_path


def test_a_written_score_is_the_models_score_in_the_registry(folder):
    add_score(folder / "scores.toml", ROW)
    other = ROW.model_copy(update={"model_id": "smollm2-135m-instruct-q4", "performance_id": "arena_hard"})
    add_score(folder / "scores.toml", other)
    add_score(folder / "scores.toml", ROW.model_copy(update={"value": 42.0, "stderr": None}))
    known = load_registry(folder)
    assert known.model("mine").scores == {"ifeval": Score(value=42.0, source='said "so"\nhere')}
    # A folder adds a score to a model that comes with drsow, too.
    assert known.model("smollm2-135m-instruct-q4").scores["arena_hard"].stderr == 1.5
    assert (folder / "scores.toml").read_text().count("[[scores]]") == 2


def test_the_scores_of_one_performance_are_replaced_as_a_whole(folder):
    gone = ROW.model_copy(update={"model_id": "gone", "performance_id": "arena_hard"})
    for row in (gone, ROW):
        add_score(folder / "scores.toml", row)
    replace_scores(folder / "scores.toml", "arena_hard", [ROW.model_copy(update={"performance_id": "arena_hard"})])
    assert set(load_registry(folder).model("mine").scores) == {"ifeval", "arena_hard"}


@pytest.mark.parametrize("place", ["# mine\n{}", "{}# mine\n", "{}[[scores]] # mine\n"])
def test_comments_of_the_users_are_kept_by_a_refusal(folder, place):
    path = folder / "scores.toml"
    add_score(path, ROW.model_copy(update={"source": "issue #7, 'quoted'"}))
    add_score(path, ROW.model_copy(update={"source": "issue #7, 'quoted'"}))
    path.write_text(place.format(path.read_text().removeprefix(HEADER)))
    before = path.read_text()
    with pytest.raises(UsageError, match=r"scores.toml: is no file of scores"):
        add_score(path, ROW)
    assert path.read_text() == before


def test_a_source_in_any_script_is_read_as_it_was_written(folder):
    row = ROW.model_copy(update={"source": "Größe 大 \N{GRINNING FACE}"})
    add_score(folder / "scores.toml", row)
    add_score(folder / "scores.toml", row)
    assert load_registry(folder).model("mine").scores["ifeval"].source == row.source


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_id": "other"}, r"scores.toml: other ifeval: model_id: unknown model 'other'"),
        ({"performance_id": "lifeval"}, r"mine: scores: unknown performance 'lifeval', did you mean 'ifeval'\?"),
    ],
)
def test_a_score_of_an_unknown_model_or_performance_is_an_error(folder, change, said):
    add_score(folder / "scores.toml", ROW.model_copy(update=change))
    with pytest.raises(UsageError, match=said):
        load_registry(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stderr = -1.0", "stderr: Input should be greater than or equal to 0"),
        ('source = ""', "source: String should have at least 1 character"),
    ],
)
def test_a_wrong_score_is_named_with_its_file_and_field(folder, line, said):
    rest = "" if line.startswith("source") else 'source = "there"\n'
    row = '[[scores]]\nmodel_id = "mine"\nperformance_id = "ifeval"\nvalue = 1.0\n'
    (folder / "scores.toml").write_text(f"{row}{line}\n{rest}")
    with pytest.raises(UsageError, match=f"scores.toml: entry 1 of scores: {said}"):
        load_registry(folder)


def test_a_score_that_the_models_entry_has_already_is_an_error(folder):
    with (folder / "models.toml").open("a") as file:
        file.write('scores.ifeval = { value = 40.0, source = "there" }\n')
    add_score(folder / "scores.toml", ROW)
    with pytest.raises(UsageError, match=r"mine ifeval: performance_id: the entry of mine has this score already"):
        load_registry(folder)


def test_a_measurement_of_ones_own_replaces_the_one_that_comes_with_drsow(folder):
    smollm2 = ROW.model_copy(update={"model_id": "smollm2-135m-instruct-q4"})
    assert load_registry().model(smollm2.model_id).score("ifeval") != 41.5
    add_score(folder / "scores.toml", smollm2)
    assert load_registry(folder).model(smollm2.model_id).score("ifeval") == 41.5
    with (folder / "scores.toml").open("a") as file:
        file.write((folder / "scores.toml").read_text().partition("\n\n")[2])
    with pytest.raises(UsageError, match=r"scores.toml: .* ifeval: score is taken by an entry of .*scores.toml"):
        load_registry(folder)


def test_a_row_is_written_with_the_model_first(tmp_path):
    add_score(tmp_path / "scores.toml", ROW)
    keys = [line.partition(" = ")[0] for line in (tmp_path / "scores.toml").read_text().splitlines() if " = " in line]
    assert keys == ["model_id", "performance_id", "value", "stderr", "source"]


@pytest.mark.parametrize("content", ["[[models]]\n", "scores = 1", "[[scores]]\nvalue = 1\n", "not toml"])
def test_a_file_of_anything_else_is_not_rewritten(tmp_path, content):
    path = tmp_path / "scores.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"scores.toml: is no file of scores .*; name another file with --scores"):
        add_score(path, ROW)
    assert path.read_text() == content


def test_a_studys_error_is_the_root_mean_square_of_its_models_errors():
    scores = [Score(value=1, source="a", stderr=3.0), Score(value=2, source="b", stderr=4.0)]
    assert typical_stderr(scores, 9.0) == pytest.approx(12.5**0.5)
    # The performance's own error stands in for a score that says none; if none says one, it is taken as it is.
    assert typical_stderr([scores[0], None], 1.0) == pytest.approx(5**0.5)
    assert typical_stderr([None, Score(value=1, source="a")], 0.02) == 0.02
