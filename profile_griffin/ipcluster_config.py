# The settings of `ipcluster start --profile=griffin` and `ipp.Cluster(profile="griffin")`. Every value shown is the default;
# take the # away and change what you need.
#
# The launchers are named in ipcluster_config.json beside this file, not here: ipcluster goes on without a Python file that has a
# mistake in it, and would start local engines.

c = get_config()  # noqa: F821

# ------------------------------------------------------------------------------
# GriffinCloud(LoggingConfigurable) configuration
# ------------------------------------------------------------------------------
## Where the servers of a cluster are created, and from what.

## Availability zone of the servers. Default: the cloud's choice.
#  Default: ''
# c.GriffinCloud.availability_zone = ''

## File on this machine (PEM) with the CA certificates that servers need for the
#  object store's https, besides those of the image. Default: cacert of the cloud
#  in clouds.yaml, or OS_CACERT, without the public ones in it, which images
#  have.
#  Default: ''
# c.GriffinCloud.ca_certificates = ''

## Name of the cloud in clouds.yaml, e.g. "mycloud". Default: the environment
#  variable OS_CLOUD, else the other OS_* variables.
#  Default: ''
# c.GriffinCloud.cloud = ''

## First part of the name of a cluster's private container in the object store;
#  the cluster's uid follows. The container is made at the start and deleted at
#  the stop.
#  Default: 'ipp-griffin'
# c.GriffinCloud.container = 'ipp-griffin'

## Flavor (size) of the servers: a name or an id. Default: the smallest that the
#  image fits on.
#  Default: ''
# c.GriffinCloud.flavor = ''

## Image of the servers: a name, an id, or a pattern such as "snapshot*", which
#  means the latest match: the one with the highest number in its name
#  (snapshot10 beats snapshot2), else the most recently created.
#  Default: 'snapshot*'
# c.GriffinCloud.image = 'snapshot*'

## Key pair for ssh to the servers, for looking around by hand. Default: none.
#  Default: ''
# c.GriffinCloud.key_name = ''

## Make security groups for the cluster, and delete them with it. One for its
#  servers, which lets nothing in: they are in it and in those of
#  ``security_groups``, and in "default" only if that is named there. And where
#  this machine is itself a server of the project, one that it is put into
#  besides its own while the cluster lives, which lets the former in to the
#  controller's ports, and nobody else. Default: no.
#  Default: False
# c.GriffinCloud.manage_security_group = False

## Network of the servers: a name or an id. Default: the project's only network.
#  Default: ''
# c.GriffinCloud.network = ''

## Proxy that servers use towards the object store and package indexes, e.g.
#  "http://10.0.0.1:3128". Engines find it in their environment (http_proxy,
#  https_proxy; in no_proxy is the controller). It can't have a password: it
#  stands in the servers' user-data. Default: none.
#  Default: ''
# c.GriffinCloud.proxy = ''

## Region of the cloud. Default: the one that clouds.yaml or OS_REGION_NAME
#  names.
#  Default: ''
# c.GriffinCloud.region = ''

## Security groups of the servers, by name or id. Default: the project's group
#  "default". Engines only open connections, towards the controller's ports: no
#  incoming rule is needed.
#  Default: []
# c.GriffinCloud.security_groups = []

## The object store's address as servers see it, e.g.
#  "https://store.internal:8080/v1/AUTH_ab12", where that differs from the
#  address that this machine uses; or "public", "internal" or "admin": that
#  endpoint of the cloud's catalog. Default: the same address.
#  Default: ''
# c.GriffinCloud.store_url = ''

# ------------------------------------------------------------------------------
# GriffinControllerLauncher(LocalControllerLauncher) configuration
# ------------------------------------------------------------------------------
## A local ipcontroller for engines on servers: one reachable address, CurveZMQ
#  and message signing on.
#
#  Its `stop` deletes everything of the cluster, also what other processes added
#  to it.

## The address of this machine that the controller listens on and that servers
#  connect to. Default: this machine's address on GriffinCloud.network (if that
#  is not set, on whichever of the project's networks it is on), else the one it
#  uses towards the cloud.
#  Default: ''
# c.GriffinControllerLauncher.ip = ''

## The range that the controller's ports are taken from (20 for each cluster), so
#  that a firewall or security group rule can name them.
#  Default: '20000-20999'
# c.GriffinControllerLauncher.ports = '20000-20999'

# ------------------------------------------------------------------------------
# GriffinServerControllerLauncher(ControllerLauncher) configuration
# ------------------------------------------------------------------------------
## Start ipcontroller on a server, and return when this machine reaches it. Its
#  `stop` deletes everything of the cluster.
#
#  The cluster does not need this process: once started, it lives on without.

