"""The page in headless Chromium, if there is one: nothing overflows, on screens of both widths.

The page is measured inside a frame, because Chromium's own windows are at least 500 px wide. Its
content security policy is removed from the copy, as it would stop the measuring script.
"""

import re
import shutil
import subprocess

import pytest
from test_report_rules import example

from pae_framework.report.html import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DARK = "--blink-settings=preferredColorScheme=0"
SCRIPT = """<script>
const all = chosen => [...document.querySelectorAll(chosen)];
const right = () => Math.max(...all("h1, h2, h3, p, figure, .scroll, details, pre, article")
    .map(element => element.getBoundingClientRect().right));
const cut = chosen => all(chosen).filter(e => e.scrollWidth > e.clientWidth).length;
const folded = () => all("details > :not(summary)").filter(e => !e.checkVisibility({
    contentVisibilityAuto: true})).length;
const width = image => image.getBoundingClientRect().width;
onload = () => parent.postMessage([MEASURED].join(" | "), "*")</script>"""
WIDTHS = "innerWidth, document.documentElement.scrollWidth, right()"
COLORS = """matchMedia("(prefers-color-scheme: dark)").matches,
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.body).color"""
FRAME = """<title>none</title>
<script>onmessage = event => {{ document.title = event.data }}</script>
<iframe src="page.html" style="width: {width}px; height: 2000px; border: 0"></iframe>"""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def page():
    return render(example(32))


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("unfolded", [False, True], ids=["folded", "unfolded"])
def test_nothing_is_wider_than_the_screen(page, tmp_path, width, scheme, unfolded):
    text = page.replace("<details>", "<details open>") if unfolded else page
    inner, scrolled, right, is_dark, background, color = measured(
        text, tmp_path, f"{WIDTHS}, {COLORS}", width, scheme
    )
    assert int(inner) == width
    assert int(scrolled) <= width
    assert float(right) <= width
    assert is_dark == str(scheme == "dark").lower()
    bright, text_bright = brightness(background), brightness(color)
    assert (
        (bright > 200 and text_bright < 80)
        if scheme == "light"
        else (bright < 50 and text_bright > 180)
    )


def test_commands_and_recipes_are_not_cut_on_a_phone(page, tmp_path):
    text = page.replace("<details>", "<details open>")
    assert measured(text, tmp_path, "cut('pre'), cut('.stages'), all('pre').length", 390) == [
        *("0", "0", "3")
    ]


def test_a_printed_page_shows_all_that_is_folded_and_cuts_nothing(page, tmp_path):
    assert int(measured(page, tmp_path, "folded()", 720)[0]) > 0
    printed = page.replace("@media print", "@media screen")
    inner, scrolled, right, folded, cut = measured(
        printed, tmp_path, f"{WIDTHS}, folded(), cut('.scroll, pre')", 720
    )
    assert (int(inner), folded, cut) == (720, "0", "0")
    assert int(scrolled) <= 720
    assert float(right) <= 720


@pytest.mark.parametrize("screen", [1400, 390])
@pytest.mark.parametrize("kind", [".tiles:not(.shrinks)", ".shrinks", ".panels"])
def test_a_picture_that_is_checked_is_enlarged(page, tmp_path, screen, kind):
    image = f"document.querySelector('{kind} img')"
    check = f"{image}.closest('.zoom').querySelector('input').checked = true"
    before, _, after = measured(page, tmp_path, f"width({image}), {check}, width({image})", screen)
    assert float(after) > 1.5 * float(before) or float(after) > 0.9 * screen


def measured(page, folder, expressions, width, scheme="light"):
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    page = page.replace("</body>", SCRIPT.replace("MEASURED", expressions) + "</body>")
    (folder / "page.html").write_text(page, encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1500,2000", *([DARK] if scheme == "dark" else [])]
    done = subprocess.run(
        [*command, frame.as_uri()], capture_output=True, text=True, check=True, timeout=60
    )
    return re.search(r"<title>([^<]*)", done.stdout)[1].split(" | ")


def brightness(color):
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3
