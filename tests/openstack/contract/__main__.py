"""``python -m tests.openstack.contract record --cloud real``: keep what the real services answer, in answers.json.

``compare`` prints how the dev cloud answers otherwise than the cloud, or than the recorded answers (without --cloud).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from . import runs
from .compare import Rules
from .send import ContractError

REQUIREMENTS = Path(__file__).parents[1] / "realcloud" / "requirements.txt"
SERVICES = ("keystone", "nova", "neutron", "glance", "openstack-placement", "swift")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.openstack.contract", description=__doc__)
    parser.add_argument("command", choices=["record", "compare"])
    parser.add_argument("--cloud", help="an entry of clouds.yaml (OS_CLIENT_CONFIG_FILE), with its siblings")
    options = parser.parse_args()
    if options.command == "record" and not options.cloud:
        parser.error("record needs --cloud NAME")
    rules = Rules(runs.SPEC)
    try:
        real = runs.of_cloud(options.cloud, _clouds_yaml(), rules) if options.cloud else runs.recorded()
        if options.command == "record":
            _record(options.cloud, real)
            return 0
        with tempfile.TemporaryDirectory() as folder:
            dev = runs.of_dev_cloud(Path(folder), rules)
    except ContractError as error:
        print(error, file=sys.stderr)
        return 2
    found = list(runs.differing(real, dev, runs.STEPS, late="real" if options.cloud else ""))
    if options.cloud:
        found += [f"requests.yaml: the rule for {rule} is of no use" for rule in sorted(rules.rules - rules.used)]
    print("\n".join([*found, f"{len(real)} requests, {len(found)} differences"]))
    return 1 if found else 0


def _clouds_yaml() -> Path:
    places = [os.environ.get("OS_CLIENT_CONFIG_FILE"), "clouds.yaml", "~/.config/openstack/clouds.yaml"]
    for place in filter(None, places):
        if (path := Path(place).expanduser()).exists():
            return path
    raise ContractError("There is no clouds.yaml: set OS_CLIENT_CONFIG_FILE.")


def _record(cloud: str, answers: runs.Answers) -> None:
    """One line a step, so that a change shows what changed."""
    services = {}
    if cloud == "real":
        services = dict(re.findall(rf"^({'|'.join(SERVICES)})==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE))
    head = json.dumps({"recorded": time.strftime("%Y-%m-%d"), "cloud": cloud, "services": services})
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(answer, ensure_ascii=False)}" for name, answer in answers.items()
    )
    runs.RECORD.write_text(f'{head[:-1]}, "answers": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    sys.exit(main())