## Seconds that a server which is ACTIVE may take until its agent writes the
#  first report: the boot, and the way to the object store. One that stays silent
#  is deleted and its slot filled again.
#  Default: 300
# c.GriffinServerControllerLauncher.agent_timeout = 300

## Availability zone of these servers alone. Default:
#  GriffinCloud.availability_zone.
#  Default: ''
# c.GriffinServerControllerLauncher.availability_zone = ''

## Seconds that Nova may take to build a server. One that takes longer is deleted
#  and its slot filled again.
#  Default: 300
# c.GriffinServerControllerLauncher.build_timeout = 300

## What security groups made by GriffinCloud.manage_security_group let in to the
#  clients' ports, e.g. "203.0.113.7/32": this machine as the cloud sees it, or
#  the SSH gateway. Default: the address that this machine uses towards the
#  controller, which is not it behind a router that translates addresses; or that
#  of the gateway.
#  Default: ''
# c.GriffinServerControllerLauncher.client_address = ''

## Seconds that an agent may take to find or install what it is to run, and to
#  reach the controller. Then the server is deleted and its slot filled again.
#  Packages that pip builds on the server may need more.
#  Default: 900
# c.GriffinServerControllerLauncher.connection_timeout = 900

## Seconds without a controller after which a server that lost all its engines
#  powers itself off; the same after an agent has given up, where nobody deletes
#  its server.
#  Default: 300
# c.GriffinServerControllerLauncher.controller_gone_timeout = 300

## The Python on the server. Default: the first one with ipyparallel that is
#  found.
#  Default: ''
# c.GriffinServerControllerLauncher.controller_python = ''

## Seconds that ipcontroller may take from its start until its ports answer.
#  Default: 60
# c.GriffinServerControllerLauncher.controller_timeout = 60

## The user on the server that ipcontroller runs as; made where it does not
#  exist.
#  Default: 'ipp'
# c.GriffinServerControllerLauncher.controller_user = 'ipp'

## Flavor (size) of these servers alone: a name or an id. Default:
#  GriffinCloud.flavor.
#  Default: ''
# c.GriffinServerControllerLauncher.flavor = ''

## The floating IP by which clients reach the controller: "auto", one that is
#  allocated for the cluster and released with it; or the address of one that the
#  project has. Default: none, clients use the server's own address.
#  Default: ''
# c.GriffinServerControllerLauncher.floating_ip = ''

## The external network, by name or id, that a floating IP is allocated from.
#  Default: the only one.
#  Default: ''
# c.GriffinServerControllerLauncher.floating_ip_pool = ''

## Seconds without a task on any engine after which the engines end and the
#  controller's server powers itself off; the engines' servers do so
#  controller_gone_timeout later. More than a start takes. Many clouds bill
#  servers that are off, until `ipp-griffin reap` deletes them. Default: 0,
#  never.
#  Default: 0
# c.GriffinServerControllerLauncher.idle_timeout = 0

## Image of these servers alone: a name, an id, or a pattern such as "snapshot*".
#  Default: GriffinCloud.image.
#  Default: ''
# c.GriffinServerControllerLauncher.image = ''

## Key pair for ssh to these servers alone. Default: GriffinCloud.key_name.
#  Default: ''
# c.GriffinServerControllerLauncher.key_name = ''

## Seconds between two looks of a server at the logs of what it runs: what was
#  written since goes to the object store, for `get_output` and `ipp-griffin
#  logs`. 0: only when something starts or ends.
#  Default: 60
# c.GriffinServerControllerLauncher.log_interval = 60

## Seconds after which each server ends what it runs and powers itself off,
#  whatever became of this machine: a guard of the bill. Many clouds bill servers
#  that are off, until `ipp-griffin reap` deletes them. Default: 0, never.
#  Default: 0
# c.GriffinServerControllerLauncher.max_lifetime = 0

## How many servers that failed may be replaced in an hour. Default: -1, one in
#  ten, and at least 3. 0: none.
#  Default: -1
# c.GriffinServerControllerLauncher.max_replacements = -1

## Network of these servers alone: a name or an id. From there they must reach
#  the controller's address and the object store. Default: GriffinCloud.network.
#  Default: ''
# c.GriffinServerControllerLauncher.network = ''

## Packages to install with pip into an environment of their own on each server,
#  e.g. ["numpy", "pandas>=2"]. ipyparallel itself is installed where the image
#  has none. A snapshot with all in it starts faster.
#  Default: []
# c.GriffinServerControllerLauncher.packages = []

## More arguments for that pip, e.g. ["--index-url", "http://10.0.0.1/simple"].
#  Default: []
# c.GriffinServerControllerLauncher.pip_args = []

