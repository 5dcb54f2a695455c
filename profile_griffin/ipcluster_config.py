# The settings of `ipcluster start --profile=griffin` and `ipp.Cluster(profile="griffin")`. Every value shown is the default;
# uncomment and change what you need.
#
# The launchers are named in ipcluster_config.json beside this file, not here: if this file has a mistake, ipcluster ignores it,
# and would start local engines.

c = get_config()  # noqa: F821

# ------------------------------------------------------------------------------
# GriffinCloud(LoggingConfigurable) configuration
# ------------------------------------------------------------------------------
## Where the servers of a cluster are created, and from what.

## Availability zone of the servers. Default: the cloud chooses.
#  Default: ''
# c.GriffinCloud.availability_zone = ''

## File on this machine (PEM) with the CA certificates that servers need for the
#  object store's https and that the image lacks. Default: the cacert in
#  clouds.yaml, or OS_CACERT, without public certificates.
#  Default: ''
# c.GriffinCloud.ca_certificates = ''

## Name of the cloud in clouds.yaml, e.g. "mycloud". Default: the environment
#  variable OS_CLOUD, else the other OS_* variables.
#  Default: ''
# c.GriffinCloud.cloud = ''

## Prefix of the name of a cluster's private container in the object store; the
#  cluster's uid follows. The container exists from start to stop.
#  Default: 'ipp-griffin'
# c.GriffinCloud.container = 'ipp-griffin'

## Flavor (size) of the servers: a name or an id. Default: the smallest that fits
#  the image.
#  Default: ''
# c.GriffinCloud.flavor = ''

## Image of the servers: a name, an id, or a pattern such as "snapshot*". A
#  pattern means the match with the highest number in its name (snapshot10 beats
#  snapshot2), else the most recently created.
#  Default: 'snapshot*'
# c.GriffinCloud.image = 'snapshot*'

## Key pair for ssh to the servers, for debugging by hand. Default: none.
#  Default: ''
# c.GriffinCloud.key_name = ''

## Make security groups for the cluster and delete them with it. The servers get
#  a group that admits nothing, besides `security_groups`, but not "default"
#  unless it is named there. If this machine is a server of the project, it gets
#  a group that admits the cluster's servers to the controller's ports.
#  Default: False
# c.GriffinCloud.manage_security_group = False

## Network of the servers: a name or an id. Default: the project's only network.
#  Default: ''
# c.GriffinCloud.network = ''

## Proxy of the servers for the object store and package indexes, e.g.
#  "http://10.0.0.1:3128". Engines find it in their environment (http_proxy,
#  https_proxy; the controller is in no_proxy). It can't have a password, because
#  user-data is not secret. Default: none.
#  Default: ''
# c.GriffinCloud.proxy = ''

## Region of the cloud. Default: the region in clouds.yaml or OS_REGION_NAME.
#  Default: ''
# c.GriffinCloud.region = ''

## Security groups of the servers, by name or id. Default: the project's group
#  "default". Engines need no incoming rule: they only open connections, to the
#  controller's ports.
#  Default: []
# c.GriffinCloud.security_groups = []

## The object store's address for servers, e.g.
#  "https://store.internal:8080/v1/AUTH_ab12", or the catalog endpoint to use:
#  "public", "internal" or "admin". Default: the address that this machine uses.
#  Default: ''
# c.GriffinCloud.store_url = ''

# ------------------------------------------------------------------------------
# GriffinControllerLauncher(LocalControllerLauncher) configuration
# ------------------------------------------------------------------------------
## Run ipcontroller on this machine for engines on servers: one reachable
#  address, CurveZMQ and message signing on.
#
#  `stop` deletes everything that the cluster has in the cloud, including what
#  other processes added.

## Address of this machine that the controller listens on and that servers
#  connect to. Default: its address on GriffinCloud.network, else on any of the
#  project's networks, else the one it uses to reach the cloud.
#  Default: ''
# c.GriffinControllerLauncher.ip = ''

## Range of ports for controllers, FIRST-LAST; each cluster takes 20. A firewall
#  or security group rule must admit it.
#  Default: '20000-20999'
# c.GriffinControllerLauncher.ports = '20000-20999'

# ------------------------------------------------------------------------------
# GriffinServerControllerLauncher(ControllerLauncher) configuration
# ------------------------------------------------------------------------------
## Start ipcontroller on a server, and return when this machine reaches it.
#  `stop` deletes the whole cluster.
#
#  Once started, the cluster does not need this process.

