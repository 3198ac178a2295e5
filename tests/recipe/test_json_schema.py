"""The JSON schema of recipes says what the loader says, as far as single values go."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pae_framework.config import RegularizerConfig, Settings
from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe import library
from pae_framework.recipe.json_schema import recipe_schema
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.nodes import COMMAND_LINE
from pae_framework.recipe.yaml_source import parse, read_file
from pae_framework.registry import ComponentSpec, Plugin
from pae_framework.testing.pytest import Pae

jsonschema = pytest.importorskip("jsonschema")

REGISTRY = load_registry()
SCHEMA = recipe_schema(REGISTRY)
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
SHIPPED = [path for _, path, _ in library.shipped()]


def problems(recipe: Any) -> list[str]:
    """Key paths of the values that the schema rejects; of alternatives, of the likeliest."""
    best = jsonschema.exceptions.best_match(VALIDATOR.iter_errors(recipe))
    return [] if best is None else [".".join(map(str, best.absolute_path))]


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_as_written_and_with_every_value(path: Path) -> None:
    assert problems(read_file(path)[0].plain()) == []
    assert problems(load_recipe(path, (), REGISTRY).resolved()) == []


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("sed=1", ""),
        ("seed=one", "seed"),
        ("seed=-1", "seed"),
        ("data.image_size=0", "data.image_size"),
        ("data.train.use=digit", "data.train"),
        ("data.train.splitt=train", "data.train"),
        ("data.train.split=trian", "data.train.split"),
        ("tokenizer.train.steps=many", "tokenizer.train.steps"),
        ("tokenizer.encoder.deph=2", "tokenizer.encoder"),
        ("tokenizer.encoder.depth=two", "tokenizer.encoder.depth"),
        ("tokenizer.encoder.train.lr=fast", "tokenizer.encoder"),
        ("tokenizer.regularizers.ssr.weigth=1", "tokenizer.regularizers.ssr"),
        ("tokenizer.regularizers.ssr.weight=-1", "tokenizer.regularizers.ssr.weight"),
        ("tokenizer.regularizers.mine.use=sssr", "tokenizer.regularizers.mine"),
        ("evaluate.manifold.images=0", "evaluate.manifold.images"),
        ("generator.objective.pth=linear", "generator"),
    ],
)
def test_what_it_rejects_the_loader_rejects(override: str, path: str) -> None:
    recipe = library.find("quickstart")
    with pytest.raises(RecipeError):
        load_recipe(recipe, [override], REGISTRY)
    (rejected,) = problems(changed(read_file(recipe)[0].plain(), override))
    assert rejected.startswith(path)


@pytest.mark.parametrize(
    "override",
    [
        "extractor=null",
        "tokenizer.regularizers.mcr=null",
        "tokenizer.regularizers.mine={use: kl, weight: 0.1}",
        "tokenizer.regularizers.mcr.weight={to: 0.1, epochs: 1}",
        "tokenizer.modulator=none",
        "tokenizer.encoder.use=pae-framework/tiny_vit",
        "launch=big",
        "launch={nodes: 2, time: 90}",
        "launch={nodes: 2, time: '1-00:00:00', stages: {generator: {nodes: 4}}}",
        "extends=quickstart",
        "extends=[quickstart, other.yaml]",
    ],
)
def test_other_ways_to_write_a_value_are_valid(override: str) -> None:
    assert problems(changed(read_file(library.find("quickstart"))[0].plain(), override)) == []


def test_a_recipe_that_only_changes_its_parent_is_valid() -> None:
    assert problems({"extends": "quickstart", "tokenizer": {"encoder": {"depth": 3}}}) == []


def changed(recipe: dict[str, Any], override: str) -> dict[str, Any]:
    key_path, _, text = override.partition("=")
    *parents, key = key_path.split(".")
    place = recipe
    for parent in parents:
        place[parent] = {**(place.get(parent) or {})}
        place = place[parent]
    node, _ = parse(text, position=lambda line, column: COMMAND_LINE)
    assert node is not None
    place[key] = node.plain()
    return recipe


class Guidance(Settings):
    """Has the name of a class of the engine."""

    own: int = 1


class WithGuidance(RegularizerConfig):
    guidance: Guidance | None = None


class Untypical(RegularizerConfig):
    call: Callable[[], int] = lambda: 1


def test_components_of_plugins_do_not_disturb_the_rest() -> None:
    registry, plugin = load_registry(), Plugin("acme", __name__, "acme", "1")
    for name, config in (
        ("own", f"{__name__}:WithGuidance"),
        ("missing", f"{__name__}:NoConfig"),
        ("untypical", f"{__name__}:Untypical"),
    ):
        registry.add(ComponentSpec("regularizer", name, "no:Term", config, "a term", plugin))
    schema = recipe_schema(registry)
    jsonschema.Draft7Validator.check_schema(schema)
    definitions = schema["definitions"]
    assert definitions["Guidance"] == SCHEMA["definitions"]["Guidance"]
    references = set(re.findall(r'"#/definitions/([^"]+)"', json.dumps(schema)))
    assert references <= definitions.keys()
    assert "regularizer.own" in references
    assert not {"regularizer.missing", "regularizer.untypical"} & references
    own = {"tokenizer": {"regularizers": {"own": {"guidance": {"own": 2}}}}}
    validator = jsonschema.Draft7Validator(schema)
    assert validator.is_valid(own)
    own["tokenizer"]["regularizers"]["own"]["guidance"] = {"scale": 2.0}
    assert not validator.is_valid(own)


def test_the_command_prints_or_writes_it(pae: Pae) -> None:
    printed = pae("schema").ok()
    assert printed.json == SCHEMA
    told = pae("schema", "--out", "recipe.schema.json").ok()
    assert told.out == ""
    assert "# yaml-language-server: $schema=recipe.schema.json" in told.err
    assert json.loads(Path("recipe.schema.json").read_text()) == SCHEMA
    assert "--force" in pae("schema", "--out", "recipe.schema.json").fails(2).err
    pae("schema", "--out", "recipe.schema.json", "--force").ok()


def test_copies_of_recipes_do_not_name_a_schema_that_is_not_beside_them(pae: Pae) -> None:
    named = f"{library.MODELINE}../docs/recipe.schema.json\n"
    Path("mine.yaml").write_text(f"# mine\n{named}pae: 1\n")
    pae("copy", "mine.yaml", "other.yaml").ok()
    assert Path("other.yaml").read_text() == "# mine\npae: 1\n"


# --- in an editor ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that editors ask about YAML files."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("server")
    subprocess.run(["npm", "install", "--silent", "yaml-language-server"], cwd=folder, check=True)
    return folder / "node_modules" / ".bin" / "yaml-language-server"


class Editor:
    """Speaks the language server protocol."""

    def __init__(self, server: Path):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([server, "--stdio"], stdin=pipe, stdout=pipe)
        self._send(1, "initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self._answer(1)
        self._send(None, "initialized", {})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, path: Path) -> list[dict[str, Any]]:
        """The problems that the editor marks in a file."""
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1}
        text = {**document, "text": path.read_text()}
        self._send(None, "textDocument/didOpen", {"textDocument": text})
        while (message := self._read()).get("method") != "textDocument/publishDiagnostics":
            self._reply(message)
        found: list[dict[str, Any]] = message["params"]["diagnostics"]
        return found

    def keys(self, path: Path, line: int, character: int) -> set[str]:
        """The keys that the editor offers."""
        place = {"position": {"line": line, "character": character}}
        place |= {"textDocument": {"uri": path.as_uri()}}
        self._send(2, "textDocument/completion", place)
        answer = self._answer(2)["result"]
        items = answer["items"] if isinstance(answer, dict) else answer
        return {item["label"] for item in items}

    def _send(self, number: int | None, method: str, params: Any) -> None:
        identity = {} if number is None else {"id": number}
        self._write({"jsonrpc": "2.0", **identity, "method": method, "params": params})

    def _reply(self, message: dict[str, Any]) -> None:
        """Answer a request of the server for settings: there are none."""
        if "id" in message and "method" in message:
            items = message.get("params", {}).get("items", [])
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": [None] * len(items)})

    def _answer(self, number: int) -> dict[str, Any]:
        while (message := self._read()).get("id") != number or "method" in message:
            self._reply(message)
        return message

    def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while (line := self._process.stdout.readline().strip()) or not length:
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        return message


@pytest.fixture
def editor(server: Path) -> Iterator[Editor]:
    editor = Editor(server)
    yield editor
    editor.close()


@pytest.mark.network
@pytest.mark.slow
def test_an_editor_marks_errors_and_offers_keys(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "recipe.schema.json").write_text(json.dumps(SCHEMA))
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    text = library.find("quickstart").read_text()
    good.write_text(f"{library.MODELINE}recipe.schema.json\n{text}")
    bad.write_text(
        f"{library.MODELINE}recipe.schema.json\nextends: quickstart\ntokenizer:\n"
        "  encoder:\n    use: tiny_vit\n    deph: 2\n    \n"
    )
    assert editor.open(good) == []
    (marked,) = editor.open(bad)
    assert marked["range"]["start"]["line"] == 5
    assert {"depth", "heads", "train"} <= editor.keys(bad, 6, 4)