## Seconds between two polls of the servers of a start while something happens;
#  five times as many, at most, while nothing does. At a controller's own server
#  it is looked four times as often.
#  Default: 1.0
# c.GriffinServerControllerLauncher.poll_interval = 1.0

## The ports of its server that the controller listens on, at least 20: what
#  security groups must let in.
#  Default: '20000-20019'
# c.GriffinServerControllerLauncher.ports = '20000-20019'

## Seconds that a controller which runs may take until this machine reaches it: a
#  floating IP takes a moment.
#  Default: 60
# c.GriffinServerControllerLauncher.reach_timeout = 60

## How many crashed engines, or controllers, a server starts anew in an hour.
#  Default: 5
# c.GriffinServerControllerLauncher.restarts = 5

## Security groups of these servers alone, by name or id, in place of the
#  others'; with GriffinCloud.manage_security_group, besides the cluster's own.
#  Default: GriffinCloud.security_groups.
#  Default: []
# c.GriffinServerControllerLauncher.security_groups = []

## An SSH gateway by which clients reach the controller, "user@host" or
#  "user@host:port"; "user@": the controller's own server, at its floating IP or
#  its own address, which lets in who has the key of GriffinCloud.key_name. It
#  must let you in without a question, so its host key must be known. One `ssh`
#  then forwards the ports that clients on this machine use, until the stop.
#  Default: none.
#  Default: ''
# c.GriffinServerControllerLauncher.ssh_server = ''

## Seconds from the start until the controller answers, or until all engines, or
#  min_engines of them, are connected; then the start fails and all is deleted.
#  Servers may take minutes to boot: ipyparallel's Cluster.engine_timeout does
#  not matter here.
#  Default: 1200
# c.GriffinServerControllerLauncher.start_timeout = 1200

## Seconds between two polls of the running servers, by ONE request for all of
#  them. Only while the process lives that started them: nobody looks after
#  `ipcluster start --daemonize`.
#  Default: 10.0
# c.GriffinServerControllerLauncher.watch_interval = 10.0

# ------------------------------------------------------------------------------
# GriffinEngineSetLauncher(EngineLauncher) configuration
# ------------------------------------------------------------------------------
## Start engines on servers, and return when the controller lists all of them.

## Seconds that a server which is ACTIVE may take until its agent writes the
#  first report: the boot, and the way to the object store. One that stays silent
#  is deleted and its slot filled again.
#  Default: 300
# c.GriffinEngineSetLauncher.agent_timeout = 300

## Availability zone of these servers alone. Default:
#  GriffinCloud.availability_zone.
#  Default: ''
# c.GriffinEngineSetLauncher.availability_zone = ''

## Seconds that Nova may take to build a server. One that takes longer is deleted
#  and its slot filled again.
#  Default: 300
# c.GriffinEngineSetLauncher.build_timeout = 300

## Seconds that an agent may take to find or install what it is to run, and to
#  reach the controller. Then the server is deleted and its slot filled again.
#  Packages that pip builds on the server may need more.
#  Default: 900
# c.GriffinEngineSetLauncher.connection_timeout = 900

## Seconds without a controller after which a server that lost all its engines
#  powers itself off; the same after an agent has given up, where nobody deletes
#  its server.
#  Default: 300
# c.GriffinEngineSetLauncher.controller_gone_timeout = 300

## Seconds that a server keeps trying to reach the controller's port.
#  Default: 60
# c.GriffinEngineSetLauncher.controller_timeout = 60

## The Python on the servers, e.g. "/opt/conda/bin/python". Default: the first
#  one with ipyparallel out of the system's, /opt/*/bin, and the environments in
#  the homes of the usual cloud users.
#  Default: ''
# c.GriffinEngineSetLauncher.engine_python = ''

## The user on the servers that engines run as; it is made where it does not
#  exist. Set it to "ubuntu", say, to run as the user that owns the packages of
#  your snapshot.
#  Default: 'ipp'
# c.GriffinEngineSetLauncher.engine_user = 'ipp'

## Engines on each server; the last server may hold fewer. Default: 0, one for
#  each vCPU of the flavor.
#  Default: 0
# c.GriffinEngineSetLauncher.engines_per_server = 0

## Seconds that a server which reaches the controller may take until the
#  controller lists all of its engines. Then it is deleted and its slot filled
#  again.
#  Default: 180
# c.GriffinEngineSetLauncher.engines_timeout = 180

## Flavor (size) of these servers alone: a name or an id. Default:
#  GriffinCloud.flavor.
#  Default: ''
# c.GriffinEngineSetLauncher.flavor = ''

## Image of these servers alone: a name, an id, or a pattern such as "snapshot*".
#  Default: GriffinCloud.image.
#  Default: ''
# c.GriffinEngineSetLauncher.image = ''