## Seconds from ACTIVE until the first report of a server's agent: time to boot
#  and to reach the object store. After that the server is replaced.
#  Default: 300
# c.GriffinServerControllerLauncher.agent_timeout = 300

## Availability zone of these servers. Default: GriffinCloud.availability_zone.
#  Default: ''
# c.GriffinServerControllerLauncher.availability_zone = ''

## Seconds for Nova to build a server. After that the server is replaced.
#  Default: 300
# c.GriffinServerControllerLauncher.build_timeout = 300

## Address that manage_security_group admits to the clients' ports, e.g.
#  "203.0.113.7/32": this machine's as the cloud sees it, or the SSH gateway's.
#  Default: the address that this machine uses to reach the controller, which is
#  wrong behind a router that translates addresses.
#  Default: ''
# c.GriffinServerControllerLauncher.client_address = ''

## Seconds for an agent to find or install ipyparallel and `packages`, and to
#  reach the controller. After that the server is replaced. Increase it if pip
#  has to build packages.
#  Default: 900
# c.GriffinServerControllerLauncher.connection_timeout = 900

## Seconds without a controller after which a server whose engines have all ended
#  powers itself off. Also applies after an agent gave up, if nobody deletes its
#  server.
#  Default: 300
# c.GriffinServerControllerLauncher.controller_gone_timeout = 300

## Python on the server. Default: the first one that has ipyparallel.
#  Default: ''
# c.GriffinServerControllerLauncher.controller_python = ''

## Seconds from the start of ipcontroller until its ports answer.
#  Default: 60
# c.GriffinServerControllerLauncher.controller_timeout = 60

## User on the server that ipcontroller runs as; created if it does not exist.
#  Default: 'ipp'
# c.GriffinServerControllerLauncher.controller_user = 'ipp'

## Flavor (size) of these servers: a name or an id. Default: GriffinCloud.flavor.
#  Default: ''
# c.GriffinServerControllerLauncher.flavor = ''

## Floating IP by which clients reach the controller: "auto" allocates one and
#  releases it with the cluster; an address uses one that the project has.
#  Default: none; clients use the server's own address.
#  Default: ''
# c.GriffinServerControllerLauncher.floating_ip = ''

## External network, by name or id, to allocate a floating IP from. Default: the
#  only one.
#  Default: ''
# c.GriffinServerControllerLauncher.floating_ip_pool = ''

## Seconds without a task on any engine after which the engines end and the
#  controller's server powers itself off; the engines' servers follow
#  controller_gone_timeout later. Must be longer than a start. Many clouds bill
#  servers that are off until `ipp-griffin reap` deletes them. Default: 0, never.
#  Default: 0
# c.GriffinServerControllerLauncher.idle_timeout = 0

## Image of these servers: a name, an id, or a pattern such as "snapshot*".
#  Default: GriffinCloud.image.
#  Default: ''
# c.GriffinServerControllerLauncher.image = ''

## Key pair for ssh to these servers. Default: GriffinCloud.key_name.
#  Default: ''
# c.GriffinServerControllerLauncher.key_name = ''

## Seconds between two uploads of new output from a server to the object store,
#  for `get_output` and `ipp-griffin logs`. 0: only when a process starts or
#  ends.
#  Default: 60
# c.GriffinServerControllerLauncher.log_interval = 60

## Seconds after which each server ends its processes and powers itself off,
#  whatever happened to this machine: it limits the bill. Many clouds bill
#  servers that are off until `ipp-griffin reap` deletes them. Default: 0, never.
#  Default: 0
# c.GriffinServerControllerLauncher.max_lifetime = 0

## How many failed servers may be replaced in an hour; 0: none. Default: -1, a
#  tenth of the servers, but at least 3.
#  Default: -1
# c.GriffinServerControllerLauncher.max_replacements = -1

## Network of these servers: a name or an id. It must have a route to the
#  controller's address and the object store. Default: GriffinCloud.network.
#  Default: ''
# c.GriffinServerControllerLauncher.network = ''

## Packages that pip installs into a new environment on each server, e.g.
#  ["numpy", "pandas>=2"]; ipyparallel is added if the image has none. A snapshot
#  that has them starts faster.
#  Default: []
# c.GriffinServerControllerLauncher.packages = []

## Further arguments for pip, e.g. ["--index-url", "http://10.0.0.1/simple"].
#  Default: []
# c.GriffinServerControllerLauncher.pip_args = []

