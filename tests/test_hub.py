"""Files of weights: what a recipe may name, and downloads that are whole or not there at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from pydantic import ValidationError

from pae_discriminators.config import DinoDiscriminatorConfig
from pae_framework.errors import DataError
from pae_framework.hub import HubFile, UrlFile, weights_path
from pae_framework.tokenizer.tokenizer_settings import LpipsSettings

CONTENT = bytes(range(256)) * 5000  # more than one piece of a download
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:16]


class Handler(BaseHTTPRequestHandler):
    """Each path breaks off in its own way; ``/whole.pth`` does not."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        half = CONTENT[: len(CONTENT) // 2]
        self.close_connection = True
        self.send_response(200)
        if self.path == "/chunks.pth":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT) + half)
            return
        if self.path != "/unstated.pth":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(half if self.path == "/truncated.pth" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine that may use the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("HF_HUB_OFFLINE", "PAE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    "name", ["whole.pth", "unstated.pth"], ids=["length stated", "length unknown"]
)
def test_a_whole_download_lies_in_the_cache(server: str, cache: Path, name: str) -> None:
    path = weights_path("default", UrlFile(f"{server}/{name}", DIGEST))
    assert path == cache / name
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "digest", "why"),
    [
        ("truncated.pth", "", r"ended after 640000 of 1280000 bytes"),
        ("chunks.pth", "", r"IncompleteRead"),
        ("whole.pth", "0123", rf"its SHA-256 is {DIGEST}[0-9a-f]*, not 0123"),
    ],
)
def test_what_is_not_the_whole_file_is_thrown_away_and_the_reason_said(
    server: str, cache: Path, name: str, digest: str, why: str
) -> None:
    file = UrlFile(f"{server}/{name}", digest)
    with pytest.raises(DataError, match=why):
        weights_path("default", file)
    assert file.cached() is None
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("revision", [None, "4f2c"])
def test_a_file_of_the_hub_is_that_of_its_revision(
    monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    asked = []

    def answer(repository: str, name: str, revision: str | None = None) -> str:
        asked.append((repository, name, revision))
        return "here"

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", answer)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    file = HubFile("timm/vit", "a.safetensors", revision)
    assert file.cached() == file.fetch() == Path("here")
    assert asked == [("timm/vit", "a.safetensors", revision)] * 2
    assert file.where == "hub:timm/vit/a.safetensors" + ("@4f2c" if revision else "")


def test_a_download_of_the_hub_that_breaks_off_is_an_error_of_the_data(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ProtocolError(Exception):
        """As libraries raise that know no OSError."""

    def break_off(*arguments: object, **options: object) -> str:
        raise ProtocolError("peer closed connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", break_off)
    with pytest.raises(DataError, match=r"cannot be downloaded.*ProtocolError: peer closed"):
        weights_path("default", HubFile("timm/vit"))


@pytest.mark.parametrize("model", [LpipsSettings, DinoDiscriminatorConfig])
@pytest.mark.parametrize("weights", ["defualt", "lpips-vgg", "None", ""])
def test_weights_are_default_none_or_the_name_of_a_file(model: type, weights: str) -> None:
    with pytest.raises(ValidationError, match=r"unknown weights .* default, none or a file name"):
        model(weights=weights)


@pytest.mark.parametrize("model", [LpipsSettings, DinoDiscriminatorConfig])
@pytest.mark.parametrize("weights", ["default", "none", "a.pth", "./a", "~/w/a.safetensors"])
def test_weights_that_mean_something_stay_as_they_are(model: type, weights: str) -> None:
    assert model(weights=weights).weights == weights
