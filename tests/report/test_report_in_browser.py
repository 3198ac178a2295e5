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
MEASURE = """<script>onload = () => parent.postMessage([
    innerWidth, document.documentElement.scrollWidth,
    Math.max(...[...document.querySelectorAll(WATCHED)].map(e => e.getBoundingClientRect().right)),
    matchMedia("(prefers-color-scheme: dark)").matches,
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.body).color,
].join(" | "), "*")</script>"""
WATCHED = "'h1, h2, h3, p, figure, .scroll, details, pre, article'"
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
    inner, scrolled, right, is_dark, background, color = measured(text, tmp_path, width, scheme)
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


def measured(page, folder, width, scheme):
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    page = page.replace("</body>", MEASURE.replace("WATCHED", WATCHED) + "</body>")
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
