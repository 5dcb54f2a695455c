"""``loop.py N``: what a careful user would write with openstacksdk: one connection, 10 threads that create, one listing a second, 10 that delete."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import openstack
from marks import mark, wait_for_a_line

N = int(sys.argv[1])


def main() -> None:
    connection = openstack.connect(cloud="devcloud")
    image = next(i for i in connection.image.images() if i.name == "snapshot10")
    flavor = next(f for f in connection.compute.flavors() if f.name == "dev.small")
    network = next(n for n in connection.network.networks() if not n.is_router_external)
    mark("begin")  # as for this project, which has logged in and looked all that up by then

    def create(i: int) -> str:
        made = connection.compute.create_server(
            name=f"plain-{i}", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}], tags=["plain"]
        )
        return str(made.id)

    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(create, range(N)))
        while sum(s.status == "ACTIVE" for s in connection.compute.servers(tags="plain")) < N:
            time.sleep(1)
        mark("active")
        wait_for_a_line()
        mark("stop")
        list(pool.map(connection.compute.delete_server, ids))
        while list(connection.compute.servers(tags="plain")):
            time.sleep(0.2)
        mark("stopped")


if __name__ == "__main__":
    main()