## Seconds between two polls of the servers during a start; up to five times as
#  long while nothing changes, a quarter of it for a controller's server.
#  Default: 1.0
# c.GriffinServerControllerLauncher.poll_interval = 1.0

## Ports of its server that the controller listens on, FIRST-LAST, at least 20.
#  Security groups must admit them.
#  Default: '20000-20019'
# c.GriffinServerControllerLauncher.ports = '20000-20019'

## Seconds until this machine reaches a running controller: a new floating IP
#  takes some seconds.
#  Default: 60
# c.GriffinServerControllerLauncher.reach_timeout = 60

## How many crashed engines or controllers a server restarts in an hour.
#  Default: 5
# c.GriffinServerControllerLauncher.restarts = 5

## Security groups of these servers, by name or id; with
#  GriffinCloud.manage_security_group, in addition to the cluster's own. Default:
#  GriffinCloud.security_groups.
#  Default: []
# c.GriffinServerControllerLauncher.security_groups = []

## SSH gateway by which clients reach the controller: "user@host" or
#  "user@host:port", or "user@" for the controller's own server (then set
#  GriffinCloud.key_name). `ssh` must get in without asking for anything, so a
#  gateway's host key must be known. Default: none.
#  Default: ''
# c.GriffinServerControllerLauncher.ssh_server = ''

## Seconds until the controller answers, or until all engines (or min_engines)
#  are connected. Then the start fails, and everything is deleted. Counts instead
#  of ipyparallel's Cluster.engine_timeout.
#  Default: 1200
# c.GriffinServerControllerLauncher.start_timeout = 1200

## Seconds between two polls of the running servers, one request for all of them.
#  Only the process that started them polls: nobody does after `ipcluster start
#  --daemonize`.
#  Default: 10.0
# c.GriffinServerControllerLauncher.watch_interval = 10.0

# ------------------------------------------------------------------------------
# GriffinEngineSetLauncher(EngineLauncher) configuration
# ------------------------------------------------------------------------------
## Start engines on servers, and return when the controller lists all of them.

## Seconds from ACTIVE until the first report of a server's agent: time to boot
#  and to reach the object store. After that the server is replaced.
#  Default: 300
# c.GriffinEngineSetLauncher.agent_timeout = 300

## Availability zone of these servers. Default: GriffinCloud.availability_zone.
#  Default: ''
# c.GriffinEngineSetLauncher.availability_zone = ''

## Seconds for Nova to build a server. After that the server is replaced.
#  Default: 300
# c.GriffinEngineSetLauncher.build_timeout = 300

## Seconds for an agent to find or install ipyparallel and `packages`, and to
#  reach the controller. After that the server is replaced. Increase it if pip
#  has to build packages.
#  Default: 900
# c.GriffinEngineSetLauncher.connection_timeout = 900

## Seconds without a controller after which a server whose engines have all ended
#  powers itself off. Also applies after an agent gave up, if nobody deletes its
#  server.
#  Default: 300
# c.GriffinEngineSetLauncher.controller_gone_timeout = 300

## Seconds that a server keeps trying to reach the controller's port.
#  Default: 60
# c.GriffinEngineSetLauncher.controller_timeout = 60

## Python on the servers, e.g. "/opt/conda/bin/python". Default: the first one
#  that has ipyparallel: the system's, /opt/*/bin, then the environments in the
#  homes of the usual cloud users.
#  Default: ''
# c.GriffinEngineSetLauncher.engine_python = ''

## User on the servers that engines run as; created if it does not exist. Use
#  e.g. "ubuntu" if that user owns the packages of your snapshot.
#  Default: 'ipp'
# c.GriffinEngineSetLauncher.engine_user = 'ipp'

## Engines on each server; the last server may have fewer. Default: 0, one for
#  each vCPU of the flavor.
#  Default: 0
# c.GriffinEngineSetLauncher.engines_per_server = 0

## Seconds from when a server reaches the controller until the controller lists
#  all of its engines. After that the server is replaced.
#  Default: 180
# c.GriffinEngineSetLauncher.engines_timeout = 180

## Flavor (size) of these servers: a name or an id. Default: GriffinCloud.flavor.
#  Default: ''
# c.GriffinEngineSetLauncher.flavor = ''

## Image of these servers: a name, an id, or a pattern such as "snapshot*".
#  Default: GriffinCloud.image.
#  Default: ''
# c.GriffinEngineSetLauncher.image = ''

