"""Other machines come in by TLS, with a certificate they can check, and in no other way."""

import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pumasi.client.client import Client
from pumasi.client.errors import PumasiError
from pumasi.demo.server import connect, launch, stop
from tests.end_to_end.test_crashes import until

DAY = timedelta(days=1)


class Public(Client):
    """A client of the public address. `folder`: where its server and the certificate are."""

    folder: Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Public]:
    certificate, key = make_certificate(tmp_path)
    door = ["--public", "127.0.0.1:0", "--tls-certificate", str(certificate), "--tls-key", str(key)]
    process, ready = launch(tmp_path, ["--plan", "campus", "--agents", "none", *door])
    try:
        server = connect(process, ready, tmp_path / "server.log")
        found = re.search(r"Other machines reach it at (https://127.0.0.1:\d+)", (tmp_path / "server.log").read_text())
        assert found is not None
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Public(server=found[1], token=server.token) as client:
            client.folder = tmp_path
            yield client
    finally:
        stop(process)


def agent(public: Public, *arguments: str) -> list[str]:
    """The command line of an agent of a site, on another machine."""
    common = ["--server", public.connection.server, "--data", str(public.folder / "agent"), "--site", "clinic"]
    return [sys.executable, "-m", "pumasi", "agent", *arguments, *common]


def test_an_agent_joins_by_the_public_door_and_runs_a_job(public: Public) -> None:
    token = public.issue_token(kind="enrol", site="clinic")["token"]
    subprocess.run(agent(public, "enrol"), input=token, text=True, check=True, capture_output=True)
    with (public.folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(agent(public, "run"), stdout=log, stderr=log)
    try:
        job = public.submit({"name": "j", "queue": "medicine", "gpus": 8, "script": "#!/bin/sh\nexit 3\n"})
        until(lambda: public.job(job)["state"] == "failed")
        assert public.job(job)["exit_code"] == 3
    finally:
        process.terminate()
        process.wait(30)


def test_who_cannot_check_the_certificate_says_so_in_a_line(public: Public) -> None:
    environment = {**os.environ, "SSL_CERT_FILE": "", "PUMASI_TOKEN": "x"}
    command = [sys.executable, "-m", "pumasi", "--server", public.connection.server, "info"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert "certificate verify failed" in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr


def test_the_public_door_speaks_no_plain_http(public: Public) -> None:
    plain = public.connection.server.replace("https:", "http:")
    with Client(server=plain, token=public.connection.token) as client, pytest.raises(PumasiError):
        client.whoami()
