"""Unix sockets: their mode, and whose they are."""

import stat

from support.api import Client
from support.process import run


def test_the_mode_is_applied_and_the_socket_goes_with_the_process(serve, directory):
    path = directory / "s.sock"
    sidecar = serve(listen=[f"unix://{path}?mode=0660"])
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with Client(f"unix:{path}") as client:
        client.create()
    assert sidecar.stop() == 0
    assert not path.exists()


def test_a_stale_socket_is_replaced(serve, directory):
    path = directory / "s.sock"
    crashed = serve(listen=[f"unix://{path}"])
    crashed.process.kill()
    crashed.wait()
    assert path.exists(), "this test needs the socket that a killed process leaves"
    serve(listen=[f"unix://{path}"])
    with Client(f"unix:{path}") as client:
        client.create()


def test_a_live_socket_is_not_stolen(serve, directory, binary):
    path = directory / "s.sock"
    serve(listen=[f"unix://{path}"])
    second = run(binary, "serve", "--admin-listen", "off", "--listen", f"unix://{path}")
    assert second.returncode != 0
    assert str(path) in second.stderr
    with Client(f"unix:{path}") as client:
        client.create()


def test_a_file_that_is_no_socket_is_left_alone(directory, binary):
    path = directory / "precious.txt"
    path.write_text("data")
    refused = run(binary, "serve", "--admin-listen", "off", "--listen", f"unix://{path}")
    assert refused.returncode != 0
    assert str(path) in refused.stderr
    assert path.read_text() == "data"
