"""Nova's in-tree fake driver, made to survive a restart of nova-compute, and with servers that run.

Each is a network namespace plus a throw-away copy of this machine's file system in which cloud-init carries out the
user-data (see realcloud/guest.py). Copied by install.sh into the nova.virt package, the only place Nova loads a driver from.
"""

import os
import time

from nova import exception
from nova.api.metadata import base as metadata
from nova.compute import power_state
from nova.virt import fake, node
from realcloud import fault, guest


class Driver(fake.FakeDriver):
    faults = os.environ["REALCLOUD_FAULTS"]

    def get_available_resource(self, nodename):
        resources = super().get_available_resource(nodename)
        if resources:
            # The in-tree driver invents a new uuid in each process; Nova then refuses to start again.
            resources["uuid"] = node.get_local_node_uuid()
        return resources

    def get_nodenames_by_uuid(self, refresh=False):
        return {node.get_local_node_uuid(): self.get_available_nodes()[0]}

    def _known(self, instance):
        # Known to Nova, unknown here: this process was restarted.
        if instance.uuid not in self.instances and instance.vm_state in ("active", "stopped"):
            state = power_state.RUNNING if instance.vm_state == "active" else power_state.SHUTDOWN
            self.instances[instance.uuid] = fake.FakeInstance(instance.name, state, instance.uuid)

    def get_info(self, instance, use_cache=True):
        self._known(instance)
        if instance.uuid in self.instances:
            running = guest.alive(instance.uuid)
            self.instances[instance.uuid].state = power_state.RUNNING if running else power_state.SHUTDOWN
        return super().get_info(instance, use_cache)

    def spawn(
        self,
        context,
        instance,
        image_meta,
        injected_files,
        admin_password,
        allocations,
        network_info=None,
        block_device_info=None,
        power_on=True,
        accel_info=None,
    ):
        if reason := fault.for_server(self.faults, instance.hostname, "fail_build"):
            raise exception.BuildAbortException(instance_uuid=instance.uuid, reason=reason)
        time.sleep(fault.for_server(self.faults, instance.hostname, "boot_time") or 0)
        super().spawn(
            context,
            instance,
            image_meta,
            injected_files,
            admin_password,
            allocations,
            network_info,
            block_device_info,
            power_on,
            accel_info,
        )
        extra = {"admin_pass": admin_password} if admin_password else {}
        drive = metadata.InstanceMetadata(instance, content=injected_files, extra_md=extra, network_info=network_info)
        nics = []
        for vif in network_info or []:
            for subnet in vif["network"]["subnets"]:
                for ip in subnet["ips"]:
                    nics.append(
                        {
                            "network": vif["network"]["id"],
                            "mac": vif["address"],
                            "ip": ip["address"],
                            "cidr": subnet["cidr"],
                            "gateway": (subnet["gateway"] or {}).get("address"),
                        }
                    )
        guest.create(
            instance.uuid,
            instance.hostname,
            image_meta.name,
            nics,
            drive.metadata_for_config_drive(),
            ["sleep", "infinity"] if fault.for_server(self.faults, instance.hostname, "silent") else [],
        )
        if power_on:
            guest.start(instance.uuid)

    def destroy(
        self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True
    ):
        self._known(instance)
        super().destroy(context, instance, network_info, block_device_info, destroy_disks, destroy_secrets)
        if guest.folder(instance.uuid).exists():
            guest.delete(instance.uuid)

    def power_off(self, instance, timeout=0, retry_interval=0):
        self._known(instance)
        super().power_off(instance, timeout, retry_interval)
        guest.stop(instance.uuid)

    def power_on(self, context, instance, *args, **kwargs):
        self._known(instance)
        super().power_on(context, instance, *args, **kwargs)
        guest.stop(instance.uuid)  # a reboot comes here too
        guest.start(instance.uuid)

    def get_console_output(self, context, instance):
        return guest.console(instance.uuid)
