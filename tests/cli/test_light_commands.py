"""Commands that need no torch: what they print, where, and how they exit."""

from __future__ import annotations

import io
import os
import re
import signal
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from rich.text import Text
from typer.main import get_command

from pae_framework import __version__
from pae_framework.cli import extraction
from pae_framework.cli.app import OTHER_WORDS, app
from pae_framework.cli.output import progress_console
from pae_framework.errors import EXIT_CODES, PaeError, StoppedError
from pae_framework.flow.flow_settings import SolverName
from pae_framework.launch import evaluate_run, start
from pae_framework.recipe import load
from pae_framework.recipe.library import MODELINE, folder
from pae_framework.recipe.load import load_recipe
from pae_framework.runs import opened
from pae_framework.runs.plan import plan
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole, PlainTable
from pae_framework.system.stopping import STOP_SIGNALS, StopRequest
from pae_framework.testing.pytest import Pae, Result
from pae_framework.training.progress import ProgressLine


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the import path whose plugin does not load."""
    site = tmp_path / "site"
    info = site / "acme_bad-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "acme_bad.py").write_text("raise RuntimeError('no license')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pae_framework]\nacme = acme_bad\n")
    monkeypatch.syspath_prepend(str(site))


# --- check ----------------------------------------------------------------------------------------


def test_check_says_that_a_recipe_is_valid(pae: Pae) -> None:
    answer = pae("check", "quickstart")
    assert (answer.code, answer.err) == (0, "")
    first, train, test = answer.out.splitlines()
    assert first == "quickstart: valid"
    assert "1,442 images, 10 classes" in train
    assert "355 images, 10 classes" in test


def test_check_of_a_sweep_says_how_many_members_it_has(pae: Pae, tmp_path: Path) -> None:
    variants = "{plain: {}, wide: {generator.width: 48}, deep: {tokenizer.decoder.depth: 2}}"
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(
        f"pae: 1\nextends: quickstart\nname: wide\nsweep: {{variants: {variants}}}\n",
        encoding="utf-8",
    )
    # Extractor, encoder and refinement are of all three members, tokenizer and latents of two.
    # Each has four stages of its own, and the last also a tokenizer and latents.
    assert pae("check", str(recipe), "--json").ok().json["sweep"] == {
        "members": 3,
        "stages": 5 + 3 * 4 + 2,
        "shared": 5,
    }
    assert "3 members, 19 stages, 5 of them shared" in pae("check", str(recipe)).ok().out


def test_check_lists_missing_data_and_exits_0(pae: Pae) -> None:
    overrides = ["data.train={use: image_folder, folder: nowhere}", "evaluate.manifold.ssc=false"]
    answer = pae("check", "quickstart", *overrides)
    assert answer.code == 0
    first, needed, found = answer.out.splitlines()
    assert first == "quickstart: valid; to run it here you still need:"
    assert needed.startswith("  command line: data.train: ")
    assert "nowhere" in needed
    assert "test: 355 images" in found
    (missing,) = pae("check", "quickstart", *overrides, "--json").json["missing"]
    assert (missing["path"], missing["where"]) == ("data.train", "command line")


def test_check_reports_every_problem_on_stderr_and_exits_2(pae: Pae) -> None:
    Path("mine.yaml").write_text("extends: quickstart\nname: mine\nsed: 3\ndata: {flip: x}\n")
    answer = pae("check", "mine.yaml", "seed=-1")
    assert (answer.code, answer.out) == (2, "")
    heading, *problems = answer.err.splitlines()
    assert heading == "error: 3 problems with the recipe"
    assert problems == [
        "  command line: seed: expected 0 or more, found -1",
        "  mine.yaml:4:14: data.flip: expected true or false, found 'x'",
        "  mine.yaml:3:1: sed: unknown key; did you mean 'seed'?",
    ]


def test_check_compares_the_number_of_classes(pae: Pae) -> None:
    assert pae("check", "quickstart", "generator.classes=10").out.startswith("quickstart: valid\n")
    answer = pae("check", "quickstart", "generator.classes=1000")
    assert (answer.code, answer.out) == (2, "")
    assert re.search(r"generator\b.*\b1000\b.*data\.train.*\b10\b", answer.err)


def test_check_lists_the_known_models(pae: Pae) -> None:
    answer = pae("check", "dinov2_full", "tokenizer.encoder.model=foo")
    assert re.search(r"dinov2.*'foo'.*vit_", answer.err)


def test_run_does_not_require_inputs_of_finished_stages(pae: Pae) -> None:
    nowhere = "{use: image_folder, folder: nowhere, images: 9, classes: 3}"
    changes = (f"data.train={nowhere}", f"data.test={nowhere}", "evaluate=null")
    loaded = load_recipe("quickstart", changes)
    answer = pae("run", "quickstart", *changes).fails(2)
    assert answer.err.count("no such folder: nowhere") == 2
    for stage in plan(loaded.recipe, loaded.registry):
        folder = Path("stages", stage.folder)
        folder.mkdir(parents=True)
        StageRecord(folder).update(state="done", results={})
    answer = pae("run", "quickstart", *changes, "--stages", "stages")
    assert answer.code == 0
    assert answer.err.count("cached") == len(plan(loaded.recipe, loaded.registry))


def test_check_as_json_prints_nothing_but_json(pae: Pae) -> None:
    answer = pae("check", "quickstart", "--json").json
    digits = [str(digit) for digit in range(10)]
    assert answer.pop("images") == [
        {"split": "train", "images": 1442, "classes": digits},
        {"split": "test", "images": 355, "classes": digits},
    ]
    assert (answer.pop("schema"), answer.pop("valid")) == ("check/1", True)
    assert answer == {key: [] for key in ("problems", "missing", "tight", "doubtful")}
    answer = pae("check", "quickstart", "sed=3", "--json")
    assert (answer.code, answer.err) == (2, "")
    assert answer.json == {
        "schema": "check/1",
        "valid": False,
        "problems": [
            {
                "message": "unknown key",
                "path": "sed",
                "where": "command line",
                "hint": "did you mean 'seed'?",
                "place": None,
            }
        ],
        "missing": [],
        "tight": [],
    }


def test_problems_in_a_file_have_a_place(pae: Pae) -> None:
    Path("mine.yaml").write_text("extends: quickstart\nname: mine\nsed: 3\n")
    (problem,) = pae("check", "mine.yaml", "--json").json["problems"]
    assert problem["place"] == {"file": str(Path("mine.yaml").absolute()), "line": 3, "column": 1}


@pytest.mark.parametrize(
    "words",
    [
        ("check", "quickstart"),
        ("doctor",),
        ("fetch", "quickstart", "--dry-run"),
        ("list-plugins",),
        ("list-recipes",),
        ("profiles",),
        ("profiles", "local"),
        ("run", "quickstart", "--dry-run"),
        ("show-plugin", "encoder:tiny_vit"),
    ],
    ids=" ".join,
)
def test_every_json_document_names_its_schema(pae: Pae, words: tuple[str, ...]) -> None:
    document = pae(*words, "--json").json
    assert document["schema"] == f"{words[0]}/1"


def test_every_option_for_json_keeps_other_text_from_standard_output() -> None:
    def options(command: Any) -> list[Any]:
        nested = [x for each in getattr(command, "commands", {}).values() for x in options(each)]
        return [*(x for x in command.params if "--json" in x.opts), *nested]

    found = options(get_command(app))
    assert len(found) > 10
    assert all(option.is_eager for option in found)
    assert len({option.callback.__wrapped__ for option in found}) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", r"mine\.yaml:1:1: .*empty"),
        ("a: [", r"mine\.yaml:1:5: .*YAML"),
        ("- 1", r"mine\.yaml:1:1: .*`key: value`.* list"),
        ("extends: quickstart\nname: a\nname: b", r"mine\.yaml:3:1: name: "),
        (
            "extends: quickstart\ntokenizer: {encoder: tiny_vti}",
            r"tokenizer\.encoder\.use: .*'tiny_vti'.*'tiny_vit'",
        ),
        (
            "extends: quickstart\ntokenizer: {decoder: {patch: 8}}",
            r"mine\.yaml:2:13: tokenizer\.decoder: .*64 px.*data\.image_size.* 32",
        ),
        ("pae: 1\nname: a", r"mine\.yaml:1:1: data: missing"),
    ],
)
def test_bad_input_is_one_clear_message_and_nothing_is_written(
    pae: Pae, content: str, expected: str
) -> None:
    Path("mine.yaml").write_text(content)
    answer = pae("check", "mine.yaml")
    assert (answer.code, answer.out) == (2, "")
    assert re.search(expected, answer.err)
    assert "Traceback" not in answer.err
    assert [path.name for path in Path().iterdir()] == ["mine.yaml"]


def test_unknown_recipe_gets_a_suggestion(pae: Pae) -> None:
    answer = pae("check", "quikstart")
    assert answer == Result(
        2,
        "",
        "error: no recipe 'quikstart': neither a file nor a shipped recipe "
        "(did you mean 'quickstart'?)\n",
    )


# --- show -----------------------------------------------------------------------------------------


def test_show_prints_a_recipe_that_loads_to_the_same(pae: Pae) -> None:
    answer = pae("show", "quickstart", "seed=4")
    Path("shown.yaml").write_text(answer.out)
    assert load_recipe("shown.yaml").recipe == load_recipe("quickstart", ["seed=4"]).recipe


def test_show_with_origins_is_the_same_recipe_with_comments(pae: Pae) -> None:
    plain = pae("show", "quickstart", "seed=4").out
    with_origins = pae("show", "quickstart", "seed=4", "--origin").out
    assert yaml.safe_load(with_origins) == yaml.safe_load(plain)
    comments = {
        line.split(":")[0].strip(): line.rpartition("# ")[2]
        for line in with_origins.splitlines()
        if not line.startswith(" ") and "# " in line
    }
    assert comments["seed"] == "command line"
    assert comments["description"].startswith(f"{folder() / 'quickstart.yaml'}:")
    assert comments["sweep"] == "default"


# --- recipes --------------------------------------------------------------------------------------


def test_list_recipes_names_and_describes_them(pae: Pae) -> None:
    listed = pae("list-recipes", "--json").json["recipes"]
    names = [entry["name"] for entry in listed]
    assert {"quickstart", "siglip2_full"} <= set(names)
    assert all(Path(entry["path"]).is_file() and entry["description"] for entry in listed)
    out = pae("list-recipes").out
    assert all(entry["name"] in out and entry["description"] in out for entry in listed)


def test_copy_writes_the_recipe_and_never_overwrites(pae: Pae) -> None:
    shipped = (folder() / "quickstart.yaml").read_text().splitlines(keepends=True)
    original = "".join(line for line in shipped if not line.startswith(MODELINE))
    pae("copy", "quickstart").ok()
    assert Path("quickstart.yaml").read_text() == original

    Path("quickstart.yaml").write_text("mine")
    refused = pae("copy", f"{folder() / 'quickstart.yaml'}")
    assert (refused.code, refused.out) == (2, "")
    assert re.fullmatch(r"error: quickstart\.yaml exists.*--force\n", refused.err)
    assert Path("quickstart.yaml").read_text() == "mine"

    pae("copy", f"{folder() / 'quickstart.yaml'}", "--force").ok()
    assert Path("quickstart.yaml").read_text() == original


def test_copy_writes_to_its_destination(pae: Pae) -> None:
    Path("folder").mkdir()
    pae("copy", "quickstart", "folder").ok()
    pae("copy", "quickstart", "other.yaml").ok()
    as_other = Path("folder/quickstart.yaml").read_text().replace("name: quickstart", "name: other")
    assert as_other == Path("other.yaml").read_text()
    assert pae("copy", "quickstart", "absent/a.yaml").err == "error: there is no folder absent\n"
    itself = pae("copy", "other.yaml", "other.yaml", "--force")
    assert (itself.code, "other.yaml" in itself.err) == (2, True)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mine.yaml", "mine"),
        ("my clip art.yaml", "my-clip-art"),
        ("a.b_c-1.yaml", "a.b_c-1"),
        *((f"{name}.yaml", name) for name in ("2025", "1e3", "0x1F", "1.5", "null", "True", "no")),
    ],
)
def test_a_copy_is_named_after_its_file_and_valid(pae: Pae, file: str, name: str) -> None:
    pae("copy", "quickstart", file).ok()
    assert load_recipe(file).recipe.name == name
    assert load_recipe(file).text.count("name:") == load_recipe("quickstart").text.count("name:")


def test_a_file_whose_name_names_no_run_is_refused(pae: Pae) -> None:
    assert "...yaml" in pae("copy", "quickstart", "...yaml").fails(2).err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("word", sorted(OTHER_WORDS))
def test_a_word_of_another_program_is_answered_with_our_command(pae: Pae, word: str) -> None:
    err = pae(word, "something").fails(2).err
    assert "`pae " in err


# --- plugins --------------------------------------------------------------------------------------


def test_list_plugins_names_kind_origin_and_state(pae: Pae) -> None:
    answer = pae("list-plugins", "--json").json
    (dam,) = [entry for entry in answer["components"] if entry["name"] == "dam"]
    assert dam["kind"] == "modulator"
    assert dam["distribution"] == "pae-framework"
    assert dam["version"] == __version__
    lines = pae("list-plugins", "encoder").out.splitlines()
    assert {line.split()[0] for line in lines[1:] if line.strip()} == {"encoder"}


def test_list_plugins_of_an_unknown_kind_lists_the_kinds(pae: Pae) -> None:
    answer = pae("list-plugins", "encoders")
    assert answer.code == 2
    assert re.search(r"'encoders'.*dataset, tokenizer, encoder,", answer.err)


def test_list_plugins_takes_the_kind_as_argument_or_option(pae: Pae) -> None:
    listed = pae("list-plugins", "encoder").out
    assert pae("list-plugins", "--kind", "encoder").out == listed
    assert pae("list-plugins", "encoder", "--kind", "encoder").out == listed
    assert pae("list-plugins", "encoder", "--kind", "decoder").code == 2


def test_list_plugins_gives_origin_and_state_only_if_asked(pae: Pae) -> None:
    short, long = (pae("list-plugins", "bottleneck", *more).out for more in ([], ["--long"]))
    assert short.split()[:3] == ["kind", "name", "summary"]
    (row,) = [line for line in long.splitlines() if line.split()[1:2] == ["sphere"]]
    assert row.split()[:6] == [
        *("bottleneck", "sphere", "pae-bottlenecks", "pae-framework", __version__, "ok")
    ]
    assert "pae-bottlenecks" not in short


@pytest.mark.parametrize("columns", [60, 80])
def test_list_plugins_fits_the_terminal_and_breaks_no_name(
    columns: int, pae: Pae, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", pae("list-plugins").out).splitlines()
    assert max(map(len, lines)) <= columns
    names = {component["name"] for component in pae("list-plugins", "--json").json["components"]}
    assert names <= {word for line in lines for word in line.split()[1:2]}


def test_list_plugins_times_every_plugin_slowest_first(pae: Pae) -> None:
    rows = [line.split() for line in pae("list-plugins", "--timing").out.splitlines()[1:]]
    times = [float(row[0]) for row in rows]
    assert times == sorted(times, reverse=True)
    answer = pae("list-plugins", "--json").json
    assert {row[1] for row in rows} == {plugin["name"] for plugin in answer["plugins"]}
    assert all(plugin["seconds"] > 0 for plugin in answer["plugins"])


@pytest.mark.usefixtures("broken_plugin")
def test_broken_plugin_is_listed_with_its_error_and_a_warning(pae: Pae) -> None:
    assert re.search(r"acme .*acme-bad 1.0.*RuntimeError: no license", pae("list-plugins").err)
    (row,) = [line for line in pae("list-plugins", "--long").out.splitlines() if "acme" in line]
    assert row.split()[2:] == [
        *("acme", "acme-bad", "1.0", "broken", "RuntimeError:", "no", "license")
    ]
    broken = pae("list-plugins", "--broken").out
    assert broken.startswith("acme (acme-bad 1.0): RuntimeError: no license\n    Traceback")
    (plugin,) = pae("list-plugins", "--broken", "--json").json["plugins"]
    assert (plugin["name"], plugin["state"]) == ("acme", "broken")

    answer = pae("check", "quickstart", "--json")
    assert (answer.code, answer.json["valid"]) == (0, True)
    assert answer.err == (
        "warning: plugin acme (acme-bad) does not load: RuntimeError: no license\n"
    )


def test_list_plugins_broken_without_broken_plugins(pae: Pae) -> None:
    assert pae("list-plugins", "--broken").out == "every plugin loads\n"


def test_show_plugin_gives_parameters_and_a_block_to_paste(pae: Pae) -> None:
    answer = pae("show-plugin", "bottleneck:sphere")
    assert "few channels, every token on a sphere" in answer.out
    assert f"from pae-framework {__version__}" in answer.out
    (channels,) = [line for line in answer.out.splitlines() if line.startswith("channels")]
    assert channels.split()[:6] == ["channels", "integer", ">", "0", "and", "<="]
    described = pae("show-plugin", "bottleneck:sphere", "--json").json
    assert described["parameters"] == [
        {
            "name": "channels",
            "type": "integer > 0 and <= 65536",
            "required": False,
            "default": 32,
            "description": "latent channels d; tokens have norm sqrt(d)",
        }
    ]
    block = yaml.safe_load(described["example"])
    assert block == {"tokenizer": {"bottleneck": {"use": "sphere"}}}


@pytest.mark.parametrize("reference", ["spher", "thing:sphere", "bottleneck:spher"])
def test_show_plugin_of_an_unknown_name_is_a_usage_error(pae: Pae, reference: str) -> None:
    answer = pae("show-plugin", reference)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert "bottleneck:sphere" in answer.err or "'sphere'" in answer.err


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("tiny_vit", "encoder:tiny_vit"),
        ("vit", "decoder:vit"),
        ("data:image_folder", "dataset:image_folder"),
        ("image_folder", "dataset:image_folder"),
        ("encoder:pae-framework/tiny_vit", "encoder:tiny_vit"),
    ],
)
def test_show_plugin_understands_a_name_alone(pae: Pae, reference: str, found: str) -> None:
    assert pae("show-plugin", reference).ok().out.startswith(f"{found}: ")


def test_show_plugin_lists_the_models_with_their_weights(pae: Pae) -> None:
    models = pae("show-plugin", "mae", "--json").json["models"]
    assert models["vit_large_patch16_224"] == ["mae"]
    assert re.search(r"vit_large_patch16_224 +mae *$", pae("show-plugin", "mae").out, re.MULTILINE)


@pytest.mark.parametrize(
    ("reference", "near"),
    [
        ("tiny_vti", "encoder:tiny_vit"),
        ("encodr:tiny_vit", "encoder:tiny_vit"),
        ("encoder:tiny_vitt", "'tiny_vit'"),
        ("decoder:tiny_vit", "encoder"),
    ],
)
def test_show_plugin_suggests_the_closest_name(pae: Pae, reference: str, near: str) -> None:
    assert near in pae("show-plugin", reference).fails(2).err.partition("Installed:")[0]


# --- the command itself ---------------------------------------------------------------------------


def test_version(pae: Pae) -> None:
    assert pae("--version") == Result(0, f"pae-framework {__version__}\n", "")


def test_debug_shows_where_an_error_was_raised(pae: Pae) -> None:
    for arguments in (["--debug", "check", "nothing"], ["check", "nothing", "--debug"]):
        answer = pae(*arguments)
        assert answer.code == 2
        assert "Traceback" in answer.err
        assert answer.err.splitlines()[-1].startswith("error: no recipe 'nothing'")


@pytest.mark.parametrize("arguments", [["chekc"], ["check"], ["check", "a", "--nope"]])
def test_wrong_usage_exits_2(pae: Pae, arguments: list[str]) -> None:
    answer = pae(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage: pae" in answer.err


def test_help_of_sample_lists_every_solver(pae: Pae) -> None:
    words = re.findall(r"\w+", pae("sample", "--help").ok().out)
    assert set(get_args(SolverName)) <= set(words)


def test_an_interrupt_exits_130(pae: Pae, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pae_framework.recipe.library.find", interrupted)
    assert pae("copy", "quickstart").code == 130


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 75),
        (signal.SIGUSR2, 75),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ("run", "quickstart", "seed=3"),
        ("evaluate", "run"),
        ("sample", "run"),
        ("tune-guidance", "run"),
        ("reference", "build", "quickstart:train", "--out", "digits.npz"),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else None,
)
def test_a_signal_ends_a_resumable_command_with_its_code_and_says_how_to_resume(
    pae: Pae,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    sent: signal.Signals,
    code: int,
) -> None:
    def signaled(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), sent)
        os.kill(os.getpid(), 0)  # Python handles the signal between two instructions

    for module, function in (
        (evaluate_run, "evaluate_run"),
        (extraction, "extraction_of"),
        (load, "load_recipe"),
        (start, "load_for_run"),
        (opened, "open_run"),
    ):
        monkeypatch.setattr(module, function, signaled)
    before = signal.getsignal(sent)
    answer = pae(*words)
    assert (answer.code, answer.out) == (code, "")
    assert "error" not in answer.err
    assert f"to resume: pae {' '.join(words)}\n" in answer.err
    assert signal.getsignal(sent) == before


@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 75)])
@pytest.mark.parametrize("installed", [False, True], ids=["file", "installed"])
def test_a_signal_ends_a_resumable_command_while_a_plugin_is_imported(
    pae: Pae, broken_plugin: None, installed: bool, sent: str, code: int
) -> None:
    path = Path("site/acme_bad.py" if installed else "slow_plugin.py").absolute()
    kill = f"os.kill(os.getpid(), signal.{sent})"
    path.write_text(f"import os, signal, time\n{kill}\ntime.sleep(60)\n")
    plugin = () if installed else ("--plugin", path)
    answer = pae("run", "quickstart", "--dry-run", *plugin)
    assert (answer.code, answer.out) == (code, "")
    assert "to resume: pae run quickstart --dry-run" in answer.err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_acknowledged_once_and_at_once(
    capfd: pytest.CaptureFixture[str], sent: signal.Signals
) -> None:
    with StopRequest("this step") as stop:
        assert not stop.asked
        os.kill(os.getpid(), sent)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == sent
        (line,) = capfd.readouterr().err.splitlines()
    assert "this step" in line
    assert ("Ctrl-C" in line) is (sent == signal.SIGINT)


def test_every_exit_code_of_an_error_is_documented() -> None:
    def with_subclasses(error: type[PaeError]) -> list[type[PaeError]]:
        return [error, *(x for each in error.__subclasses__() for x in with_subclasses(each))]

    ours = (x for x in with_subclasses(PaeError) if x.__module__.startswith("pae_framework."))
    assert {error.exit_code for error in ours} <= EXIT_CODES.keys()
    assert all(StoppedError("", number).exit_code in EXIT_CODES for number in STOP_SIGNALS)


def test_colors_only_on_terminals_without_no_color(
    pae: Pae, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b" not in pae("check", "nothing").err  # no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert pae("check", "nothing").err.startswith("\x1b[1;31merror:\x1b[0m ")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in pae("check", "nothing").err


def test_file_instead_of_a_folder_is_one_message(pae: Pae) -> None:
    Path("file").touch()
    answer = pae("copy", "quickstart", "file/mine.yaml")
    assert answer.code != 0
    assert "file" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("words", "quiet", "seconds"),
    [
        (("list-recipes",), False, 10.0),
        (("list-recipes", "-q"), True, 10.0),
        (("--quiet", "list-recipes"), True, 10.0),
        (("list-recipes", "-v"), False, 0.0),
        (("--verbose", "list-recipes"), False, 0.0),
        (("list-recipes", "--no-progress", "-q"), True, None),
    ],
)
def test_options_of_every_command_stand_anywhere(
    pae: Pae, words: tuple[str, ...], quiet: bool, seconds: float | None
) -> None:
    assert "quickstart" in pae(*words).ok().out
    console = progress_console()
    assert (console.quiet, console.progress_seconds, console.stderr) == (quiet, seconds, True)


def test_what_follows_two_dashes_is_no_option(pae: Pae) -> None:
    assert "'-q'" in pae("check", "quickstart", "--", "-q").fails(2).err


def test_quiet_leaves_warnings_and_errors(pae: Pae, broken_plugin: None) -> None:
    err = pae("check", "nothing", "-q").fails(2).err
    assert "acme-bad" in pae("check", "quickstart", "-q").err
    assert "nothing" in err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, []), (0.0, ["1/3", "2/3", "3/3"]), (1000.0, ["3/3"])]
)
def test_progress_in_a_pipe_is_plain_lines_as_often_as_wanted(
    seconds: float | None, shown: list[str]
) -> None:
    console = PlainConsole(seconds, file=io.StringIO(), width=20)
    with ProgressLine("name", total=3, console=console) as progress:
        for done in (1, 2, 3):
            progress.update(done)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == shown


def test_tables_have_lines_on_a_terminal_only() -> None:
    def printed(**options: Any) -> str:
        console = PlainConsole(file=io.StringIO(), width=80, **options)
        table = PlainTable("name", Text("size", justify="right"), title="title")
        table.add_row("[red]", "3")
        console.print(table)
        return console.file.getvalue()

    lines = [line.rstrip() for line in printed().splitlines()]
    assert lines == ["title", "name   size", "[red]     3"]
    assert "\u2500" in printed(force_terminal=True)
