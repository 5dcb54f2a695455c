"""Images: https://docs.openstack.org/api-ref/image/v2/"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from .api import ApiError, Call, Reply, Routes, fits, page
from .things import IMAGES, Image, stable_id

routes = Routes()


def html(status: int, title: str, text: str) -> str:
    """Return an error page as WebOb makes it."""
    return (
        f"<html>\n <head>\n  <title>{status} {title}</title>\n </head>\n <body>\n"
        f"  <h1>{status} {title}</h1>\n  {text}<br /><br />\n\n\n\n </body>\n</html>"
    )


_LOGIN = (
    "This server could not verify that you are authorized to access the document you requested. Either you supplied the "
    "wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required."
)


_LOGIN = (
    "This server could not verify that you are authorized to access the document you requested. Either you supplied the "
    "wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required."
)


def render(call: Call, error: ApiError) -> Reply:
    if error.status == 401:
        headers = {
            "Content-Type": "text/html; charset=UTF-8",
            "WWW-Authenticate": f'Keystone uri="{call.url}/identity"',
        }
        return Reply(401, html(401, "Unauthorized", _LOGIN), headers)
    title = {400: "Bad Request", 403: "Forbidden", 404: "Not Found"}.get(error.status, "Error")
    return Reply(error.status, html(error.status, title, error.message), {"Content-Type": "text/html; charset=UTF-8"})


def _image(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.name,
        "created_at": image.created_at,
        "updated_at": image.created_at,
        "status": "active",
        "visibility": "public",
        "size": 1024,
        "virtual_size": 1024,
        "min_ram": 0,
        "min_disk": 0,
        "disk_format": "raw",
        "container_format": "bare",
        "owner": stable_id("project", "admin").replace("-", ""),
        "protected": False,
        "checksum": "0" * 32,
        "os_hash_algo": "sha512",
        "os_hash_value": "0" * 128,
        "os_hidden": False,
        "tags": [],
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }


@routes("GET", "/image", public=True)
def image_versions(call: Call) -> Reply:
    links = [{"rel": "self", "href": f"{call.url}/image/v2/"}]
    return Reply(300, {"versions": [{"id": "v2.17", "status": "CURRENT", "links": links}]})


@routes("GET", "/image/v2/images")
def image_list(call: Call) -> Reply:
    found = [body for body in map(_image, IMAGES) if fits(call, body)]
    if "sort" in call.query:  # by one field: "name:desc"
        key, _, direction = call.query["sort"][0].partition(":")
        found.sort(key=lambda body: str(body[key]), reverse=direction != "asc")
    part, more = page(call, found, lambda body: str(body["id"]), most=25 if "limit" not in call.query else 1000)
    query = urlencode([(k, v) for k, values in call.query.items() for v in values if k != "marker"])
    first = f"/v2/images?{query}" if query else "/v2/images"
    body: dict[str, Any] = {"images": part, "first": first, "schema": "/v2/schemas/images"}
    if more:
        body["next"] = f"/v2/images?{more}"
    return Reply(200, body)


@routes("GET", "/image/v2/images/{}")
def image_show(call: Call, image_id: str) -> Reply:
    for image in IMAGES:
        if image.id == image_id:
            return Reply(200, _image(image))
    raise ApiError(404, f"No image found with ID {image_id}")
