"""`drsow doctor`: one line a check, a remedy beside each fault; and shell completion, which typer writes."""

import json
import subprocess
import sys

import pytest
from commands import COMMAND, environment
from hub import Hub

from bench.verbs import doctor


def lines(done: subprocess.CompletedProcess) -> dict[str, str]:
    """What the command says about each thing, by its name."""
    return {line[7:].partition(":")[0]: line for line in done.stdout.splitlines()}


@pytest.fixture(scope="module")
def healthy(drsow, tmp_path_factory) -> subprocess.CompletedProcess:
    """The verb beside an empty hub on this machine, with a secret token."""
    found = Hub()
    folder = tmp_path_factory.mktemp("doctor")
    done = drsow(
        "doctor", HF_HUB_OFFLINE="0", HF_ENDPOINT=found.url, HF_TOKEN="hf_secret", DRSOW_CACHE=str(folder / "new")
    )
    found.shutdown()
    found.server_close()
    return done


def test_every_check_is_one_line_and_a_sound_machine_has_no_fault(healthy):
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert {line.split()[0] for line in healthy.stdout.splitlines()} <= {"ok", "note"}
    names = {"Python", "drsow", "torch", "transformers", "device", "dtype", "kernels", "embedded pair", "hub"}
    assert names <= set(lines(healthy))
    assert lines(healthy)["Python"].startswith(f"ok     Python: {sys.version.split()[0]} at ")


def test_a_note_names_its_remedy(healthy):
    assert "`drsow fetch embedded` fetches them" in lines(healthy)["embedded pair"]


def test_a_hub_that_answers_is_reachable_and_the_token_is_not_shown(healthy):
    assert lines(healthy)["hub"].startswith("ok     hub: http://127.0.0.1:")
    assert lines(healthy)["hub token"] == "ok     hub token: HF_TOKEN is set"
    assert "hf_secret" not in healthy.stdout + healthy.stderr


def test_a_token_that_hf_auth_login_stored_counts_and_is_not_shown(drsow, tmp_path):
    (tmp_path / "token").write_text("hf_secret")
    done = drsow("doctor", HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "token"))
    assert lines(done)["hub token"] == "ok     hub token: stored by `hf auth login`"
    assert "hf_secret" not in done.stdout + done.stderr


def test_a_cache_folder_that_cannot_be_written_is_a_fault_with_exit_code_4(drsow):
    done = drsow("doctor", "--json", DRSOW_CACHE="/proc/nothing")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert (done.returncode, found["models' folder"]["state"]) == (4, "fault")
    assert found["models' folder"]["remedy"] == "set DRSOW_CACHE to a folder that you may write to"
    assert found["hub"]["found"] == "not asked, because HF_HUB_OFFLINE forbids it"
    assert done.stderr.splitlines()[-1].startswith("drsow: 1 of ")


def test_a_hub_that_does_not_answer_is_a_note():
    finding = doctor._hub_answers("http://127.0.0.1:9")
    assert (finding.state, finding.remedy.partition(";")[0]) == (doctor.NOTE, "check the network and HTTPS_PROXY")


def test_a_package_that_is_too_old_or_missing_is_a_fault_with_the_command_that_installs_it(monkeypatch):
    wanted = ["torch>=99", "nobody-has-this>=1", "ray>=2; extra == 'ray'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: wanted)
    old, missing = doctor._packages()
    assert (old.state, old.remedy) == ("fault", "pip install 'torch>=99'")
    assert (missing.found, missing.remedy) == ("is not installed", "pip install 'nobody-has-this>=1'")


def test_a_check_that_breaks_hides_no_other(monkeypatch):
    monkeypatch.setattr(doctor, "_python", lambda: 1 / 0)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = list(doctor.examine())
    assert found[0].state == "fault"
    assert "ZeroDivisionError" in found[0].found
    assert found[-1].name == "hub token"


def test_the_shell_completes_a_verb():
    asked = environment(_DRSOW_COMPLETE="complete_bash", COMP_WORDS="drsow docto", COMP_CWORD="1")
    done = subprocess.run([COMMAND], capture_output=True, text=True, env=asked, check=False)
    assert done.stdout.split() == ["doctor"]
