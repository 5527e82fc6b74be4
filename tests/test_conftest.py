import socket

import pytest


def test_a_connection_that_leaves_loopback_is_refused_and_noticed(escapes):
    with pytest.raises(ConnectionRefusedError, match="stay on loopback"), socket.socket() as out:
        out.connect(("192.0.2.1", 80))
    with pytest.raises(ConnectionRefusedError, match="stay on loopback"):
        socket.getaddrinfo("example.com", 443)
    assert len(escapes) == 2
    escapes.clear()


def test_loopback_may_be_reached(escapes):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    socket.getaddrinfo("localhost", 80)
    assert escapes == []
