"""``dask_cloud.py N AUTH_URL ID SECRET NETWORK``: dask-cloudprovider's OpenStackCluster, in a virtual environment of its own.

The guests are silent, so the scheduler, which its own server would run, runs here: at every address of the loopback, that server's among
them. What is measured begins when the cluster has it: N workers are scaled up to, and the cluster is closed.
"""

from __future__ import annotations

import asyncio
import sys

import dask
from dask_cloudprovider.openstack import OpenStackCluster
from distributed import Scheduler
from distributed.core import Status
from marks import mark, wait_for_a_line

N, AUTH_URL, ID, SECRET, NETWORK = int(sys.argv[1]), *sys.argv[2:]
SETTINGS = {
    "auth_url": AUTH_URL,
    "application_credential_id": ID,
    "application_credential_secret": SECRET,
    "network_id": NETWORK,
    "image": "snapshot10",
    "size": "dev.small",
    "region": "RegionOne",
    "security_group": "default",
    "keypair_name": "griffin-key",
    "create_floating_ip": False,
}


async def main() -> None:
    dask.config.set({f"cloudprovider.openstack.{name}": value for name, value in SETTINGS.items()})
    async with (
        Scheduler(host="tcp://0.0.0.0", port=8786, dashboard=False),
        OpenStackCluster(n_workers=0, asynchronous=True, security=False, bootstrap=False) as cluster,
    ):
        mark("begin")
        cluster.scale(N)
        while sum(worker.status == Status.running for worker in cluster.workers.values()) < N:
            await asyncio.sleep(0.05)
        mark("active")
        await asyncio.get_running_loop().run_in_executor(None, wait_for_a_line)
        mark("stop")
    mark("stopped")


if __name__ == "__main__":
    asyncio.run(main())
