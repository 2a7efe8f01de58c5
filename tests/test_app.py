"""`meljax app` in this machine's Chromium: what a person does, sees and leaves behind."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from conftest import ROOT, tone

from meljax import __main__

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

needs_gradio = pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra app")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and find_spec("playwright") and find_spec("gradio")),
    reason="needs the extra test-app and Chromium",
)

# Writes to a file every host that the server looks up or connects to.
WATCHED = """
import json, sys
def note(event, arguments):
    if event == "socket.connect":
        print(json.dumps(arguments[1]), file=log, flush=True)
    if event == "socket.getaddrinfo":
        print(json.dumps(arguments[:2]), file=log, flush=True)
log = open(sys.argv.pop(1), "w")
sys.addaudithook(note)
from meljax.__main__ import script
script()
"""


class Server:
    """A process of `meljax app`; its temporary files are in `temporary`."""

    def __init__(self, run: Path, folder: Path):
        self.temporary, self.log = folder / "temporary", folder / "hosts.jsonl"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, self.log, "app", run, "--port", "0"],
            cwd=folder,
            env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.line = self.process.stdout.readline()
        self.address = re.search(r"http://127\.0\.0\.1:\d+", self.line)[0]

    def stop(self) -> tuple[str, str]:
        """Presses Ctrl-C; returns the rest of the output and the errors."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=60)


@contextlib.contextmanager
def served(run: Path, folder: Path):
    server = Server(run, folder)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(audio_run, tmp_path_factory):
    with served(audio_run, tmp_path_factory.mktemp("app")) as server:
        yield server


@pytest.fixture(scope="module")
def spoken(recordings, tmp_path_factory) -> Path:
    """What the microphone hears: half a second of a tone, again and again."""
    file = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    samples, rate = soundfile.read(recordings / "voice1" / "03.wav")
    soundfile.write(file, np.tile(samples, 8), rate, "PCM_16")
    return file


@pytest.fixture(scope="module")
def browser(spoken):
    """Chromium with a microphone, which finds no host but this machine."""
    from playwright.sync_api import sync_playwright

    options = [
        "--no-sandbox",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, address: str, width: int = 1200):
    """Yields the page; nothing on it may come from another host or report an error."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(urlsplit(request.url)))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#upload input[type=file]", state="attached")
    yield page
    assert {url.hostname for url in asked if url.scheme not in ("data", "blob")} == {"127.0.0.1"}
    assert not errors
    context.close()


def upload(page, file: Path) -> str:
    """Uploads a file; returns the text of the verdict."""
    clear = page.locator("#upload button[aria-label='Clear']")
    if clear.count():
        clear.click()
    page.locator("#upload input[type=file]").set_input_files(file)
    return page.locator("#verdict section", has_text=file.name).inner_text()


def label(page) -> str:
    return page.locator("#verdict .label").inner_text()


def set_threshold(page, value: float) -> None:
    box = page.locator("#threshold input[type=number]")
    box.fill(str(value))
    box.press("Enter")


def fits(page) -> bool:
    """Returns whether the page is no wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def long_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("long") / "long.wav"
    soundfile.write(file, np.concatenate([tone(150, 1, 1), np.zeros(4000), tone(900, 1, 2)]), 8000)
    return file


def predicted(run: Path, file: Path, tmp_path: Path) -> dict:
    out = tmp_path / "out.jsonl"
    assert __main__.main(["predict", str(run), str(file), "--out", str(out)]) == 0
    return json.loads(out.read_text())


@needs_browser
def test_an_uploaded_recording_is_classified(server, browser, audio_run, recordings, tmp_path):
    file = recordings / "voice2" / "05.wav"
    row = predicted(audio_run, file, tmp_path)
    with opened(browser, server.address) as page:
        set_threshold(page, 0)
        upload(page, file)
        assert label(page) == f"{row['label']} {row['probability']:.1%}"
        assert page.locator("#verdict .bars tr").count() == 3
        for image in page.locator("#evidence img").all():
            assert image.evaluate("image => image.naturalWidth") > 300
        set_threshold(page, 1)
        page.locator("#verdict .label", has_text="unknown").wait_for()
        assert "below the threshold of 100.0%" in page.locator("#verdict").inner_text()
        set_threshold(page, 0)
        page.locator("#verdict .label", has_text=row["label"]).wait_for()
        page.locator("#examples button").first.click()
        page.get_by_text("The true class is voice0").wait_for()


@needs_browser
def test_the_microphone_is_recorded_and_classified(server, browser):
    with opened(browser, server.address) as page:
        page.locator("#record .record-button").click()
        page.locator("#record .stop-button").wait_for()
        page.wait_for_timeout(1000)  # records this long
        page.locator("#record .stop-button").click()
        page.locator("#verdict .bars").wait_for()
        seconds = page.locator("#evidence audio").evaluate("sound => sound.duration")
        assert seconds > 0.3


