import subprocess
import sys

CODE = """
import logging, sys
import structlog
from ftgo_service_kit.logging import configure_logging
configure_logging("order", "json")
for number in range(3):
    structlog.get_logger().info("event", number=number)
    logging.getLogger("library").warning("trouble")
sys.stderr.write("all is said")
"""


def test_a_full_disk_below_the_log_takes_lines_and_nothing_else() -> None:
    """/dev/full says to every write what a full disk says."""
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-u", "-c", CODE]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "all is said")


def test_lines_are_written() -> None:
    done = subprocess.run([sys.executable, "-u", "-c", CODE], check=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 6
    assert '"number": 2' in done.stdout
