"""Chromium opening what a real gateway serves: pages, media, sites and origins, by role and behaviour.

HOLDFAST_SCREENSHOTS=DIR keeps pictures of what it saw there.
"""

from __future__ import annotations

import os
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from merkledag import car
from tests.gateway.black_box.content import AWKWARD_NAMES, Content
from tests.gateway.black_box.running import Script
from tests.gateway.black_box.webm import film, vp8_of_webp
from tests.peers.support import FOLDER, REQUIRED

pytestmark = pytest.mark.peers
# Read here, because a fixture takes HOLDFAST_* variables away from the tests themselves.
SCREENSHOTS = os.environ.get("HOLDFAST_SCREENSHOTS")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
COLOURS = ("#c00", "#0c0", "#00c", "#cc0", "#c0c", "#0cc", "#ccc", "#060", "#600", "#006")


class Browser:
    """Contexts of Chromium by name; a new one has no cookies, storage or cache."""

    def __init__(self, script: Script, name: str, **settings: Any) -> None:
        self._script = script
        self.name = name
        self._settings = settings

    def __call__(self, do: str, **job: Any) -> dict[str, Any]:
        """One step; fails the test if it could not be made or a page broke its own rules."""
        answer = self._script.ask(do=do, context=self.name, settings=self._settings, **job)
        assert "error" not in answer, answer["error"]
        assert answer["violations"] == []
        return answer

    def open(self, url: str) -> dict[str, Any]:
        return self("open", url=url)

    def run(self, body: str, argument: object = None) -> Any:
        """What a function of this body gives in the page."""
        return self("run", body=body, argument=argument).get("value")

    def text(self) -> str:
        return str(self("text")["text"]).strip()

    def names(self, role: str) -> list[str]:
        return list(self("see", role=role)["texts"])

    def keep_picture(self, name: str) -> None:
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self("screenshot", path=str(Path(SCREENSHOTS) / f"{name}.png"))


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    node, driver = FOLDER / "bin" / "node", FOLDER / "npm" / "browser.mjs"
    if not (os.access(node, os.X_OK) and driver.is_file()):
        reason = f"Node.js and playwright-core are not in {FOLDER}: make peers puts them there"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    rules = "--host-resolver-rules=MAP *.example.org 127.0.0.1, MAP *.example.net ^NOTFOUND"
    with Script(str(node), str(driver), program, rules, "--no-proxy-server", "--disable-gpu") as running:
        yield running


@pytest.fixture(scope="module")
def browser(script: Script) -> Browser:
    """One that the tests share whose pages leave nothing behind."""
    return Browser(script, "script")


@pytest.fixture(scope="module", params=["script", "plain"])
def either(request: pytest.FixtureRequest, script: Script, browser: Browser) -> Browser:
    """With JavaScript, and without."""
    return browser if request.param == "script" else Browser(script, "plain", javaScriptEnabled=False)