@needs_browser
def test_a_long_recording_has_a_timeline_and_a_table(server, browser, long_file, tmp_path):
    with opened(browser, server.address, width=420) as page:
        set_threshold(page, 0)
        upload(page, long_file)
        page.locator("#segments img").wait_for()
        rows = page.locator("#segments tbody tr")
        texts = [row.inner_text().split() for row in rows.all()]
        assert any("silence" in text for text in texts)
        assert fits(page)
        with page.expect_download() as download:
            page.locator("#segments a").click()
        assert download.value.suggested_filename == "long.csv"
        download.value.save_as(tmp_path / "long.csv")
        with open(tmp_path / "long.csv", newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file))
        assert [f"{float(row['start']):.2f}" for row in table] == [text[0] for text in texts]
        assert [row["label"] or row["status"] for row in table] == [text[2] for text in texts]


@needs_browser
def test_what_cannot_be_classified_is_explained(server, browser, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x10\0\0\0WAVEfmt nonsense")
    (tmp_path / "image.png").write_bytes(b"x")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    with opened(browser, server.address, width=420) as page:
        assert "cannot read it" in upload(page, tmp_path / "broken.wav")
        assert "the model was trained on recordings" in upload(page, tmp_path / "image.png")
        assert "no samples" in upload(page, tmp_path / "empty.wav")
        assert "Silence" in upload(page, tmp_path / "silence.wav")
        assert fits(page)
        assert "Traceback" not in page.content()


@needs_browser
def test_images_are_classified_and_uploads_deleted(browser, image_run, image_folder, tmp_path):
    file = image_folder / "voice1" / "02.png"
    row = predicted(image_run, file, tmp_path)
    folder = tmp_path / "app"
    folder.mkdir()
    with served(image_run, folder) as server:
        with opened(browser, server.address) as page:
            assert not page.locator("#record").count()
            set_threshold(page, 0)
            upload(page, file)
            assert label(page) == f"{row['label']} {row['probability']:.1%}"
        kept = [path for path in server.temporary.rglob("*") if path.is_file()]
        assert file.read_bytes() in [path.read_bytes() for path in kept]
        output, errors = server.stop()
        assert output == ""
        assert errors.endswith("\nmeljax: stopped\n")
        assert server.process.returncode == 130
    assert not list(server.temporary.glob("meljax-app-*"))
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert file.name not in left
    assert {path.name for path in folder.iterdir()} == {"temporary", "hosts.jsonl"}
    hosts = [json.loads(line)[0] for line in server.log.read_text().splitlines()]
    assert set(hosts) == {"127.0.0.1"}  # the server contacts only itself


@needs_gradio
def test_wrong_arguments_are_reported_in_one_line(audio_run, tmp_path, capsys):
    def error(*arguments: str) -> str:
        assert __main__.main(["app", *arguments]) == 2
        return capsys.readouterr().err

    assert "is not a run" in error(str(tmp_path))
    assert "--port must be 0 to 65535" in error(str(audio_run), "--port", "70000")
    text = error(str(audio_run), "--host", "192.0.2.1")  # no machine has this address
    assert "a port from 7860 to 7959 of '192.0.2.1': cannot assign requested address" in text
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = error(str(audio_run), "--port", str(port))
    assert f"cannot listen on port {port} of '127.0.0.1': address already in use" in text
    assert text.count("\n") == 1


def test_without_the_extra_one_line_says_what_to_install(audio_run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert __main__.main(["app", str(audio_run)]) == 2
    assert capsys.readouterr().err == "meljax: app needs the extra: pip install '.[app]'\n"


def test_the_first_free_port_is_taken():
    from meljax.app import server

    with server.listen("127.0.0.1", None) as one, server.listen("127.0.0.1", None) as other:
        ports = [each.getsockname()[1] for each in (one, other)]
        assert server.FIRST_PORT <= ports[0] < ports[1]
        assert server.address(one) == f"http://127.0.0.1:{ports[0]}"
        assert server.is_local(one)
    with server.listen("0.0.0.0", 0) as everywhere:
        assert not server.is_local(everywhere)
        assert server.address(everywhere).startswith("http://127.0.0.1:")


def test_uploads_are_in_a_folder_that_is_removed(monkeypatch):
    from meljax.app import server

    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with contextlib.suppress(KeyboardInterrupt), server.uploads() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "upload.wav").write_bytes(b"x")
        raise KeyboardInterrupt
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "before"
