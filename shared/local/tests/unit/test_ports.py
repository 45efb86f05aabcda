import socket

import pytest
from ftgo_local.errors import PlatformError
from ftgo_local.ports import chosen_ports, free_port, is_free, taken_port


def test_the_environment_and_the_offset_choose() -> None:
    ports = chosen_ports(100, {"FTGO_ORDER_PORT": "9000"})
    assert ports["order"] == 9100
    assert ports["consumer"] == 8181


@pytest.mark.parametrize("text", ["0", "70000", "http", "-1", ""])
def test_what_is_no_port_is_refused_with_the_name_of_the_variable(text: str) -> None:
    with pytest.raises(PlatformError, match="FTGO_KAFKA_PORT"):
        chosen_ports(0, {"FTGO_KAFKA_PORT": text})


def test_one_port_for_two_is_refused() -> None:
    with pytest.raises(PlatformError, match="FTGO_CONSUMER_PORT, FTGO_ORDER_PORT are the same"):
        chosen_ports(0, {"FTGO_CONSUMER_PORT": "8082"})


def test_a_port_in_use_is_told_with_its_user_and_a_cure() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        error = taken_port({"order": port})
        assert error is not None
        assert f"Port {port} (order) is used by" in error.cause
        assert "FTGO_ORDER_PORT" in error.cure
    assert is_free(port)
    assert taken_port({"order": free_port()}) is None


def test_a_port_for_a_server_is_none_that_a_connection_may_get() -> None:
    """Otherwise a client that comes in between has it when the server wants to listen there."""
    ports = [free_port() for _ in range(200)]
    assert max(ports) < 32768  # Linux gives those from here on to connections, unless it was told otherwise
    assert len(set(ports)) == len(ports)
