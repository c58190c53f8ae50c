"""The verb `doctor`: prints one line for each thing that drsow needs on this machine."""

import json
from typing import Annotated

import typer

from bench.cli.app import LOOK_UP, app
from bench.cli.options import PRINTING
from bench.faults import printable


@app.command(rich_help_panel=LOOK_UP)
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print the findings as JSON.", rich_help_panel=PRINTING)
    ] = False,
) -> None:
    """Check Python, packages, device, kernels, folders and the hub, with a remedy for each fault."""
    from bench.schema import PreconditionError
    from bench.verbs.doctor import FAULT, examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            # At once: a later check may take seconds. Without pandas or rich, which may be what is broken.
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            print(printable(f"{finding.state:<6} {finding.name}: {finding.found}{remedy}"), flush=True)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False, indent=1))
    if faults := sum(finding.state == FAULT for finding in findings):
        raise PreconditionError(f"{faults} of {len(findings)} checks found a fault; each line names its remedy")
