"""The command `saymask organs`: outline organs of the abdomen, or say why not."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saymask import writers
from saymask._command import (
    EXIT_CODES,
    NOTHING_FOUND,
    OK,
    add_image_options,
    add_window_option,
    client_of,
    closing_lines,
    found_lines,
    introduction,
    print_reports,
    prompts_of,
    read_source,
    write_answers,
)
from saymask.organs import OrganFinding
from saymask.windowing import SOFT_TISSUE_HU

_EXAMPLES = f"""examples:
  saymask organs abdomen.nii.gz "the spleen" --slice 42 -o out/
  saymask organs slice.dcm "where are the stomach and the liver?" --mask nifti
  saymask organs slice.png "what stores bile?" --least-margin 0.05 --json

{EXIT_CODES}"""


def add_organs(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser's subcommands."""
    organs = commands.add_parser(
        "organs",
        parents=[common],
        help="ask for organs in a slice of an abdominal CT",
        description=(
            "Ask for organs in an axial slice of an abdominal CT; write mask, overlay and report "
            "of each. A question about an organ that is not there is refused, with the reason."
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image_options(organs)
    low, high = SOFT_TISSUE_HU
    add_window_option(organs, f"of CT: {low:g} {high:g}; else nearly the whole range")
    organs.add_argument(
        "--least-margin",
        type=float,
        metavar="M",
        help="0 to 2: call an organ uncertain whose lead over the next is smaller (0, off)",
    )
    organs.set_defaults(run=_organs, command="organs")


def _organs(options: argparse.Namespace) -> int:
    prompts = prompts_of(options)
    talk = not (options.json or options.quiet)
    with client_of(options) as client:  # refuses wrong options; the first question connects
        source = read_source(options, SOFT_TISSUE_HU)
        options.output.mkdir(parents=True, exist_ok=True)
        if talk:
            print(introduction(source), flush=True)
        findings = [
            finding
            for prompt in prompts
            for finding in client.find_organs(source, prompt, least_margin=options.least_margin)
        ]
        details = [writers.organ_details(finding) for finding in findings]
        answers = [finding.as_segmentation() for finding in findings]
        reports, note = write_answers(client, source, answers, options, details)
    if options.json:
        print_reports(reports)
    elif talk:
        for finding, report in zip(findings, reports, strict=True):
            print(_outcome(finding, report, options.output))
        if note:
            print(f"\n{note}")
    return OK if any(finding.found for finding in findings) else NOTHING_FOUND


def _outcome(finding: OrganFinding, report: Mapping[str, Any], output: Path) -> str:
    answer = finding.as_segmentation()
    lines = [f"\n“{finding.question}”", f"  answer   {finding.answer}"]
    if finding.label is not None:
        code = ":".join(filter(None, (finding.snomed_code, finding.laterality_code)))
        lines.append(f"  organ    {finding.label}, SNOMED CT {code}")
    if finding.found:
        lines += found_lines(answer, report)
    return "\n".join([*lines, *closing_lines(answer, report, output)])