@pytest.fixture
def fresh(script: Script, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """One without history."""
    made = Browser(script, request.node.name)
    yield made
    made("close")


def on_subdomain(served: Content, cid: str, path: str = "/") -> str:
    return f"http://{cid}.ipfs.localhost:{served.home.port}{path}"


# ------------------------------------------------------------------------------------------------ listings


def test_a_listing_is_walked_by_its_links(either: Browser, served: Content) -> None:
    browser, root = either, served.cid("listing")
    seen = browser.open(f"{served.url}/ipfs/{root}/")
    assert seen["status"] == 200
    assert "broken" not in seen["title"]
    assert seen["errors"] == []
    links = browser.names("link")
    for name in (*AWKWARD_NAMES, "README.md", "picture.png"):
        assert any(name in link for link in links), name
    browser.keep_picture(f"listing-{browser.name}")
    browser("click", role="link", name="sub")
    browser("click", role="link", name="below")
    below = browser.text()
    assert "inner.txt" in below
    opened = browser("click", role="link", name="inner.txt")
    assert opened["url"] == f"{served.url}/ipfs/{root}/sub/below/inner.txt"
    assert browser.text() == "far down"


def test_a_listing_loads_nothing_from_elsewhere_and_sets_no_cookie(fresh: Browser, served: Content) -> None:
    seen = fresh.open(f"{served.url}/ipfs/{served.cid('listing')}/")
    for request in seen["requests"]:
        assert request["url"].startswith((served.url, "data:", "blob:")), request
        assert request["status"] < 400, request
    assert fresh("cookies")["cookies"] == []
    assert fresh.run("return [localStorage.length, document.cookie]") in ([0, ""], [1, ""])


def test_every_awkward_name_opens(browser: Browser, served: Content) -> None:
    for name in AWKWARD_NAMES:
        browser.open(f"{served.url}/ipfs/{served.cid('listing')}/")
        browser("click", role="link", name=name, exact=True)
        assert browser.text() == f"I am {name}"


def test_a_listing_by_keyboard(browser: Browser, served: Content) -> None:
    browser.open(f"{served.url}/ipfs/{served.cid('listing')}/")
    for _ in range(60):
        browser("press", keys=["Tab"])
        if browser.run("return document.activeElement.textContent.trim()") == "README.md":
            break
    focus = browser.run(
        "const s = getComputedStyle(document.activeElement);"
        "return s.outlineStyle !== 'none' || s.boxShadow !== 'none'"
    )
    assert focus, "the focus is not to be seen"
    browser.keep_picture("listing-keyboard")
    browser("press", keys=["Enter"])
    browser("wait", url="**/README.md")


def test_the_page_about_an_entry_is_a_key_away(browser: Browser, served: Content) -> None:
    browser.open(f"{served.url}/ipfs/{served.cid('listing')}/")
    browser("press", keys=["j", "i"])
    browser("wait", url="**inspect=node")
    assert browser.run("return location.pathname").startswith(f"/ipfs/{served.cid('listing')}/")
    assert browser.run("return location.pathname.split('/')[3]"), "the folder's own page"


def test_what_is_called_a_picture_and_is_none_has_a_sign(browser: Browser, served: Content) -> None:
    browser.open(f"{served.url}/ipfs/{served.cid('listing')}/sub/below/")
    browser.run(
        "for (let n = 0; n < 300 && document.querySelector('td.k img'); n++)"
        " await new Promise(requestAnimationFrame)"
    )
    assert browser.run("return document.querySelectorAll('td.k svg').length") == 3  # with the way up


def luminance(colour: str) -> float:
    """Of `rgb(r, g, b)`, 0 to 255."""
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_light_or_dark_as_one_likes(script: Script, served: Content, scheme: str) -> None:
    body = """
        const solid = (e) => !e ? 'rgb(255, 255, 255)'
          : getComputedStyle(e).backgroundColor.startsWith('rgba(0, 0, 0, 0') ? solid(e.parentElement)
          : getComputedStyle(e).backgroundColor;
        return [solid(document.body), getComputedStyle(document.body).color]
    """
    browser = Browser(script, scheme, colorScheme=scheme)
    listing = f"/ipfs/{served.cid('listing')}/"
    for name, path in (("listing", listing), ("error", f"{listing}nothing"), ("start", "/")):
        browser.open(served.url + path)
        background, text = map(luminance, browser.run(body))
        assert (background > text + 100) if scheme == "light" else (text > background + 100)
        browser.keep_picture(f"{scheme}-{name}")
    browser("close")


def test_a_listing_fits_a_telephone(script: Script, served: Content) -> None:
    browser = Browser(script, "telephone", viewport={"width": 360, "height": 640})
    browser.open(f"{served.url}/ipfs/{served.cid('listing')}/")
    browser.keep_picture("listing-telephone")
    wide, screen = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen + 1
    browser("close")


def test_the_archive_of_a_folder_is_a_download(browser: Browser, served: Content) -> None:
    cid = served.cid("listing")
    for form, ending in (("car", ".car"), ("tar", ".tar")):
        browser.open(f"{served.url}/ipfs/{cid}/")
        got = browser("download", body=f"location.href = '/ipfs/{cid}?format={form}'")
        assert got["failure"] is None
        assert got["name"].endswith(ending)
        if form == "car":
            decoder = car.CarDecoder()
            decoder.feed(Path(got["path"]).read_bytes())
            header = decoder.next()
            assert isinstance(header, car.CarHeader)
            assert [str(root) for root in header.roots] == [cid]
            while decoder.next() is not None:
                pass
            decoder.finish()


def test_a_node_is_shown_with_its_links(browser: Browser, served: Content) -> None:
    for codec in ("dag-cbor", "dag-json"):
        seen = browser.open(f"{served.url}/ipfs/{served.cid(codec)}")
        assert seen["status"] == 200
        shown = browser.text()
        assert "hello" in shown
        assert "world" in shown
        assert any("bafkqaaa" in link for link in browser.names("link"))
        browser.keep_picture(f"node-{codec}")


# ------------------------------------------------------------------------------------------------ errors


def test_error_pages_say_what_failed(either: Browser, served: Content) -> None:
    listing = served.cid("listing")
    for path, status, says in (
        (f"/ipfs/{listing}/nothing", 404, "nothing"),
        ("/ipfs/not-a-cid", 400, "not-a-cid"),
        (f"/ipfs/{served.absent}", 404, served.absent),
        ("/ipns/nobody.example.org", 500, "nobody.example.org"),
        ("/elsewhere", 404, ""),
    ):
        seen = either.open(served.url + path)
        assert seen["status"] == status
        assert len(either.names("heading")) >= 1
        shown = either.text()
        assert says in shown
        assert str(seen["status"]) in shown
        either.keep_picture(f"error-{path.rpartition('/')[2][:20]}-{either.name}")


# ------------------------------------------------------------------------------------------------ media


def test_a_picture_is_shown(browser: Browser, served: Content) -> None:
    browser.open(f"{served.url}/ipfs/{served.cid('listing')}/picture.png")
    assert browser.run("return document.images[0].naturalWidth") == 64
    browser.keep_picture("picture")


def test_a_film_plays_and_seeks_by_ranges(browser: Browser, served: Content, tmp_path: Path) -> None:
    browser.open(f"{served.url}/ipfs/{served.cid('one')}/")
    pictures = browser.run(
        """
        return Promise.all(argument.map(async (colour) => {
          const canvas = Object.assign(document.createElement('canvas'), { width: 160, height: 120 })
          const pen = canvas.getContext('2d', { alpha: false })
          pen.fillStyle = colour
          pen.fillRect(0, 0, 160, 120)
          return canvas.toDataURL('image/webp', 0.9)
        }))
        """,
        COLOURS,
    )
    frames = [vp8_of_webp(b64decode(picture.partition(",")[2])) for picture in pictures]
    path = tmp_path / "film.webm"
    path.write_bytes(film(frames, 160, 120, 4 << 20))
    (cid,) = served.home.add(path).values()  # while the gateway runs

    opened = browser.open(f"{served.url}/ipfs/{cid}?filename=film.webm")
    assert opened["headers"]["content-type"] == "video/webm"
    seek = """
        const video = document.querySelector('video')
        if (video.readyState < 1) await new Promise(done => video.onloadedmetadata = done)
        video.pause()
        const seeked = new Promise(done => video.onseeked = done)
        video.currentTime = argument
        await seeked
        const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 })
        const pen = canvas.getContext('2d')
        pen.drawImage(video, 0, 0, 1, 1)
        return [video.duration, video.currentTime, ...pen.getImageData(0, 0, 1, 1).data]
    """
    ranges = []
    for second in (8, 2, 9, 0):
        step = browser("run", body=seek, argument=second + 0.5)
        duration, at, red, green, blue, _ = step["value"]
        assert (duration, at) == (len(COLOURS), second + 0.5)
        wanted = [int(digit, 16) * 17 for digit in COLOURS[second][1:]]
        assert all(abs(a - b) < 24 for a, b in zip((red, green, blue), wanted, strict=True)), second
        ranges += [request for request in step["requests"] if request["range"]]
        browser.keep_picture(f"film-{second}")
    assert any(not request["range"].startswith("bytes=0-") for request in ranges)
    assert {request["status"] for request in ranges} == {206}


# ------------------------------------------------------------------------------------------------ origins


def test_an_app_with_its_own_routes(browser: Browser, served: Content) -> None:
    root = served.cid("site")
    seen = browser.open(on_subdomain(served, root, "/any/route"))
    assert (seen["status"], seen["title"], browser.names("heading")) == (200, "app", ["/any/route"])
    assert browser.run("return getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"
    inside = browser("click", role="link", name="deep")
    assert inside["url"].endswith("/deep/page")
    assert browser.names("heading") == ["/deep/page"]
    again = browser.open(on_subdomain(served, root, "/deep/page"))  # as a reload asks the gateway
    assert (again["status"], browser.names("heading")) == (200, ["/deep/page"])
    browser.keep_picture("app")
    moved = browser.open(on_subdomain(served, root, "/old"))
    assert (moved["status"], moved["title"]) == (200, "new")
    assert moved["url"] == on_subdomain(served, root, "/new.html")
    gone = browser.open(on_subdomain(served, root, "/gone/for/good"))
    assert (gone["status"], gone["title"]) == (410, "410")


def test_content_on_a_name_moves_to_its_own_origin(browser: Browser, served: Content) -> None:
    seen = browser.open(f"http://localhost:{served.home.port}/ipfs/{served.cid('one')}/secret.txt")
    assert seen["url"] == on_subdomain(served, served.cid("one"), "/secret.txt")
    by_name = browser.open(f"http://localhost:{served.home.port}/ipns/{served.name}/new.html")
    assert by_name["url"] == f"http://{served.name}.ipns.localhost:{served.home.port}/new.html"
    assert by_name["title"] == "new"


def test_two_roots_share_nothing(fresh: Browser, served: Content) -> None:
    """Red team 28."""
    one, two = (on_subdomain(served, served.cid(name)) for name in ("one", "two"))
    fresh.open(one)
    fresh.run("localStorage.setItem('mine', 'one'); sessionStorage.setItem('mine', 'one')")
    fresh.run("const all = await caches.open('mine'); await all.put('/x', new Response('one'))")
    fresh.open(two)
    assert fresh.run("return [localStorage.length, sessionStorage.length, (await caches.keys()).length]") == (
        [0, 0, 0]
    )
    framed = """
        const frame = Object.assign(document.createElement('iframe'), { src: argument })
        await new Promise(done => { frame.onload = done; document.body.append(frame) })
        try { return frame.contentWindow.document.body.innerText } catch (error) { return error.name }
    """
    assert fresh.run(framed, one) == "SecurityError"
    credentials = """
        try { await fetch(argument, { credentials: 'include' }) } catch (error) { return error.name }
    """
    assert fresh.run(credentials, f"{one}secret.txt") == "TypeError"
    # What is public may be read from anywhere, as CORS says; not by who one is.
    assert fresh.run("return (await fetch(argument)).text()", f"{one}secret.txt") == "secret of one\n"
    # The other's content is not to be had under one's own origin.
    inside = f"/ipfs/{served.cid('one')}/secret.txt"
    assert "secret of one" not in fresh.run("return (await fetch(argument)).text()", inside)
    assert fresh("cookies")["cookies"] == []


def test_a_worker_of_the_shared_origin_cannot_take_it_over(browser: Browser, served: Content) -> None:
    """A service worker would answer for all content on a path gateway; there its script is refused."""
    register = """
        try { await navigator.serviceWorker.register(argument, { scope: '/' }); return 'taken over' }
        catch (error) { return error.name }
    """
    browser.open(f"{served.url}/ipfs/{served.cid('site')}/new.html")
    assert browser.run(register, f"/ipfs/{served.cid('site')}/app.js") == "SecurityError"


def test_a_site_by_its_dnslink(browser: Browser, served: Content) -> None:
    base = f"http://site.example.org:{served.home.port}"
    seen = browser.open(f"{base}/new.html")
    assert (seen["status"], seen["title"]) == (200, "new")
    app = browser.open(f"{base}/some/route")
    assert (app["status"], app["title"], browser.names("heading")) == (200, "app", ["/some/route"])
    assert all(request["url"].startswith(base) for request in app["requests"])
    by_key = browser.open(f"http://by-name.example.org:{served.home.port}/new.html")
    assert (by_key["status"], by_key["title"]) == (200, "new")
