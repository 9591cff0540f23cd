"""A real nginx for tests, in front of a server: Debian's package, a process and a configuration of a test's own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.support.install import apt
from tests.support.ports import free_port, wait_for_port

_LONG_S: Final = 120.0
_CONFIG: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
{location}
        }}
    }}
}}
"""


class Nginx:
    """Listens on a port of 127.0.0.1. `location` are the directives for all paths."""

    def __init__(self, folder: Path, location: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, port=self.port, location=location))

    def __enter__(self) -> Self:
        apt("nginx-light")
        command = ["/usr/sbin/nginx", "-c", str(self._folder / "nginx.conf"), "-p", str(self._folder)]
        with (self._folder / "output.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for_port(self.port, _LONG_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