## Key pair for ssh to these servers alone. Default: GriffinCloud.key_name.
#  Default: ''
# c.GriffinEngineSetLauncher.key_name = ''

## Seconds that engines get to leave the controller before their servers are
#  deleted.
#  Default: 5.0
# c.GriffinEngineSetLauncher.leave_timeout = 5.0

## Seconds between two looks of a server at the logs of what it runs: what was
#  written since goes to the object store, for `get_output` and `ipp-griffin
#  logs`. 0: only when something starts or ends.
#  Default: 60
# c.GriffinEngineSetLauncher.log_interval = 60

## Seconds after which each server ends what it runs and powers itself off,
#  whatever became of this machine: a guard of the bill. Many clouds bill servers
#  that are off, until `ipp-griffin reap` deletes them. Default: 0, never.
#  Default: 0
# c.GriffinEngineSetLauncher.max_lifetime = 0

## How many servers that failed may be replaced in an hour. Default: -1, one in
#  ten, and at least 3. 0: none.
#  Default: -1
# c.GriffinEngineSetLauncher.max_replacements = -1

## The quorum: with so many engines a start succeeds. While this process lives,
#  the rest goes on in the background; under `ipcluster start --daemonize`, and
#  without shutdown_atexit, the start returns when it is known of every server
#  whether it got its engines. Default: 0, all of them.
#  Default: 0
# c.GriffinEngineSetLauncher.min_engines = 0

## Network of these servers alone: a name or an id. From there they must reach
#  the controller's address and the object store. Default: GriffinCloud.network.
#  Default: ''
# c.GriffinEngineSetLauncher.network = ''

## From how many servers, at most, the engines' output and the console are
#  fetched for `get_output` at the end.
#  Default: 16
# c.GriffinEngineSetLauncher.output_servers = 16

## Packages to install with pip into an environment of their own on each server,
#  e.g. ["numpy", "pandas>=2"]. ipyparallel itself is installed where the image
#  has none. A snapshot with all in it starts faster.
#  Default: []
# c.GriffinEngineSetLauncher.packages = []

## Servers that are created, deleted, or asked for their consoles at the same
#  time, at most.
#  Default: 10
# c.GriffinEngineSetLauncher.parallel = 10

## More arguments for that pip, e.g. ["--index-url", "http://10.0.0.1/simple"].
#  Default: []
# c.GriffinEngineSetLauncher.pip_args = []

## Seconds between two polls of the servers of a start while something happens;
#  five times as many, at most, while nothing does. At a controller's own server
#  it is looked four times as often.
#  Default: 1.0
# c.GriffinEngineSetLauncher.poll_interval = 1.0

## Show a progress bar while servers come up. Default: where there is a terminal
#  or a notebook; else lines in the log.
#  Default: None
# c.GriffinEngineSetLauncher.progress = None

## Seconds that an engine keeps trying to register with the controller.
#  Default: 120
# c.GriffinEngineSetLauncher.register_timeout = 120

## Replace servers that are deleted, switched off or in ERROR while the set runs.
#  Only while the process lives that started them, and as often as
#  max_replacements says. Default: they are told of, and the set goes on without.
#  Default: False
# c.GriffinEngineSetLauncher.replace = False

## How many crashed engines, or controllers, a server starts anew in an hour.
#  Default: 5
# c.GriffinEngineSetLauncher.restarts = 5

## Security groups of these servers alone, by name or id, in place of the
#  others'; with GriffinCloud.manage_security_group, besides the cluster's own.
#  Default: GriffinCloud.security_groups.
#  Default: []
# c.GriffinEngineSetLauncher.security_groups = []

## Seconds from the start until the controller answers, or until all engines, or
#  min_engines of them, are connected; then the start fails and all is deleted.
#  Servers may take minutes to boot: ipyparallel's Cluster.engine_timeout does
#  not matter here.
#  Default: 1200
# c.GriffinEngineSetLauncher.start_timeout = 1200

## Seconds between two polls of the running servers, by ONE request for all of
#  them. Only while the process lives that started them: nobody looks after
#  `ipcluster start --daemonize`.
#  Default: 10.0
# c.GriffinEngineSetLauncher.watch_interval = 10.0

# ------------------------------------------------------------------------------
# Cluster (ipyparallel's own)
# ------------------------------------------------------------------------------
## Number of engines where neither -n nor ipp.Cluster(n=...) says it. None: one for each core of this machine.
# c.Cluster.n = None

## Command-line arguments of the engines, such as ["--debug"].
# c.EngineLauncher.engine_args = []

# Seconds between the controller and the engines: the griffin controller launcher returns when it is ready.
c.Cluster.delay = 0
