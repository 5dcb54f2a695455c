# ipcluster and ipp.Cluster on OpenStack: the settings of `ipcluster start --profile=griffin` and
# `ipp.Cluster(profile="griffin")`. Every value shown is the default; take the # away and change what you need.
#
# Which launchers are used stands in ipcluster_config.json beside this file, and not here: ipcluster goes on
# without a Python file that has a mistake in it, and would start local engines.

c = get_config()  # noqa: F821

# --- Where: shared by the controller and the engines -----------------------------------------------------------

# Name of the cloud in clouds.yaml. "": the environment variable OS_CLOUD, else the other OS_* variables.
# c.GriffinCloud.cloud = ""

# Region of the cloud. "": the one that clouds.yaml or OS_REGION_NAME names.
# c.GriffinCloud.region = ""

# Image of the servers: a name, an id, or a pattern, which means the latest match: the highest number in the
# name (snapshot10 beats snapshot2), else the most recently created.
# c.GriffinCloud.image = "snapshot*"

# Flavor (size) of the servers: a name or an id. "": the smallest that the image fits on.
# c.GriffinCloud.flavor = ""

# Network of the servers: a name or an id. "": the project's only network.
# c.GriffinCloud.network = ""

# Key pair for ssh to the servers, for looking around by hand. "": none.
# c.GriffinCloud.key_name = ""

# Security groups of the servers, by name. []: the project's group "default". Engines only open connections,
# so no incoming rule is needed for them; the machine of the controller must let its ports in (see below).
# c.GriffinCloud.security_groups = []

# Make security groups for the cluster, and delete them with it: one that lets nothing in for its servers, instead of "default",
# and, where this machine is a server of the project, one that lets them in to the controller's ports, for its port.
# c.GriffinCloud.manage_security_group = False

# Availability zone of the servers. "": the cloud's choice.
# c.GriffinCloud.availability_zone = ""

# First part of the name of the cluster's private container in the object store.
# c.GriffinCloud.container = "ipp-griffin"

# The object store's address as servers see it, where it differs from the one this machine uses,
# e.g. "https://store.internal:8080/v1/AUTH_ab12", or "internal": that endpoint of the cloud's catalog.
# c.GriffinCloud.store_url = ""

# Proxy that servers use towards the object store and package indexes, e.g. "http://10.0.0.1:3128"; without a password.
# c.GriffinCloud.proxy = ""

# File on this machine (PEM) with the CA certificates that servers need for the object store's https. Default: what cacert
# of the cloud in clouds.yaml has beyond the public ones.
# c.GriffinCloud.ca_certificates = ""

# --- The controller, a process of this machine -----------------------------------------------------------------

# The address of this machine that servers connect to. "": this machine's address on GriffinCloud.network (if that is not set, on
# whichever of the project's networks it is on), else the one it uses towards the cloud.
# c.GriffinControllerLauncher.ip = ""

# The ports it listens on are taken from this range, 20 for each cluster: what a firewall or security group must
# let in from the servers.
# c.GriffinControllerLauncher.ports = "20000-20999"

# --- The controller, on a server of its own: ipcluster start --controller=griffin-server -------------------------------

# What its server is, where that is not GriffinCloud's of the same name. "" and []: GriffinCloud's.
# c.GriffinServerControllerLauncher.image = ""
# c.GriffinServerControllerLauncher.flavor = ""
# c.GriffinServerControllerLauncher.network = ""
# c.GriffinServerControllerLauncher.key_name = ""
# c.GriffinServerControllerLauncher.security_groups = []
# c.GriffinServerControllerLauncher.availability_zone = ""

# The ports it listens on, at least 20: what security groups must let in, from the engines' servers and from this machine.
# c.GriffinServerControllerLauncher.ports = "20000-20019"

# The floating IP by which clients reach it: "auto", one for as long as the cluster lives, or the address of one that the project has;
# and the external network that "auto" takes it from ("": the only one). "": none.
# c.GriffinServerControllerLauncher.floating_ip = ""
# c.GriffinServerControllerLauncher.floating_ip_pool = ""

# An SSH gateway by which clients reach it, "user@host" or "user@host:port"; "user@": its own server. "": none.
# c.GriffinServerControllerLauncher.ssh_server = ""

# What the cluster's own security group lets in to the clients' ports, e.g. "203.0.113.7/32"; "": this machine's address, or the gateway's.
# c.GriffinServerControllerLauncher.client_address = ""

# Seconds without a task, and seconds in all, after which the cluster ends and its servers power themselves off. 0: never.
# c.GriffinServerControllerLauncher.idle_timeout = 0
# c.GriffinServerControllerLauncher.max_lifetime = 0

# Who and what runs ipcontroller, and what to install for it.
# c.GriffinServerControllerLauncher.controller_user = "ipp"
# c.GriffinServerControllerLauncher.controller_python = ""
# c.GriffinServerControllerLauncher.packages = []
# c.GriffinServerControllerLauncher.pip_args = []

# Seconds: for the whole start; for its server to be built, to report, to have what ipcontroller needs; for that to answer; for this
# machine to reach it. And how many servers may be tried in an hour (-1: three more).
# c.GriffinServerControllerLauncher.start_timeout = 1200
# c.GriffinServerControllerLauncher.build_timeout = 300
# c.GriffinServerControllerLauncher.agent_timeout = 300
# c.GriffinServerControllerLauncher.connection_timeout = 900
# c.GriffinServerControllerLauncher.controller_timeout = 60
# c.GriffinServerControllerLauncher.reach_timeout = 60
# c.GriffinServerControllerLauncher.max_replacements = -1

