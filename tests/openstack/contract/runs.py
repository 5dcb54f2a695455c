"""Whole runs of requests.yaml: on the dev cloud, on a named cloud, and the one that is recorded in answers.json."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipp_griffin.devcloud import DevCloud

from .compare import Change, Normaliser, Plain, Rules, differences
from .send import Cloud, ContractError, Step, load, steps

SPEC = load()
STEPS = steps(SPEC)
GROUPS = list(SPEC["requests"])
RULES = Rules(SPEC)
RECORD = Path(__file__).with_name("answers.json")
Answers = dict[str, Plain]  # by the step's name


def recorded() -> Answers:
    """What the real services answered when it was last recorded."""
    answers: Answers = json.loads(RECORD.read_text())["answers"]
    return answers


class SendersClock:
    """The dev cloud's time, which passes only while the sender of the requests waits: it answers alike on a busy machine."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0.02)  # for the processes that are its servers


def of_dev_cloud(folder: Path, rules: Rules, todo: list[Step] = STEPS, *, late: float = 0.0) -> Answers:
    """What a fresh dev cloud in ``folder`` answers. ``late``: seconds that pass with each request."""
    clock = SendersClock()
    with DevCloud(folder, boot_time=0.4) as running:
        running.state.clock = lambda: clock.now + late * len(running.requests)
        pace = {"sleep": clock.sleep, "clock": clock, "patience": 5000}  # of that time: minutes of ours
        return of_cloud("devcloud", running.clouds_yaml, rules, todo, real=False, **pace)


def of_cloud(
    name: str, clouds_yaml: Path, rules: Rules, todo: list[Step] = STEPS, *, real: bool = True, **pace: Any
) -> Answers:
    """What the entry ``name`` of a clouds.yaml answers; what was made there is deleted. Raises `ContractError`."""
    if name not in SPEC["names"]:
        raise ContractError(
            f"requests.yaml does not say what cloud {name!r} calls its flavors and images: see `names`."
        )
    cloud = Cloud(name, clouds_yaml, SPEC["names"][name], **pace)
    plain = Normaliser(cloud, rules, real=real).plain
    try:
        answers = {step.name: plain(step, answer) for step, answer in cloud.run(todo)}
    except BaseException:
        with contextlib.suppress(ContractError, OSError):  # what went wrong first is what counts
            cloud.clean_up()
        raise
    cloud.clean_up()
    if any(secret in json.dumps(answers) for secret in cloud.secrets()):
        raise ContractError("A token or a password is in the answers: `not_compared` must name where.")
    return answers


def differing(real: Answers, dev: Answers, todo: list[Step], *, late: str = "") -> Iterator[str]:
    """``step / field: real X, dev Y`` for all that differs, of the steps ``todo``.

    ``late``: which of them, "real" or "dev", may have been asked when something had changed by itself: see `Change`.
    """
    for step in todo:
        excused = None
        if late and step.becomes:
            in_time = dev if late == "real" else real
            excused = Change(in_time[step.becomes], functools.partial(_on_the_way, step), late=late).excuses
        for difference in differences(real[step.name], dev[step.name], excused=excused):
            yield f"{step.name} / {difference}"


def _on_the_way(step: Step, path: str) -> list[Any]:
    return RULES.on_the_way(f"{step.service}:{path}")
