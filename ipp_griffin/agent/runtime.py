"""What engines, or ipcontroller, run with: a user, a Python with the client's ipyparallel, packages, an environment."""

import glob
import http.client
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import sys
import urllib.parse
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from .connection import controller_address
from .errors import Failure
from .system import SYSTEM_PATH, Json, Run, acting_as, homes, own_name, read, write
from .text import last_lines

PIP = re.compile(r"(?:^|/)pip-[0-9.]+-py3-none-any\.whl$")

# Finds ipyparallel and its version without importing it, which takes seconds; importlib.metadata would take longer than all else.
PROBE_PROGRAM = """
import json, os, re, sys, sysconfig
version = ""
try:
    from importlib import util
    spec = util.find_spec("ipyparallel")
    if spec is not None and spec.origin:
        try:
            with open(os.path.join(os.path.dirname(spec.origin), "_version.py")) as f:
                version = re.search("^__version__ = .([0-9][^'\\"]*)", f.read(), re.M).group(1)
        except (OSError, AttributeError):
            from ipyparallel import __version__ as version
except Exception:
    pass  # a broken one counts as none
print(json.dumps({"python": "%d.%d" % sys.version_info[:2], "ipyparallel": version,
    "paths": [p for p in sys.path if p.endswith("-packages")], "site": sysconfig.get_paths()["purelib"]}))
"""


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def choose(
    candidates: Sequence[Tuple[str, str]], probe: Callable[[str, str], Optional[Json]], wanted: str
) -> Optional[Json]:
    """Return the first (python, user) whose ipyparallel is of the client's major.minor version; None if none has any.

    ``probe`` gives {"python": "3.11", "ipyparallel": "9.2.0" or "", "paths": [...]}, or None if it doesn't run.
    Raises Failure if ipyparallel is there, but in other versions only.
    """
    others = []
    for python, user in candidates:
        found = probe(python, user)
        if not found or not found["ipyparallel"]:
            continue
        if minor(found["ipyparallel"]) == minor(wanted):
            return dict(found, executable=python, user=user)
        others.append("{} of {}".format(found["ipyparallel"], python))
    if others:
        raise Failure(
            "this server has ipyparallel {}, the client has {}. Install that version in the image, or here and "
            "there the same.".format(", ".join(dict.fromkeys(others)), wanted)
        )
    return None


def wheel_places(pip_args: Sequence[str]) -> Iterator[str]:
    """Yield the folders, and the pages of URLs, where pip would look for a package named pip, from its arguments."""
    words = iter(pip_args)
    for word in words:
        option, _, value = word.partition("=")
        if option in ("-i", "--index-url", "--extra-index-url"):
            yield (value or next(words, "")).rstrip("/") + "/pip/"
        elif option in ("-f", "--find-links"):
            yield value or next(words, "")


def system_certificates() -> bytes:
    """Return the CA certificates that this server trusts, in one text; nothing where they are in no such file."""
    usual = [  # of Debian and Ubuntu, Red Hat, SUSE, Alpine: a Python may know a folder only, or none
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ]
    found = (read(path) for path in [ssl.get_default_verify_paths().cafile or "", *usual])
    return next((text for text in found if text), b"")


