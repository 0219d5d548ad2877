"""The playground page in a real browser: what it shows, that it can be used by all, that it asks no other host.

LACONIC_SCREENSHOTS=docs/images also writes the pictures of the documentation.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import laconic
from laconic.serve.page import routes

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PICTURES = os.environ.get("LACONIC_SCREENSHOTS")
TEXT = "Please note that the meeting of the board was moved to 14:30 on Friday, because the hall is not free."
HOSTILE = "<img src=x onerror=alert(1)> & <b>bold</b> words that are to be kept and to be dropped, all the same 😀 end."
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": TEXT}]},
        {"role": "assistant", "content": "The cat sat on the mat because the mat was warm, and then it slept there."},
        {"role": "user", "content": "And then?"},
    ],
}
ENTRY = {"protocol": "chat", "upstream": "openai", "status": 200, "ms": 812.4, "stream": True}


class Server(threading.Thread):
    """The page's routes on a free port, with a ledger and a key that tests may change."""

    def __init__(self):
        super().__init__(daemon=True)
        self.key, self.ledger, self.broken = "", None, 0
        service = SimpleNamespace(compressor=laconic.load())
        app = Starlette(routes=[*routes(service), Route("/v1/ledger", self._ledger)])
        app.add_middleware(lambda inner: Gate(self, inner))
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)

    async def _ledger(self, request):
        if self.ledger is None:
            return JSONResponse({"error": {"message": "no ledger"}}, 404)
        return JSONResponse(self.ledger)

    def run(self):
        self.server.run()

    @property
    def url(self):
        while not self.server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/"


class Gate:
    """Asks for the key of API calls, and is broken when a test says so."""

    def __init__(self, server, inner):
        self.server, self.inner = server, inner

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        wrong = self.server.key and headers.get(b"x-laconic-key", b"").decode() != self.server.key
        if scope["path"].startswith("/v1/") and (wrong or self.server.broken):
            status = 401 if wrong else self.server.broken
            message = "send the key as x-laconic-key" if wrong else "too many are waiting"
            answer = JSONResponse({"error": {"message": message}}, status, {"retry-after": "1"})
            return await answer(scope, receive, send)
        return await self.inner(scope, receive, send)


@pytest.fixture(scope="module")
def running():
    made = Server()
    made.start()
    yield made
    made.server.should_exit = True
    made.join(30)


@pytest.fixture
def server(running):
    running.key, running.ledger, running.broken = "", {"requests": [], "totals": {}}, 0
    return running


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=BROWSER, args=ARGS)
        yield made
        made.close()


