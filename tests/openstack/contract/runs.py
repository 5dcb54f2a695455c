"""Whole runs of requests.yaml: on the dev cloud, on a named cloud, and the one that is recorded in answers.json."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipp_griffin.devcloud import DevCloud

from .compare import Normaliser, Plain, Rules, differences
from .send import Cloud, ContractError, Step, load, steps

SPEC = load()
STEPS = steps(SPEC)
GROUPS = list(SPEC["requests"])
RECORD = Path(__file__).with_name("answers.json")
Answers = dict[str, Plain]  # by the step's name


def recorded() -> Answers:
    """What the real services answered when it was last recorded."""
    answers: Answers = json.loads(RECORD.read_text())["answers"]
    return answers


def of_dev_cloud(folder: Path, rules: Rules) -> Answers:
    """What a fresh dev cloud in ``folder`` answers."""
    with DevCloud(folder, boot_time=0.4) as running:
        return of_cloud("devcloud", running.clouds_yaml, rules, real=False, pause=0.02, patience=20)


def of_cloud(name: str, clouds_yaml: Path, rules: Rules, *, real: bool = True, **pace: Any) -> Answers:
    """What the entry ``name`` of a clouds.yaml answers; what was made there is deleted. Raises `ContractError`."""
    if name not in SPEC["names"]:
        raise ContractError(
            f"requests.yaml does not say what cloud {name!r} calls its flavors and images: see `names`."
        )
    cloud = Cloud(name, clouds_yaml, SPEC["names"][name], **pace)
    plain = Normaliser(cloud, rules, real=real).plain
    try:
        answers = {step.name: plain(step, answer) for step, answer in cloud.run(STEPS)}
    except BaseException:
        with contextlib.suppress(ContractError, OSError):  # what went wrong first is what counts
            cloud.clean_up()
        raise
    cloud.clean_up()
    if any(secret in json.dumps(answers) for secret in cloud.secrets()):
        raise ContractError("A token or a password is in the answers: `not_compared` must name where.")
    return answers


def differing(real: Answers, dev: Answers, todo: list[Step]) -> Iterator[str]:
    """``step / field: real X, dev Y`` for all that differs, of the steps ``todo``."""
    for step in todo:
        for difference in differences(real[step.name], dev[step.name]):
            yield f"{step.name} / {difference}"
