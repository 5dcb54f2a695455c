"""``python -m ipp_griffin.devcloud FOLDER``: the background process that `service.start` starts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .service import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ipp_griffin.devcloud", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--boot-time", type=float, default=0.5, help="seconds from BUILD to ACTIVE")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every request")
    parser.add_argument("--quota-instances", type=int, default=64)
    parser.add_argument("--no-guests", dest="guests", action="store_false", help="servers run nothing")
    options = vars(parser.parse_args())
    return serve(options.pop("folder"), options)


if __name__ == "__main__":
    sys.exit(main())
