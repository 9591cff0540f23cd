"""The channel server as a process: ready line, signals, ports, its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.embedded.channel_server.peer import Peer
from tests.support.hub import HubProcess
from tests.support.ports import free_port, wait_for_port
from tests.support.present import present

COMMAND = [sys.executable, "-m", "infertool.embedded.channel_server"]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_sockets_as_phoenix_does(sig: signal.Signals) -> None:
    with HubProcess() as hub:
        joined, idle = Peer(hub.port), Peer(hub.port)
        joined.join("public:results")
        os.kill(hub.pid, sig)
        assert joined.hear_close() == 1012
        assert idle.hear_close() == 1000
        joined.close()
        idle.close()
        assert hub.wait() == 0


def test_a_stop_does_not_wait_for_clients_that_do_not_answer() -> None:
    with HubProcess() as hub:
        silent = Peer(hub.port)
        assert hub.stop() == 0
        silent.close()


def test_a_kill_ends_sockets_without_a_close_frame() -> None:
    hub = HubProcess().start()
    peer = Peer(hub.port)
    assert hub.kill() == -signal.SIGKILL
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.read_frame()
    peer.close()


def test_a_restart_takes_the_same_port() -> None:
    hub = HubProcess().start()
    port = hub.port
    peer = Peer(port)
    hub.stop()
    assert hub.start().port == port
    hub.stop()
    peer.close()


def test_a_taken_port_is_one_clear_line_and_exit_code_3() -> None:
    with HubProcess() as hub:
        second = subprocess.run([*COMMAND, "--port", str(hub.port)], capture_output=True, text=True, timeout=60)
    assert second.returncode == 3
    assert second.stdout == ""
    assert second.stderr.splitlines() == [
        f"hub: cannot listen on 127.0.0.1:{hub.port}: Address already in use; choose another address or port"
    ]


def test_an_unknown_host_is_one_clear_line() -> None:
    command = [*COMMAND, "--host", "no-such-host.invalid", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert done.stderr.startswith("hub: cannot listen on no-such-host.invalid:0: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_what_is_no_port_is_a_usage_error(port: str) -> None:
    assert subprocess.run([*COMMAND, f"--port={port}"], capture_output=True, timeout=60).returncode == 2


def test_the_ready_line_is_all_of_stdout() -> None:
    port = free_port()
    command = [*COMMAND, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_port(port, 120)
        process.terminate()
        out, err = process.communicate(timeout=120)
    assert json.loads(out) == {"port": port}
    assert (err, process.returncode) == ("", 0)


def test_it_ends_with_its_parent() -> None:
    parent = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'infertool.embedded.channel_server', '--port', '0', '--die-with-parent']\n"
        "hub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "hub.stdout.readline()\n"
        "print(hub.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        hub = psutil.Process(int(present(process.stdout).readline()))
        process.kill()
        hub.wait(120)
    assert not hub.is_running()


def test_without_the_flag_it_does_not_read_standard_input() -> None:
    with subprocess.Popen([*COMMAND, "--port", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        port = json.loads(present(process.stdout).readline())["port"]
        Peer(port).close()
        process.terminate()
        assert process.wait(120) == 0
