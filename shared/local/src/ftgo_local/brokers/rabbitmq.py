"""A real RabbitMQ, one node without plugins, and the port mapper of Erlang that it needs. All on 127.0.0.1."""

import asyncio
import os
import secrets
from functools import partial
from pathlib import Path

from ftgo_local.answering import wait_until_it_answers
from ftgo_local.brokers.rabbitmq_packages import Programs, known_version, programs
from ftgo_local.brokers.server import Server, told
from ftgo_local.child import Child
from ftgo_local.environment import server_environment
from ftgo_local.files import replace_if_different
from ftgo_local.ports import free_port
from ftgo_local.unprivileged import drop_privileges, hand_over, owned_directory

_COOKIE = ".erlang.cookie"
_CONFIG = "rabbitmq.conf"
_ADVANCED = "advanced.config"
_PLUGINS = "enabled_plugins"
_HELLO = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"

# Two schedulers that do not spin while they wait: a laptop runs much else.
_ERLANG = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"


class RabbitMQ(Server):
    """One node with its data below ``directory``. Any process of this machine may connect, as guest.

    ``kill -9`` is survived: a message is confirmed when it is written. For classic queues RabbitMQ calls fsync from
    time to time only (3.12 and later: never), so a loss of power may lose the last moments, as with our Kafka."""

    name = "rabbitmq"
    title = "RabbitMQ"
    look_every = 0.1

    def __init__(self, directory: Path, port: int, log: Path | None = None) -> None:
        super().__init__(directory, port, log)
        self.version = ""
        # Erlang's nodes find each other by it. Not the one that may run here already: its restart would be ours.
        self._mapper = Child(self.log)
        self._programs: Programs | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def helpers(self) -> list[int]:
        """Erlang's port mapper, which does not end with the node."""
        return [pid] if (pid := self._mapper.pid) else []

    def known_version(self) -> str:
        """Without fetching anything; empty when only that would tell. Raises PlatformError where it cannot be."""
        return known_version(self.directory.parent / "rabbitmq-packages")

    async def prepare(self) -> None:
        """Find RabbitMQ, or fetch its packages (34 MB), which ``start`` does otherwise. Raises PlatformError."""
        if self._programs is None:
            self._programs = await programs(self.directory.parent / "rabbitmq-packages")
            self.version = self._programs.version

    def stop(self, timeout: float = 20.0) -> None:
        super().stop(timeout)
        self._mapper.stop()

    def kill(self) -> None:
        super().kill()
        self._mapper.kill()

    async def _spawn(self) -> None:
        assert self._programs is not None  # noqa: S101 - prepare() was called
        home = (await asyncio.to_thread(self._configure)).resolve()
        environment = self._environment(home, self._programs)
        await asyncio.to_thread(self._mapper.kill)  # of a node that ended by itself
        mapper = self._programs.erlang / "bin/epmd" if self._programs.erlang else Path("epmd")
        self._mapper.spawn([str(mapper)], cwd=home, env=environment, **drop_privileges())
        there = partial(_listens, int(environment["ERL_EPMD_PORT"]))
        await wait_until_it_answers("Erlang's port mapper", self._mapper, there, 20.0, every=0.02)
        self._child.spawn([str(self._programs.server)], cwd=home, env=environment, **drop_privileges())

    def _configure(self) -> Path:
        home = owned_directory(self.directory)
        files = {
            _CONFIG: f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console.level = warning\n",
            _ADVANCED: "[].\n",
            _PLUGINS: "[].\n",
        }
        for name, content in files.items():
            replace_if_different(home / name, content)
        if not (home / _COOKIE).exists():
            # Whoever knows it may do everything. Erlang's own is made from the time and a weak generator.
            replace_if_different(home / _COOKIE, secrets.token_hex(20))
        (home / _COOKIE).chmod(0o400)
        hand_over(*(home / name for name in (*files, _COOKIE)))
        return home

    def _environment(self, home: Path, found: Programs) -> dict[str, str]:
        """Everything is said: RabbitMQ would take the rest from folders of the system."""
        environment = {
            **server_environment(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            # The script becomes the server: otherwise a kill of its pid would leave that running.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": "ftgo@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(home / _CONFIG),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / _ADVANCED),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / _PLUGINS),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        }
        if found.erlang:
            environment["ERL_ROOTDIR"] = str(found.erlang)
            environment["PATH"] = f"{found.erlang / 'bin'}{os.pathsep}{environment['PATH']}"
        return environment

    async def _answers(self) -> bool:
        """Whether it greets a client: it listens when all else is done."""
        return (await told(self.port, _HELLO, 1)) == _METHOD_FRAME


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