# How often ipcontroller is started anew in an hour if it crashes; seconds after which a server that gave up powers itself off;
# seconds between two uploads of what ipcontroller has logged, and between two polls of the server, starting and running.
# c.GriffinServerControllerLauncher.restarts = 5
# c.GriffinServerControllerLauncher.controller_gone_timeout = 300
# c.GriffinServerControllerLauncher.log_interval = 60
# c.GriffinServerControllerLauncher.poll_interval = 1
# c.GriffinServerControllerLauncher.watch_interval = 10

# --- The engines -----------------------------------------------------------------------------------------------

# What the engines' servers are, where that is not GriffinCloud's of the same name. It can be given to an engine set by itself:
# `ipcluster engines -n 4 --GriffinEngineSetLauncher.flavor=m1.large`, or `cluster.start_engines(4, flavor="m1.large")`.
# "" and []: GriffinCloud's.
# c.GriffinEngineSetLauncher.image = ""
# c.GriffinEngineSetLauncher.flavor = ""
# c.GriffinEngineSetLauncher.network = ""
# c.GriffinEngineSetLauncher.key_name = ""
# c.GriffinEngineSetLauncher.security_groups = []
# c.GriffinEngineSetLauncher.availability_zone = ""

# Engines on each server; the last server may hold fewer. 0: one for each vCPU of the flavor.
# c.GriffinEngineSetLauncher.engines_per_server = 0

# Seconds until all engines must be connected; then the start fails and everything is deleted.
# c.GriffinEngineSetLauncher.start_timeout = 1200

# The user on the servers that engines run as; made where it does not exist. "ubuntu", say, to run as the user
# that owns the packages of your snapshot.
# c.GriffinEngineSetLauncher.engine_user = "ipp"

# The Python on the servers, e.g. "/opt/conda/bin/python". "": the first one with ipyparallel that is found.
# c.GriffinEngineSetLauncher.engine_python = ""

# Packages to install with pip on each server, e.g. ["numpy", "pandas>=2"]. ipyparallel itself is installed
# where the image has none. A snapshot with everything in it starts faster.
# c.GriffinEngineSetLauncher.packages = []

# More arguments for that pip, e.g. ["--index-url", "http://10.0.0.1/simple"].
# c.GriffinEngineSetLauncher.pip_args = []

# Environment variables of the engines. They travel in the private object, never in user-data.
# c.GriffinEngineSetLauncher.environment = {}

# Command line arguments of the engines (`ipengine --help-all`).
# c.EngineLauncher.engine_args = []

# Seconds that a server keeps trying to reach the controller's port, and an engine to register.
# c.GriffinEngineSetLauncher.controller_timeout = 60
# c.GriffinEngineSetLauncher.register_timeout = 120

# Seconds without a controller after which a server that lost all its engines powers itself off.
# c.GriffinEngineSetLauncher.controller_gone_timeout = 300

# Seconds that a server may take: to be built, until its agent reports, until that reaches the controller, until all of its
# engines are connected. One that takes longer, or goes to ERROR, is deleted, and another takes its slot: so many of them in
# an hour (-1: one in ten, at least 3).
# c.GriffinEngineSetLauncher.build_timeout = 300
# c.GriffinEngineSetLauncher.agent_timeout = 300
# c.GriffinEngineSetLauncher.connection_timeout = 900
# c.GriffinEngineSetLauncher.engines_timeout = 180
# c.GriffinEngineSetLauncher.max_replacements = -1

# With so many engines a start succeeds; 0: all of them. Replace also servers that are lost while the set runs.
# c.GriffinEngineSetLauncher.min_engines = 0
# c.GriffinEngineSetLauncher.replace = False

# Seconds after which each server powers itself off, whatever became of this machine. 0: never.
# c.GriffinEngineSetLauncher.max_lifetime = 0

# A progress bar while servers come up. None: where there is a terminal or a notebook.
# c.GriffinEngineSetLauncher.progress = None

# How many crashed engines a server starts anew in an hour.
# c.GriffinEngineSetLauncher.restarts = 5

# Seconds between two uploads of what a server's engines have logged, if they have. 0: only when something happens.
# c.GriffinEngineSetLauncher.log_interval = 60

# Requests to Nova in flight at the same time, at most.
# c.GriffinEngineSetLauncher.parallel = 10

# Seconds between two polls of the servers: while they start, and while they run (one request for all of them).
# c.GriffinEngineSetLauncher.poll_interval = 1
# c.GriffinEngineSetLauncher.watch_interval = 10

# Seconds that engines get to leave the controller at the stop; from how many servers output and console are kept then.
# c.GriffinEngineSetLauncher.leave_timeout = 5
# c.GriffinEngineSetLauncher.output_servers = 16

# --- ipyparallel's own -----------------------------------------------------------------------------------------

# Number of engines where neither -n nor ipp.Cluster(n=...) says it. None: one for each core of this machine.
# c.Cluster.n = None

# Seconds between the controller and the engines: the griffin controller launcher returns when it is ready.
c.Cluster.delay = 0
