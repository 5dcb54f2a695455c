"""Texts that leave a server: no secret, no control character."""

import json
import urllib.parse

from ipp_griffin.agent.text import Redactor

from .world import CONNECTION


def test_a_secret_is_replaced_in_every_form_it_is_printed_in():
    secret = CONNECTION["key"]
    redactor = Redactor([secret, ""])
    forms = [secret, repr(secret), repr(secret.encode()), json.dumps({"key": secret}), urllib.parse.quote(secret)]
    for form in forms:
        assert "quotes" not in redactor.text(f"before {form} after"), form
        assert "***" in redactor.text(form)


def test_control_characters_become_visible():
    assert Redactor().text("a\tb\n\x1b[31mred\r\x00\u202egnp.exe é😀") == (
        "a\tb\n\\x1b[31mred\\r\\x00\\u202egnp.exe é😀"
    )
