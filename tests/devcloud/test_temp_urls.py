"""TempURLs by the rules of Swift."""

import hashlib
import hmac

import pytest
from swiftclient.utils import generate_temp_url

from ipp_griffin.devcloud import temp_urls
from ipp_griffin.devcloud.api import Call
from ipp_griffin.devcloud.state import CloudState
from ipp_griffin.devcloud.things import Container

NOW = 1_700_000_000
PATH = "/v1/AUTH_p/box/set/a b"


def fits(method: str, url: str, path: str = PATH, *, keys: tuple[str, ...] = ("k",), now: float = NOW) -> bool:
    """Whether a request with the TempURL parameters of ``url`` is let through."""
    state = CloudState(clock=lambda: now)
    names = ("X-Container-Meta-Temp-Url-Key", "X-Container-Meta-Temp-Url-Key-2")
    state.containers["p", "box"] = Container(0, dict(zip(names, keys, strict=False)))
    query: dict[str, list[str]] = {}
    for pair in url.partition("?")[2].split("&"):
        name, _, value = pair.partition("=")
        query.setdefault(name, []).append(value)
    _, _, account, container, name = path.split("/", 4)
    return temp_urls.fits(Call(state, "", method, path, query, {}, b""), account, container, name)


def signed(method: str = "GET", path: str = PATH, key: str = "k", **more: object) -> str:
    return generate_temp_url(path, NOW + 60, key, method, absolute=True, **more)


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("iso8601", [False, True])
def test_what_swiftclient_signs_is_let_through(digest, iso8601):
    assert fits("GET", signed(digest=digest, iso8601=iso8601))


def test_a_sha512_signature_in_hex_is_let_through():
    text = f"GET\n{NOW + 60}\n{PATH}".encode()
    signature = hmac.new(b"k", text, hashlib.sha512).hexdigest()
    assert fits("GET", f"?temp_url_sig={signature}&temp_url_expires={NOW + 60}")


@pytest.mark.parametrize(
    ("signed_for", "method", "through"),
    [
        ("GET", "HEAD", True),
        ("PUT", "HEAD", True),
        ("PUT", "GET", False),
        ("GET", "PUT", False),
        ("PUT", "PUT", True),
        ("PUT", "DELETE", False),
    ],
)
def test_a_temp_url_is_good_for_its_method_and_head_only(signed_for, method, through):
    assert fits(method, signed(signed_for)) is through


def test_a_temp_url_is_dead_after_its_expiry_by_the_clouds_clock():
    assert fits("GET", signed(), now=NOW + 60)
    assert not fits("GET", signed(), now=NOW + 61)


def test_either_key_of_the_container_is_good_and_no_other():
    assert fits("GET", signed(key="second"), keys=("first", "second"))
    assert not fits("GET", signed(key="third"), keys=("first", "second"))
    assert not fits("GET", signed(), keys=())


def test_a_prefix_url_reaches_what_is_under_the_prefix_and_nothing_else():
    url = signed("PUT", "/v1/AUTH_p/box/set/0.", prefix=True)
    assert fits("PUT", url, "/v1/AUTH_p/box/set/0.0/0001-agent")
    assert not fits("PUT", url, "/v1/AUTH_p/box/set/1.0/0001-agent")
    assert not fits("PUT", url.replace("temp_url_prefix=set/0.", "temp_url_prefix=set/"), PATH)


@pytest.mark.parametrize(
    "url", ["?", "?temp_url_sig=zz&temp_url_expires=1", "?temp_url_expires=soon&temp_url_sig=sha9:x"]
)
def test_nonsense_is_not_let_through(url):
    assert not fits("GET", url)
