"""Pages of other sites in a real browser, against a Studio on the same machine: requests, frames, DNS rebinding."""

from __future__ import annotations

import asyncio
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.studio_server import Server, chromium, studio

HOST_RULES = "MAP evil.test 127.0.0.1, MAP studio.test 127.0.0.1"
ATTACK = """async address => {
  const call = address + '/gradio_api/call/save_calibration', body = '{"data": ["Eve", 0.5, 1.0]}';
  const form = new FormData();
  form.append('files', new File(['evil'], 'evil.png'));
  const send = (to, settings) => fetch(to, {method: 'POST', credentials: 'include', ...settings});
  const done = await Promise.allSettled([
    send(call, {body, mode: 'no-cors'}),
    send(call, {body, headers: {'Content-Type': 'application/json'}}),
    send(address + '/gradio_api/upload', {body: form, mode: 'no-cors'}),
    fetch(address + '/config'),
  ]);
  const frame = document.body.appendChild(document.createElement('iframe'));
  frame.src = address;
  await new Promise(done => frame.onload = done);
  return done.map(each => each.status === 'fulfilled' ? each.value.type : 'refused');
}"""


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    with studio(run / "r.onnx", "--no-train", "--allow-host", "studio.test", folder=folder) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium that resolves all foreign names to this machine."""
    with chromium(f"--host-resolver-rules={HOST_RULES}") as browser:
        yield browser


@pytest.fixture(scope="module")
def attacker_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of another site's web server."""
    folder = tmp_path_factory.mktemp("attacker")
    (folder / "index.html").write_text("<title>evil</title><body>")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port
        site.shutdown()


def uploads_of_attack(server: Server) -> list[Path]:
    return [path for path in server.temporary.rglob("evil*") if path.is_file()]


@pytest.mark.parametrize(
    ("site_name", "studio_name"), [("evil.test", "127.0.0.1"), ("localhost", "127.0.0.1"), ("localhost", "localhost")]
)
def test_foreign_page_can_neither_call_nor_read_nor_frame_the_studio(
    browser: Any, server: Server, attacker_port: int, site_name: str, studio_name: str
) -> None:
    address = server.address.replace("127.0.0.1", studio_name)
    page = browser.new_page()
    failures: dict[str, str] = {}
    page.on("requestfailed", lambda request: failures.update({request.url.removeprefix(address): request.failure}))
    page.goto(f"http://{site_name}:{attacker_port}/")
    assert page.evaluate(ATTACK, address) == ["refused"] * 4
    frame = page.frames[1]
    assert frame.url.startswith("chrome-error:") or "gradio" not in frame.content()
    # The request was sent: the Studio has refused it, not the browser.
    assert failures["/gradio_api/upload"] == "net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin"
    assert not (server.store / "calibrations").exists() and uploads_of_attack(server) == []
    page.close()


def test_rebound_dns_name_shows_nothing(browser: Any, server: Server) -> None:
    """After DNS rebinding, the attacker's page and the Studio have one origin in the browser."""
    page = browser.new_page()
    answer = page.goto(server.address.replace("127.0.0.1", "evil.test"))
    assert answer.status == 403 and "not a name of this Studio" in page.inner_text("body")
    status = page.evaluate("""async () => (await fetch('/gradio_api/call/save_calibration', {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{"data": ["Eve", 0.5, 1.0]}'})).status""")
    assert status == 403 and not (server.store / "calibrations").exists()
    page.close()


def test_link_on_another_site_opens_the_studio(browser: Any, server: Server, attacker_port: int) -> None:
    page = browser.new_page()
    page.goto(f"http://evil.test:{attacker_port}/")
    page.evaluate("address => { location.href = address }", server.address)
    page.wait_for_selector("#viewer .empty", timeout=60_000)
    page.close()


def test_page_keeps_its_content_security_policy(browser: Any, server: Server) -> None:
    page = browser.new_page()
    page.add_init_script(
        "window.violations = []; document.addEventListener('securitypolicyviolation',"
        " event => window.violations.push(event.violatedDirective + ' ' + event.blockedURI))"
    )
    page.goto(server.address)
    page.wait_for_selector("#viewer .empty", timeout=60_000)
    for tab in ("Compare", "Artifact", "Inspect"):
        page.get_by_role("tab", name=tab).click()
    # A run's report is shown in a frame of the page itself.
    page.evaluate("""() => {
      const frame = document.createElement('iframe');
      frame.sandbox = '';
      frame.srcdoc = '<style>b { width: 7px; display: block }</style><b>report</b><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">';
      document.body.append(frame);
    }""")
    report = page.frame_locator("iframe[srcdoc]").locator("b")
    assert report.inner_text() == "report" and report.bounding_box()["width"] == 7
    assert page.evaluate("window.violations") == []
    # The policy is in force: a handler in inserted markup does not run.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\">')")
    page.wait_for_function("window.violations.length > 0")
    assert page.evaluate("window.ran") is None
    page.close()


def test_studio_works_through_a_tls_proxy(browser: Any, server: Server, parts: Path, tmp_path: Path) -> None:
    picture = next(parts.rglob("*.png"))
    with tls_proxy(int(server.address.rpartition(":")[2]), tmp_path) as port:
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        page.goto(f"https://studio.test:{port}/")
        page.wait_for_selector("#viewer .empty", timeout=60_000)
        page.set_input_files("#drop input[type=file]", str(picture))
        page.wait_for_selector("#viewer .banner", timeout=60_000)
        page.wait_for_function("document.querySelector('#viewer img').naturalWidth > 0")
        page.click("#sign-off button")
        page.fill("#signer input, #signer textarea", "Ada")
        page.click("#sign")
        page.wait_for_selector("#signed .good")
        context.close()
    (saved,) = (server.store / "calibrations").iterdir()
    saved.unlink()
    saved.parent.rmdir()


@contextmanager
def tls_proxy(target_port: int, folder: Path) -> Iterator[int]:
    """Run a proxy that ends TLS for studio.test; yield its port."""
    certificate = write_certificate("studio.test", folder / "certificate.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    connections: set[asyncio.StreamWriter] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(2**16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        studio_reader, studio_writer = await asyncio.open_connection("127.0.0.1", target_port)
        connections.update((writer, studio_writer))
        await asyncio.gather(pump(reader, studio_writer), pump(studio_reader, writer))

    async def serve(ready: Future[tuple[int, Callable[[], object]]]) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            ready.set_result((port, partial(loop.call_soon_threadsafe, stop.set)))
            await stop.wait()
        for connection in connections:
            connection.transport.abort()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)

    ready: Future[tuple[int, Callable[[], object]]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(serve(ready)))
    thread.start()
    port, stop = ready.result(30)
    yield port
    stop()
    thread.join()


def write_certificate(name: str, path: Path) -> Path:
    """Write a self-signed certificate for one day, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now().astimezone()
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
