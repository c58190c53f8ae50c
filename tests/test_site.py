"""The documentation as a site: `make docs` builds it, and what is missing in it fails."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bench

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow  # a build takes half a minute


def build(config: Path, site: Path) -> subprocess.CompletedProcess:
    """What `make docs` runs."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False
    )


def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path):
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / "site/reference/commands.html").read_text(encoding="utf-8")
    assert 'id="run"' in commands and "--limit-per-subset N" in commands
    assert "--reward sum|mean|per-byte" in commands and "list[" not in commands and " range" not in commands
    python = (tmp_path / "site/reference/python.html").read_text(encoding="utf-8")
    assert 'id="bench.reward"' in python
    for page in (tmp_path / "site").rglob("*.html"):
        if "results" not in page.relative_to(tmp_path / "site").parts:
            loaded = re.findall(
                r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8")
            )
            assert [url for url in loaded if "canonical" not in url] == [], page


def test_a_broken_link_fails_the_build(tmp_path):
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[nowhere](nowhere.md)")
    (tmp_path / "mkdocs.yml").write_text(
        re.sub(r"^(nav|hooks|not_in_nav|exclude_docs):.*?(?=^\w|\Z)", "", config, flags=re.M | re.S)
    )
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr


def test_a_public_name_without_a_docstring_is_told():
    griffe = pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    code = "\n".join(f"def {name}(): pass" for name in bench.__all__)
    assert list(hooks.undocumented(griffe.visit("bench", Path("bench.py"), code))) == [
        f"bench.{name}" for name in bench.__all__
    ]
