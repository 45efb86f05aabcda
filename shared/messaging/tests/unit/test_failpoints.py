"""Failpoints: what the environment may say, and that each point is where the list says there is one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ftgo_messaging
import pytest
from ftgo_messaging.runtime.failpoints import EXIT_CODE, POINTS, FailpointReached, parse

SOURCE = Path(ftgo_messaging.__file__).parent


def test_every_point_is_called_and_every_call_is_a_point() -> None:
    called = [name for file in SOURCE.rglob("*.py") for name in re.findall(r'\bfailpoint\("(.*?)"\)', file.read_text())]
    assert set(called) == set(POINTS)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ("relay.publish=exit", "there is no point 'relay.publish'; there are consumer.flushed, "),
        ("relay.published", "write exit, raise or pause:SECONDS"),
        ("relay.published=kill", "write exit, raise or pause:SECONDS"),
        ("relay.published=pause", "write exit, raise or pause:SECONDS"),
        ("relay.published=pause:long", "write exit, raise or pause:SECONDS"),
        ("relay.published=exit:3", "write exit, raise or pause:SECONDS"),
        ("relay.published=exit@0", "counted from 1"),
        ("relay.published=exit@x", "counted from 1"),
    ],
)
def test_a_wrong_entry_is_refused_with_a_sentence(entries: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse(entries)


def test_it_fires_at_its_time_and_only_then() -> None:
    fault = parse(" inbox.claimed=pause:0.01@2, relay.published=raise@3 ")["relay.published"]
    fault.reached()
    fault.reached()
    with pytest.raises(FailpointReached, match=r"relay\.published"):
        fault.reached()
    fault.reached()


PROGRAM = "from ftgo_messaging.runtime.failpoints import failpoint; failpoint('relay.published'); print('went on')"


@pytest.mark.parametrize(
    ("entries", "code", "out", "err"),
    [
        ("", 0, "went on\n", ""),
        ("relay.selected=exit", 0, "went on\n", ""),
        ("relay.published=exit@2", 0, "went on\n", ""),
        ("relay.published=exit", EXIT_CODE, "", "failpoint relay.published: exit\n"),
        ("relay.published=pause:0.01", 0, "went on\n", "failpoint relay.published: pause\n"),
        ("nowhere=exit", 1, "", "FTGO_FAILPOINT: there is no point 'nowhere'"),
    ],
)
def test_the_environment_decides_at_the_start(entries: str, code: int, out: str, err: str) -> None:
    environment = {**os.environ, "FTGO_FAILPOINT": entries}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err)
    assert bool(err) == bool(done.stderr)
