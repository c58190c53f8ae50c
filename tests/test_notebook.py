"""The notebook in examples/ runs from its first cell to its last."""

import os
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "choose_and_label.ipynb"


@pytest.mark.slow  # it scores under six models and loads four: two minutes
@pytest.mark.filterwarnings("default")  # those of the kernel's own libraries
def test_the_notebook_runs_to_its_end(monkeypatch, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="the extra `docs` is not installed")
    client = pytest.importorskip("nbclient", reason="the extra `docs` is not installed")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    done = client.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=place).execute()
    texts = [output.get("text", "") for cell in done.cells for output in cell.get("outputs", ())]
    assert any("held out" in text for text in texts)
    assert not any("drsow: " in text for text in texts)


def test_the_notebook_is_stored_with_its_outputs():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"execution_count": null' not in text
    assert '"output_type": "error"' not in text
    assert "/tmp" not in text and "drsow: " not in text