@pytest.fixture
def visit(server, browser):
    """Opens the page in a context of its own; its `errors` and `hosts` are what it complained about and asked."""
    contexts = []

    def opened(script="", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.add_init_script(script)
        page = context.new_page()
        page.errors, page.hosts = [], set()
        page.on("console", lambda said: said.type in ("error", "warning") and page.errors.append(said.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
        page.goto(server.url)
        return page

    yield opened
    for context in contexts:
        context.close()


def result(page, card=1):
    return page.locator(f".card:nth-child({card}) .map")


def tokens(page):
    """The tokens after, of the first card."""
    return page.locator(".card .figures strong").first


def shown(page, card=1):
    """The text as sent."""
    page.locator("label[for=plain]").click()
    text = result(page, card).text_content()
    page.locator("label[for=marked]").click()
    return text


def paste(page, text):
    page.fill("#text", text)
    expect(result(page)).to_be_visible()
    expect(page.locator(".card").first).to_have_attribute("aria-busy", "false")


def test_files_are_sent_with_their_policy_and_only_when_they_changed():
    app = Starlette(routes=routes(SimpleNamespace(compressor=None)))
    with TestClient(app) as client:
        for file in (resources.files("laconic.serve") / "static").iterdir():
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            answer = client.get(path)
            assert answer.content == file.read_bytes() and answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["referrer-policy"] == "no-referrer"
            again = client.get(path, headers={"if-none-match": f"W/{answer.headers['etag']}"})
            assert (again.status_code, again.content) == (304, b"")
            assert not any(word in answer.text for word in ("innerHTML", "https://", "eval("))
        assert client.get("/page/index.html").status_code == 404


@needs_browser
def test_a_text_becomes_a_heat_map_whose_marks_are_the_result(visit):
    page = visit()
    paste(page, HOSTILE)
    expected = laconic.compress(HOSTILE, rate=0.4)
    assert result(page).text_content() == HOSTILE and page.locator(".map img, .map b").count() == 0
    left = result(page).evaluate(
        "n => [...n.childNodes].map((c) => c.nodeName === 'DEL' ? '' : c.textContent).join('').replace(/\\s/g, '')"
    )
    assert left == "".join(expected.text.split())
    assert shown(page) == expected.text
    assert f"{expected.tokens_before} → {expected.tokens_after}" in page.locator(".card .figures").text_content()
    assert page.errors == []


@needs_browser
def test_the_budget_and_the_question_move_the_result(visit):
    page = visit()
    paste(page, TEXT)
    page.locator("#rate").fill("80")
    expect(page.locator("#rate-number")).to_have_value("80")
    expect(tokens(page)).to_have_text(str(laconic.compress(TEXT, rate=0.8).tokens_after))
    assert shown(page) == laconic.compress(TEXT, rate=0.8).text
    page.locator("label[for=by-tokens]").click()
    expect(page.locator("#rate-row")).to_be_hidden()
    expect(page.locator("#tokens-number")).to_have_value(str(laconic.compress(TEXT, rate=0.8).tokens_after))
    page.fill("#tokens-number", "6")
    page.fill("#question", "When is it?")
    asked = laconic.compress(TEXT, tokens=6, question="When is it?")
    expect(tokens(page)).to_have_text(str(asked.tokens_after))
    assert shown(page) == asked.text
    page.locator("summary").click()
    page.fill("#protect", "note that\n\n[(]?hall")
    page.locator("label[for=plain]").click()
    kept = laconic.compress(TEXT, tokens=6, question="When is it?", protect=["note that", "[(]?hall"])
    expect(result(page)).to_have_text(kept.text)
    page.select_option("#counter", "words")
    expect(page.locator(".how")).to_contain_text("counted in words")
    page.fill("#protect", "(")
    expect(page.locator(".card .trouble")).to_contain_text("protect takes regular expressions")
    page.fill("#protect", "")
    expect(result(page)).to_be_visible()


@needs_browser
def test_a_chat_request_is_shown_message_by_message_and_copied_whole(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    paste(page, json.dumps(CHAT))
    expect(page.locator("#chat-note")).to_contain_text("4 messages")
    assert [h.split()[0] for h in page.locator(".map h3").all_text_contents()] == [m["role"] for m in CHAT["messages"]]
    assert page.locator(".map h3 .hint").all_text_contents()[::3] == ["as it was", "as it was"]
    page.locator(".copy").click()
    expect(page.locator(".copy")).to_have_text("Copied")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == {**CHAT, "messages": laconic.compress(CHAT["messages"], rate=0.4).messages}
    page.check("#newest")
    expect(page.locator(".map h3").last).not_to_contain_text("as it was")
    page.fill("#text", "No chat.")
    expect(page.locator("#chat")).to_be_hidden()


@needs_browser
def test_files_are_dropped_or_opened(visit, tmp_path):
    page = visit()
    bag = page.evaluate_handle("new DataTransfer()")
    bag.evaluate("(bag, text) => bag.items.add(new File([text], 'a.txt'))", TEXT)
    page.dispatch_event("#drop", "drop", {"dataTransfer": bag})
    expect(page.locator("#text")).to_have_value(TEXT)
    expect(result(page)).to_be_visible()
    (tmp_path / "b.txt").write_text("Another text that is long enough.", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "b.txt")
    expect(page.locator("#text")).to_have_value("Another text that is long enough.")
    (tmp_path / "c.bin").write_bytes(b"\0\1")
    page.set_input_files("#file", tmp_path / "c.bin")
    expect(page.locator("#trouble")).to_have_text("c.bin is not a text file.")
    page.locator("#clear").click()
    expect(page.locator(".empty")).to_be_visible()
    expect(page.locator("#trouble")).to_be_hidden()
    page.evaluate("size => document.getElementById('text').value = 'a '.repeat(size)", 1 << 20)
    page.locator("label[for=by-tokens]").click()
    expect(page.locator("#trouble")).to_contain_text("more than 2,097,152 bytes")


@needs_browser
def test_a_copy_works_without_a_clipboard(visit):
    page = visit("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    paste(page, TEXT)
    page.locator(".copy").click()
    expect(page.locator(".copy")).to_have_text("Copied")
    page.focus("#question")
    page.keyboard.press("Control+V")
    expect(page.locator("#question")).to_have_value(laconic.compress(TEXT, rate=0.4).text)


@needs_browser
def test_methods_stand_side_by_side(visit):
    page = visit()
    paste(page, TEXT)
    page.fill("#question", "When is it?")
    for k, method in enumerate(("BM25 sentences", "Rare words (tf-idf)", "laconic-nano"), 2):
        page.locator("#compare").click()
        assert page.locator(f".card:nth-child({k}) .method option:checked").text_content() == method
        expect(result(page, k)).to_be_visible()
    expect(page.locator("#compare")).to_be_disabled()
    expect(page.locator(".card:nth-child(3) .how")).to_contain_text("It reads no question.")
    boxes = [page.locator(f".card:nth-child({k})").bounding_box() for k in (1, 2)]
    assert boxes[0]["y"] == boxes[1]["y"]
    page.locator(".card:nth-child(2) .method").select_option("lead")
    expect(page.locator(".card:nth-child(2) .how")).to_contain_text("lead")
    assert shown(page, 2) == laconic.load(method="lead").compress(TEXT, rate=0.4).text
    for _ in range(3):
        page.locator(".card:nth-child(2) .remove").click()
    expect(page.locator(".remove")).to_be_hidden()


@needs_browser
def test_prices_are_remembered(visit):
    page = visit()
    paste(page, TEXT)
    saved = laconic.compress(TEXT, rate=0.4).saved
    page.fill("#price", "10000")
    expect(page.locator(".card .figures")).to_contain_text(f"${saved * 10:.2f}")
    page.reload()
    expect(page.locator("#price")).to_have_value("10000")


@needs_browser
def test_an_answer_that_is_stale_is_given_up(visit):
    page, held = visit(), []

    def hold_first(route):
        held.append(route) if not held else route.continue_()

    page.route("**/v1/compress", hold_first)
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.failure))
    page.fill("#text", "This one is never answered.")
    expect(page.locator(".card")).to_have_attribute("aria-busy", "true")
    page.fill("#text", TEXT)
    expect(result(page)).to_contain_text("14:30")
    assert failed == ["net::ERR_ABORTED"]


@needs_browser
def test_errors_are_shown_and_gone_when_it_works_again(visit, server):
    page = visit()
    server.broken = 503
    page.fill("#text", TEXT)
    expect(page.locator(".card .trouble")).to_contain_text("The server is busy.")
    server.broken = 0
    expect(result(page)).to_be_visible()
    server.broken = 500
    page.locator(".method").select_option("lead")
    expect(page.locator(".card .trouble")).to_contain_text("too many are waiting")
    server.broken = 0
    page.locator(".card .trouble button").click()
    expect(result(page)).to_be_visible()
    page.context.set_offline(True)
    expect(page.locator("#trouble")).to_have_text("This browser is offline.")
    page.locator(".method").select_option("random")
    expect(page.locator(".card .trouble")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    expect(result(page)).to_be_visible()
    expect(page.locator("#trouble")).to_be_hidden()


@needs_browser
def test_a_key_is_asked_for_and_kept_in_the_tab_only(visit, server):
    server.key = "s3cret"
    page = visit()
    expect(page.locator("#key-form")).to_be_visible()
    page.fill("#text", TEXT)
    expect(page.locator(".card .trouble")).to_contain_text("x-laconic-key")
    page.get_by_label("This server asks for a key").fill("s3cret")
    page.keyboard.press("Enter")
    expect(result(page)).to_be_visible()
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#ledger-note")).to_contain_text("None yet")
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.reload()
    expect(page.locator("#ledger-note")).to_contain_text("None yet")


def entries():
    """What a server may tell of three requests."""
    now = time.time()
    counts = [(18214, 9870, {"compressed": 2, "sent": 5}), (9420, 9420, {"sent": 3}), (0, 0, {})]
    found = [
        {**ENTRY, "time": now - 7 * k, "tokens_before": before, "tokens_after": after, "reasons": reasons}
        for k, (before, after, reasons) in enumerate(counts)
    ]
    found[1] |= {"status": 429, "upstream": "<b>anthropic</b>", "stream": False}
    return {"requests": found, "totals": {"requests": 41, "tokens_before": 200000, "tokens_after": 150000}}


@needs_browser
def test_recent_requests_appear_while_they_happen(visit, server):
    page = visit()
    expect(page.locator("#ledger-note")).to_contain_text("None yet")
    server.ledger = entries()
    expect(page.locator("#ledger tbody tr")).to_have_count(3, timeout=10_000)
    first, second = page.locator("#ledger tbody tr").all()[:2]
    assert "18,214 → 9,870" in first.text_content() and "2 compressed, 5 sent" in first.text_content()
    assert "<b>anthropic</b>" in second.text_content() and second.locator(".bad").text_content() == "429"
    assert page.locator("#totals").text_content() == "Requests41Tokens200,000 → 150,000Saved25 %"
    assert page.errors == []
    server.ledger = None
    page.reload()
    expect(page.locator("#ledger-note")).to_have_text("This server keeps no ledger.")
    expect(page.locator("#ledger")).to_be_hidden()


@needs_browser
def test_everything_can_be_done_with_the_keyboard(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab") if page.evaluate("document.activeElement.id") != "text" else None
    page.keyboard.type(TEXT)
    expect(result(page)).to_be_visible()
    stops, copied = [], ""
    while (stop := page.evaluate(STOP))["name"] != "body" and stop["id"] not in [s["id"] for s in stops if s["id"]]:
        stops.append(stop)
        if stop["id"] == "rate":
            for _ in range(20):
                page.keyboard.press("ArrowRight")
        if stop["name"] == "Copy":
            expect(tokens(page)).to_have_text(str(laconic.compress(TEXT, rate=0.6).tokens_after))
            page.keyboard.press("Enter")
            expect(page.locator(".copy")).to_have_text("Copied")
            copied = page.evaluate("navigator.clipboard.readText()")
        page.keyboard.press("Tab")
    assert [s for s in stops if not s["outlined"]] == []
    reached = {s["id"] for s in stops}
    assert {"text", "example", "file", "by-rate", "rate", "rate-number", "question", "price", "compare"} <= reached
    assert copied == laconic.compress(TEXT, rate=0.6).text


STOP = """() => {
  const node = document.activeElement;
  const seen = node.matches('.switch input, .file input') ? node.nextElementSibling : node;
  const outlined = getComputedStyle(seen).outlineStyle !== 'none';
  return { id: node.id, name: node === document.body ? 'body' : node.textContent.trim(), outlined };
}"""
UNNAMED = """() => [...document.querySelectorAll('input, select, textarea, button, a, [role=region], nav')]
  .filter((n) => n.checkVisibility())
  .filter((n) => !(n.labels?.length || n.ariaLabel || (n.tagName !== 'SELECT' && n.textContent.trim())))
  .map((n) => n.outerHTML)"""
CONTRASTS = """() => {
  const parse = (c) => { const [r, g, b, a = 1] = c.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, k) => v * a + under[k] * (1 - a));
  const back = (n) => { const c = parse(getComputedStyle(n).backgroundColor);
    return c[3] === 1 ? c.slice(0, 3) : over(c, n.parentElement ? back(n.parentElement) : [255, 255, 255]); };
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = {};
  for (const n of document.querySelectorAll('body *')) {
    const own = [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    if (!own && !n.matches('input, textarea') || !n.checkVisibility() || n.disabled) continue;
    const ground = back(n);
    const [a, b] = [light(over(parse(getComputedStyle(n).color), ground)), light(ground)].sort((x, y) => y - x);
    const name = n.tagName + '.' + n.className;
    found[name] = Math.min(found[name] ?? 99, (a + 0.05) / (b + 0.05));
  }
  return found;
}"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(visit, server, scheme):
    server.ledger = entries()
    page = visit(color_scheme=scheme)
    paste(page, json.dumps(CHAT))
    page.locator("summary").click()
    page.locator("#compare").click()
    expect(page.locator("#ledger tbody tr")).to_have_count(3)
    page.locator(".card:nth-child(2) .method").select_option("bm25")
    assert page.evaluate(UNNAMED) == []
    page.wait_for_timeout(400)
    contrasts = page.evaluate(CONTRASTS)
    assert {"DEL.", "MARK.k1", "MARK.k4", "TEXTAREA."} <= contrasts.keys()
    assert {name: round(c, 2) for name, c in contrasts.items() if c < 4.5} == {}
    assert page.locator("h1").count() == 1 and page.locator("main, header.top, nav").count() == 3
    expect(page.locator("#status")).to_contain_text("tokens to")
    struck = page.locator(".map del").first.evaluate("n => getComputedStyle(n).textDecorationLine")
    assert struck == "line-through"  # not told by colour alone


@needs_browser
def test_nothing_moves_for_those_who_do_not_want_it(visit):
    page = visit(reduced_motion="reduce")
    moves = "[...document.querySelectorAll('*')].some((n) => parseFloat(getComputedStyle(n).transitionDuration) > 0)"
    assert page.evaluate(moves) is False


@needs_browser
@pytest.mark.parametrize("width", [320, 360, 768, 1024])
def test_no_width_scrolls_sideways(visit, server, width):
    server.ledger = entries()
    page = visit(viewport={"width": width, "height": 740})
    paste(page, "averylongword" * 60 + " " + TEXT)
    page.locator("#compare").click()
    page.locator("summary").click()
    expect(result(page, 2)).to_be_visible()
    expect(page.locator("#ledger tbody tr")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@needs_browser
def test_no_other_host_is_asked_and_the_policy_holds(visit, server):
    page = visit()
    page.locator("#example").click()
    expect(result(page)).to_be_visible()
    page.locator("#chat-example").click()
    expect(page.locator(".map h3").first).to_be_visible()
    assert page.hosts <= {server.url.split("/")[2], ""} and page.errors == []
    broken = page.evaluate(
        """async () => {
          const broken = [];
          document.addEventListener('securitypolicyviolation', (e) => broken.push(e.effectiveDirective));
          const script = document.createElement('script');
          script.textContent = 'window.hacked = true';
          const image = document.createElement('img');
          image.src = 'http://example.invalid/';
          document.body.append(script, image);
          await fetch('http://example.invalid/').catch(() => 0);
          await new Promise((done) => setTimeout(done, 100));
          return [...broken.sort(), window.hacked];
        }"""
    )
    assert broken == ["connect-src", "img-src", "script-src-elem", None]


@needs_browser
@pytest.mark.skipif(not PICTURES, reason="set LACONIC_SCREENSHOTS=docs/images to write the pictures")
@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("light", 1280, 1130, "light"), ("dark", 1280, 1500, "dark"), ("phone", 360, 1560, "light")],
)
def test_pictures_for_the_documentation(visit, server, name, width, height, scheme):
    server.ledger = entries()
    page = visit(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.locator("#example").click()
    expect(result(page)).to_be_visible()
    if name == "dark":
        page.locator("#compare").click()
        expect(result(page, 2)).to_be_visible()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(500)  # until nothing moves
    path = Path(PICTURES, f"page-{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    Image.open(path).quantize(96).save(path, optimize=True)
    assert path.stat().st_size < 200_000
