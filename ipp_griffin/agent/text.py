"""Texts that leave this server: secrets replaced, control characters escaped."""

import json
import re
import urllib.parse
from typing import Iterable, Set


class Redactor:
    """Replaces secrets by ``***`` and escapes control characters, in whatever leaves this server."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace these secrets from now on, and no others."""
        variants: Set[bytes] = set()
        for secret in filter(None, secrets):
            forms = (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe=""))
            variants.update(form.encode() for form in forms)
        ordered = sorted(variants, key=len, reverse=True)
        pattern = re.compile(b"|".join(re.escape(v) for v in ordered)) if ordered else None
        self.longest, self._pattern = len(ordered[0]) if ordered else 0, pattern

    def data(self, data: bytes) -> str:
        if self._pattern is not None:
            data = self._pattern.sub(b"***", data)
        return escape(data.decode("utf-8", "backslashreplace"))

    def text(self, text: str) -> str:
        return self.data(text.encode("utf-8", "backslashreplace"))

    def cut(self, data: bytes, at: int, step: int) -> int:
        """Return ``at``, moved to the end (step 1) or start (step -1) of the secret that it would cut in two."""
        for found in self._pattern.finditer(data) if self._pattern is not None else ():
            if found.start() < at < found.end():
                return found.end() if step > 0 else found.start()
        return at


def escape(text: str) -> str:
    """Escape control characters but newline and tab, and those that reorder text, as ``\\x1b``."""
    hidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
    return re.sub(hidden, lambda m: m.group().encode("unicode_escape").decode(), text)


def exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"


def last_lines(text: str, most: int) -> str:
    """Return the last ``most`` lines as one, cut at its start to 700 characters: the cause of an error comes last."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-most:] if line.strip())[-700:]


def said(output: str) -> str:
    """Return the end of a process's output as a sentence without its full stop."""
    return "Its last lines: " + output if output else "It said nothing"