class Runtime:
    """Finds or creates the user and the Python. ``root``: what is started gets an unprivileged user; else it runs as the agent's own.

    ``user`` ("": the agent's own), ``home``, ``python`` ("" where the user's own command needs none), and ``notes`` for reports,
    are set by `prepare`. ``folder``: for a venv, where the user's home isn't used.
    """

    def __init__(
        self,
        parameters: Json,
        folder: str,
        root: bool,
        run: Run,
        urlopen: Callable[..., Any],
        log: Callable[[str], None],
    ) -> None:
        self._parameters, self._folder, self._root = parameters, folder, root
        self._run, self._urlopen, self._log = run, urlopen, log
        self._unusable: List[str] = []  # Pythons that the user can't run
        self.private_object: Json = {}
        self.user, self.home, self.python = "", os.path.expanduser("~"), ""
        self.notes: List[str] = []

    def path(self, name: str) -> str:
        """Return a path in the folder of what the user needs: in their home if they have one of their own."""
        return os.path.join(self.home, ".ipp-griffin", name) if self._root else os.path.join(self._folder, name)

    # -- environments --

    def base_environment(self, user: str, python: str = "") -> Dict[str, str]:
        """Return the environment that processes for ``user`` start with."""
        home = pwd.getpwnam(user).pw_dir if user else self.home
        path = SYSTEM_PATH if self._root else os.environ.get("PATH", SYSTEM_PATH)
        kept = ("LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
        environment = {"LANG": "C.UTF-8"}
        environment.update((k, os.environ[k]) for k in kept if k in os.environ)
        environment.update(HOME=home, PATH=os.path.dirname(python) + ":" + path if python else path)
        name = user or own_name()
        environment.update(USER=name, LOGNAME=name)
        return environment

    def proxy_environment(self) -> Dict[str, str]:
        """Return what tells programs to use the proxy, but not towards the controller; in both spellings, as they differ."""
        proxy = self._parameters.get("proxy")
        if not proxy:
            return {}
        controller = controller_address(self.private_object, socket.gethostname())
        direct = ",".join(dict.fromkeys(("localhost", "127.0.0.1", "::1", controller)))
        lower = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": direct}
        return dict(lower, **{k.upper(): v for k, v in lower.items()})

    def pip_environment(self) -> Dict[str, str]:
        """Return the environment of pip: with the proxy, and with the cloud's own CA beside those of the system."""
        environment = dict(self.base_environment(self.user), PIP_DISABLE_PIP_VERSION_CHECK="1")
        environment.update(self.proxy_environment())
        certificates = self._parameters.get("ca_certificates")
        if certificates:
            system = system_certificates()
            if system:  # else leave PIP_CERT unset: it replaces pip's own
                bundle = self.path("ca.pem")
                with acting_as(self.user):
                    write(bundle, system + b"\n" + certificates.encode())
                environment["PIP_CERT"] = bundle
        return environment

    def environment(self) -> Dict[str, str]:
        """Return the environment of engines and of ipcontroller, with what the user set in the private object."""
        environment = dict(self.base_environment(self.user, self.python), **self.proxy_environment())
        environment.update((k, str(v)) for k, v in self.private_object["environment"].items())
        environment.update(PYTHONUNBUFFERED="1", GRIFFIN_SERVER=self._parameters["server"])
        environment.update(GRIFFIN_UID=self._parameters["uid"])
        return environment

    # -- the user and the Python --

    def prepare(self, private_object: Json, needs_python: bool = False) -> None:
        """Find or make a user, and a Python with the client's ipyparallel. Raises Failure where that can't be done.

        ``needs_python``: also where the command to run is the user's own.
        """
        self.private_object = private_object
        if self._root:
            self.make_user()
        packages = list(private_object.get("packages", []))
        if private_object.get("engine_cmd") and not (needs_python or packages or private_object.get("engine_python")):
            return  # the command itself says what it runs
        wanted = private_object["ipyparallel"]
        candidates = self.candidates()
        venv = self.path("venv/bin/python")
        made = read(self.path("venv/made-for")).decode() == json.dumps([wanted, packages])
        if not made:
            candidates = [c for c in candidates if c[0] != venv]
        elif packages:
            candidates = [c for c in candidates if c[0] == venv]
        found = choose(candidates, self.probe, wanted)
        if found and self._root and found["user"] != self.user:
            self.notes.append("engines run as {}: the packages are in that home".format(found["user"]))
            self.user, self.home = found["user"], pwd.getpwnam(found["user"]).pw_dir
        if not found or (packages and not made):
            found = self.make_venv(found, wanted, packages)
        self.python = found["executable"]
        if found["python"] != minor(private_object.get("python") or found["python"]):
            self.notes.append(
                "WARNING: Python {} here, {} at the client: functions may not travel".format(
                    found["python"], private_object["python"]
                )
            )
        self._log("engines use {} (ipyparallel {})".format(self.python, found["ipyparallel"]))

    def make_user(self) -> None:
        """Make the unprivileged user that engines run as. ipython wants a home, and a name for its uid."""
        name = self.private_object.get("engine_user") or "ipp"
        if not re.match(r"[a-z_][a-z0-9_-]{0,31}$", name):
            raise Failure(f"engine_user {name!r} is no user name")
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            code, output = self._run(["useradd", "--system", "--create-home", "--shell", "/bin/bash", name])
            if code:
                raise Failure(f"could not make the user {name}: {last_lines(output, 3)}") from None
            entry = pwd.getpwnam(name)
        if entry.pw_uid == 0:
            raise Failure(f"engine_user is {name}: engines don't run as root. Name another user.")
        self.user, self.home = name, entry.pw_dir

    def candidates(self) -> List[Tuple[str, str]]:
        """Return (python, user) in the order of preference. What is in somebody's home may be readable to them only."""
        wanted = self.private_object.get("engine_python")
        if wanted and not os.access(wanted, os.X_OK):
            raise Failure(f"engine_python {wanted} is not there, or can't be run")
        paths = [wanted] if wanted else [sys.executable, "/opt/ipp/bin/python"] + sorted(glob.glob("/opt/*/bin/python"))
        owned = []
        for home, owner in homes() if self._root else [(self.home, "")]:
            pythons = [home + "/.venv/bin/python"] + sorted(glob.glob(home + "/*/bin/python"))
            pythons = [p for p in pythons if not wanted] + [p for p in [wanted] if p and p.startswith(home + "/")]
            paths += pythons
            owned += [(p, owner) for p in pythons + ["/usr/bin/python3"] if not wanted or p == wanted]  # user site
        paths += [] if wanted else ["/usr/local/bin/python3", "/usr/bin/python3"]
        found = [(self.path("venv/bin/python"), self.user)] + [(p, self.user) for p in paths] + owned
        return [c for c in dict.fromkeys(found) if c[0] and os.path.exists(c[0])]

    def probe(self, python: str, user: str) -> Optional[Json]:
        """Return what `choose` wants to know of a Python."""
        code, output = self._run(
            [python, "-c", PROBE_PROGRAM], user=user, env=self.base_environment(user, python), timeout=60
        )
        if code:
            self._unusable.append(f"{python} is there, but {user or own_name()} can't run it")
            return None
        try:
            return dict(json.loads(output.strip().splitlines()[-1]))
        except (ValueError, IndexError):
            return None

    # -- the venv --

    def make_venv(self, image: Optional[Json], wanted: str, packages: List[str]) -> Json:
        """Make a venv with ipyparallel and ``packages``. If the image has ipyparallel (``image``), its packages are
        visible in the venv too, and only ``packages`` are installed. Everything runs as the engines' user."""
        base = image["executable"] if image else self.private_object.get("engine_python") or ""
        base = base or shutil.which("python" + self.private_object.get("python", "3")) or sys.executable
        folder = self.path("venv")
        python = os.path.join(folder, "bin", "python")
        requirements = packages if image else ["ipyparallel==" + wanted] + packages
        self._log("making {} with {} from {}".format(folder, " ".join(requirements), base))
        with acting_as(self.user):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        environment = self.pip_environment()
        pip = self.bare_venv(base, folder, environment)
        found = self.probe(python, self.user)
        if not found:
            raise Failure(f"the venv made by {base} does not run")
        if image:
            with acting_as(self.user):
                write(os.path.join(found["site"], "image.pth"), "\n".join(image["paths"]).encode())
        install = pip + ["install", "--no-input"] + (["--target", found["site"]] if pip[0] == base else [])
        arguments = install + list(self.private_object.get("pip_args", [])) + requirements
        code, output = self._run(arguments, user=self.user, env=environment, timeout=1800)
        found = self.probe(python, self.user)
        if code or not found or not found["ipyparallel"]:
            raise Failure(
                "no ipyparallel {} in this image{}, and pip could not install {} for Python {}: {}".format(
                    wanted,
                    "".join(f" ({why})" for why in self._unusable[:2]),
                    " ".join(requirements),
                    found["python"] if found else "?",
                    last_lines(output, 6),
                )
                if not image
                else "pip could not install {}: {}".format(" ".join(requirements), last_lines(output, 6))
            )
        with acting_as(self.user):
            write(os.path.join(folder, "made-for"), json.dumps([wanted, packages]).encode())
        return dict(found, executable=python, user=self.user)

    def bare_venv(self, base: str, folder: str, environment: Dict[str, str]) -> List[str]:
        """Make the venv; return the pip command for it. Debian's python3 has neither ensurepip nor pip."""
        python = os.path.join(folder, "bin", "python")
        code, output = self._run([base, "-m", "venv", folder], user=self.user, env=environment, timeout=300)
        pip = [base, "-m", "pip"]
        if code and self._run(pip + ["--version"], user=self.user, env=environment)[0]:
            wheel = self.pip_wheel()
            pip = [python, wheel + "/pip"] if wheel else []
        if code and pip:
            arguments = [base, "-m", "venv", "--clear", "--without-pip", folder]
            code, output = self._run(arguments, user=self.user, env=environment, timeout=300)
            if code == 0:
                return pip
        elif code and self._root and shutil.which("apt-get"):
            apt = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=300"]
            environment = dict(environment, DEBIAN_FRONTEND="noninteractive", HOME="/root")
            self._run(apt + ["update"], env=environment, timeout=600)
            code, output = self._run(apt + ["install", "python3-venv"], env=environment, timeout=900)
            if code == 0:
                arguments = [base, "-m", "venv", "--clear", folder]
                code, output = self._run(arguments, user=self.user, env=environment, timeout=300)
        if code:
            raise Failure(
                f"no ipyparallel in this image, and no venv could be made for it with {base}: {last_lines(output, 4)}. Put ipyparallel or "
                "python3-venv into the image."
            )
        return [python, "-m", "pip"]

    def pip_wheel(self) -> str:
        """Return pip's own wheel, from the index or the folder that ``pip_args`` name; "" if there is none.

        It can be run as it is, so that an image needs nothing but Python where packages come from a place of the user's.
        """
        wheels: Dict[str, str] = {}
        for place in wheel_places(self.private_object.get("pip_args", [])):
            try:
                if "://" not in place:
                    page, found = "", glob.glob(os.path.join(place, "pip-*.whl"))
                else:
                    with self._urlopen(place, timeout=30) as response:
                        page, found = place, re.findall(r'href="([^"#]+)', response.read(1 << 24).decode())
            except (OSError, ValueError, http.client.HTTPException) as e:
                self._log("no pip at {}: {}".format(place.rpartition("@")[2], type(e).__name__))
                continue
            wheels.update((w.rpartition("/")[2], urllib.parse.urljoin(page, w)) for w in found if PIP.search(w))
        if not wheels:
            return ""
        newest = max(wheels, key=lambda name: [int(n) for n in re.findall(r"\d+", name.split("-")[1])])
        if "://" not in wheels[newest]:
            return wheels[newest]
        try:
            with self._urlopen(wheels[newest], timeout=60) as response, acting_as(self.user):
                write(self.path(newest), response.read(1 << 26))
        except (OSError, http.client.HTTPException) as e:
            self._log(f"can't fetch {newest}: {type(e).__name__}")
            return ""
        return self.path(newest)