## Key pair for ssh to these servers. Default: GriffinCloud.key_name.
#  Default: ''
# c.GriffinEngineSetLauncher.key_name = ''

## Seconds for engines to leave the controller before their servers are deleted.
#  Default: 5.0
# c.GriffinEngineSetLauncher.leave_timeout = 5.0

## Seconds between two uploads of new output from a server to the object store,
#  for `get_output` and `ipp-griffin logs`. 0: only when a process starts or
#  ends.
#  Default: 60
# c.GriffinEngineSetLauncher.log_interval = 60

## Seconds after which each server ends its processes and powers itself off,
#  whatever happened to this machine: it limits the bill. Many clouds bill
#  servers that are off until `ipp-griffin reap` deletes them. Default: 0, never.
#  Default: 0
# c.GriffinEngineSetLauncher.max_lifetime = 0

## How many failed servers may be replaced in an hour; 0: none. Default: -1, a
#  tenth of the servers, but at least 3.
#  Default: -1
# c.GriffinEngineSetLauncher.max_replacements = -1

## The quorum: a start succeeds with this many engines. The others follow in the
#  background; with `ipcluster start --daemonize`, or without shutdown_atexit,
#  the start first waits until each server has its engines or has failed.
#  Default: 0, all engines.
#  Default: 0
# c.GriffinEngineSetLauncher.min_engines = 0

## Network of these servers: a name or an id. It must have a route to the
#  controller's address and the object store. Default: GriffinCloud.network.
#  Default: ''
# c.GriffinEngineSetLauncher.network = ''

## From how many servers, at most, `get_output` fetches the engines' output and
#  the console.
#  Default: 16
# c.GriffinEngineSetLauncher.output_servers = 16

## Packages that pip installs into a new environment on each server, e.g.
#  ["numpy", "pandas>=2"]; ipyparallel is added if the image has none. A snapshot
#  that has them starts faster.
#  Default: []
# c.GriffinEngineSetLauncher.packages = []

## How many servers are created, deleted, or asked for their console at the same
#  time.
#  Default: 10
# c.GriffinEngineSetLauncher.parallel = 10

## Further arguments for pip, e.g. ["--index-url", "http://10.0.0.1/simple"].
#  Default: []
# c.GriffinEngineSetLauncher.pip_args = []

## Seconds between two polls of the servers during a start; up to five times as
#  long while nothing changes, a quarter of it for a controller's server.
#  Default: 1.0
# c.GriffinEngineSetLauncher.poll_interval = 1.0

## Show a progress bar while servers come up. Default: in a terminal or a
#  notebook; elsewhere, lines in the log.
#  Default: None
# c.GriffinEngineSetLauncher.progress = None

## Seconds that an engine keeps trying to register with the controller.
#  Default: 120
# c.GriffinEngineSetLauncher.register_timeout = 120

## Replace servers that are deleted, switched off or in ERROR while the set runs,
#  up to max_replacements. Only the process that started the set does so.
#  Default: log them, and continue without them.
#  Default: False
# c.GriffinEngineSetLauncher.replace = False

## How many crashed engines or controllers a server restarts in an hour.
#  Default: 5
# c.GriffinEngineSetLauncher.restarts = 5

## Security groups of these servers, by name or id; with
#  GriffinCloud.manage_security_group, in addition to the cluster's own. Default:
#  GriffinCloud.security_groups.
#  Default: []
# c.GriffinEngineSetLauncher.security_groups = []

## Seconds until the controller answers, or until all engines (or min_engines)
#  are connected. Then the start fails, and everything is deleted. Counts instead
#  of ipyparallel's Cluster.engine_timeout.
#  Default: 1200
# c.GriffinEngineSetLauncher.start_timeout = 1200

## Seconds between two polls of the running servers, one request for all of them.
#  Only the process that started them polls: nobody does after `ipcluster start
#  --daemonize`.
#  Default: 10.0
# c.GriffinEngineSetLauncher.watch_interval = 10.0

# ------------------------------------------------------------------------------
# Cluster (ipyparallel's own)
# ------------------------------------------------------------------------------
## Number of engines, unless -n or ipp.Cluster(n=...) gives it. None: one for each core of this machine.
# c.Cluster.n = None

## Command-line arguments of the engines, such as ["--debug"].
# c.EngineLauncher.engine_args = []

# Seconds to wait between starting the controller and the engines. None are needed: griffin's launcher returns when the controller is ready.
c.Cluster.delay = 0
