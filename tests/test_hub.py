"""Weights files: valid values of ``weights``, and downloads, complete or discarded."""

from __future__ import annotations

import hashlib
import re
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

CONTENT = bytes(range(256)) * 5000  # more than one chunk of a download
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:16]


class Handler(BaseHTTPRequestHandler):
    """Each path fails in its own way, except ``/whole.pth``."""

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
        """Print nothing."""


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
def test_a_complete_download_is_cached(server: str, cache: Path, name: str) -> None:
    path = weights_path("default", UrlFile(f"{server}/{name}", DIGEST))
    assert path == cache / name
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "digest", "why"),
    [
        ("truncated.pth", "", r"640000 of 1280000 bytes"),
        ("chunks.pth", "", r"IncompleteRead"),
        ("whole.pth", "0123", rf"{DIGEST}[0-9a-f]*.*0123"),
    ],
)
def test_an_incomplete_download_is_discarded_with_the_reason(
    server: str, cache: Path, name: str, digest: str, why: str
) -> None:
    file = UrlFile(f"{server}/{name}", digest)
    with pytest.raises(DataError, match=why):
        weights_path("default", file)
    assert file.cached() is None
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("revision", [None, "4f2c"])
def test_a_revision_selects_the_file_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    calls = []

    def answer(repository: str, name: str, revision: str | None = None) -> str:
        calls.append((repository, name, revision))
        return "here"

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", answer)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    file = HubFile("timm/vit", "a.safetensors", revision)
    assert file.cached() == file.fetch() == Path("here")
    assert calls == [("timm/vit", "a.safetensors", revision)] * 2
    assert file.where == "hub:timm/vit/a.safetensors" + ("@4f2c" if revision else "")


def test_a_failed_download_from_the_hub_is_a_data_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ProtocolError(Exception):
        """An error of an HTTP library that is not an OSError."""

    def break_off(*arguments: object, **options: object) -> str:
        raise ProtocolError("peer closed connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", break_off)
    with pytest.raises(DataError, match=r"timm/vit.*ProtocolError: peer closed"):
        weights_path("default", HubFile("timm/vit"))


@pytest.mark.parametrize("model", [LpipsSettings, DinoDiscriminatorConfig])
@pytest.mark.parametrize("weights", ["defualt", "lpips-vgg", "None"])
def test_other_weights_than_default_none_and_file_names_are_invalid(
    model: type, weights: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(repr(weights)) + ".*default, none"):
        model(weights=weights)


@pytest.mark.parametrize("model", [LpipsSettings, DinoDiscriminatorConfig])
@pytest.mark.parametrize("weights", ["default", "none", "a.pth", "./a", "~/w/a.safetensors"])
def test_valid_weights_are_unchanged(model: type, weights: str) -> None:
    assert model(weights=weights).weights == weights
