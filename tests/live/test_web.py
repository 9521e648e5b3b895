"""The page's server: what it gives, whom it lets in, and what hostile clients can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from contextlib import asynccontextmanager

import pytest

from videosr.errors import OutputError
from videosr.live.door import Door
from videosr.live.front import Front, FrontOptions
from videosr.live.metrics import prometheus
from videosr.live.segments import Chunk
from videosr.live.server import State
from videosr.live.timeline import TICKS

aiohttp = pytest.importorskip("aiohttp")
web = pytest.importorskip("videosr.live.web")

STATUS = {
    "frames_in": 5,
    "frames_out": 5,
    "dropped": {"late": 0},
    "under_way": 0,
    "queues": {},
    "level": 0,
    "connected": True,
    "losses": 0,
    "viewers": 0,
    "latency": {"counts": [0] * 17, "total": 0.0},
    "outputs": [],
}


def test_names_of_outputs_are_escaped_in_the_figures():
    text = prometheus(STATUS | {"queues": {'output a"b.m3u8': 3}})
    assert r'videosr_queue_depth{queue="output a\"b.m3u8"} 3' in text.splitlines()


def feed(front: Front, seconds: int = 3) -> None:
    take = front.taker("upscaled")
    for n in range(seconds * 10):
        take(Chunk(bytes([n]) * 188, n % 10 == 0, n * TICKS // 10))
    front.tell(STATUS)


def fill(front: Front) -> None:
    """Feed it, and wait until it has taken all."""

    async def healthy() -> None:
        while (await get(front, "/healthz"))[0] != 200:
            await asyncio.sleep(0.05)

    feed(front)
    asyncio.run(healthy())


@pytest.fixture(scope="module")
def front():
    served = Front(FrontOptions(http=("127.0.0.1", 0)))
    fill(served)
    yield served
    served.close()


@pytest.fixture(scope="module")
def locked():
    served = Front(FrontOptions(http=("127.0.0.1", 0), token="open sesame/é"))
    fill(served)
    yield served
    served.close()


@asynccontextmanager
async def client(front: Front, **more):
    async with aiohttp.ClientSession(f"http://127.0.0.1:{front.http_port}", **more) as session:
        yield session


async def get(front: Front, path: str, **more) -> tuple[int, bytes, dict[str, str]]:
    async with client(front) as session, session.get(path, **more) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


def test_the_page_and_all_it_needs(front):
    async def main() -> None:
        status, body, headers = await get(front, "/")
        assert status == 200
        assert b"<title>videosr live</title>" in body
        assert b"//" not in body.replace(b"<!doctype", b"")[body.index(b"<body>") :], "nothing from elsewhere"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        for name, kind in (
            ("page.css", "text/css"),
            ("page.js", "text/javascript"),
            ("hls.min.js", "text/javascript"),
        ):
            status, _, headers = await get(front, f"/{name}")
            assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)

    asyncio.run(main())


def test_playlist_segments_figures_and_health(front):
    async def main() -> None:
        status, body, _ = await get(front, "/upscaled.m3u8")
        assert status == 200
        lines = body.decode().splitlines()
        assert [line for line in lines if line.endswith(".ts")] == ["upscaled/0.ts", "upscaled/1.ts"]
        status, body, headers = await get(front, "/upscaled/1.ts")
        assert (status, len(body), headers["Content-Type"]) == (200, 1880, "video/mp2t")
        assert body[0] == 10
        assert (await get(front, "/upscaled/99.ts"))[0] == 404
        assert (await get(front, "/healthz"))[:2] == (200, b"ok\n")
        assert b"videosr_frames_in_total 5\n" in (await get(front, "/metrics"))[1]
        assert json.loads((await get(front, "/api/status"))[1])["frames_in"] == 5

    asyncio.run(main())


def test_the_head_of_an_endless_answer_ends(front):
    answer = raw(front, b"HEAD /live.ts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200"
    assert b"Content-Type: video/mp2t" in head
    assert body == b""


def test_at_the_end_all_is_listed_and_who_follows_is_let_go():
    """Players are some seconds behind, and the last segment is open until nothing more comes."""
    served = Front(FrontOptions(http=("127.0.0.1", 0)))

    async def main() -> None:
        _, body, _ = await get(served, "/upscaled.m3u8")
        assert (b"upscaled/2.ts" in body, b"ENDLIST" in body) == (False, False)
        following = asyncio.create_task(get(served, "/live.ts"))
        while not served.playing:
            await asyncio.sleep(0.05)
        served.over(STATUS)
        while b"ENDLIST" not in body:
            _, body, _ = await get(served, "/upscaled.m3u8")
        assert body.endswith(b"upscaled/2.ts\n#EXT-X-ENDLIST\n")
        last = b"".join(bytes([n]) * 188 for n in range(20, 30))
        assert (await get(served, "/upscaled/2.ts"))[1] == last
        assert (await following)[1] == last
        assert (await get(served, "/live.ts"))[1] == last, "who comes too late is not kept"
        assert json.loads((await get(served, "/api/status"))[1])["ended"]
        assert (await get(served, "/healthz"))[0] == 503

    try:
        fill(served)
        asyncio.run(main())
    finally:
        served.close()


def test_looking_at_the_source_is_noticed(front):
    async def main() -> None:
        assert not front.wanted
        request = asyncio.create_task(get(front, "/source.m3u8"))
        for _ in range(200):
            await asyncio.sleep(0.05)
            if front.wanted:
                break
        assert front.wanted
        request.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/upscaled/../../etc/passwd",
        "/upscaled/1.ts/../../x",
        "/page/index.html",
        "/etc/passwd",
        "/upscaled/-1.ts",
        "/upscaled/1e9.ts",
        "/upscaled/99999999999999999999.ts",
        "/index.html",
        "//etc/passwd",
        "/\x00",
    ],
)
def test_no_path_leads_to_a_file(front, path):
    answer = raw(front, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"404", b"400")
    assert b"root:" not in answer


def raw(front: Front, request: bytes) -> bytes:
    """The whole answer to raw bytes."""
    with socket.create_connection(("127.0.0.1", front.http_port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def test_other_methods_and_bodies_are_refused(front):
    async def main() -> None:
        async with client(front) as session:
            for method in ("POST", "PUT", "DELETE"):
                async with session.request(method, "/", data=b"x" * 100_000) as answer:
                    assert answer.status == 405

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=["long header", "many headers", "long path", "garbage", "negative length"],
)
def test_malformed_requests_are_refused(front, request_):
    with socket.create_connection(("127.0.0.1", front.http_port), timeout=30) as connection:
        try:
            connection.sendall(request_)
            answer = connection.recv(100)
        except ConnectionError:  # hung up on before all was sent
            answer = b"HTTP/1.0 400"
    assert answer.split()[1] == b"400"
    assert asyncio.run(get(front, "/healthz"))[0] == 200


def test_the_token_is_asked_for_everywhere(locked):
    async def main() -> None:
        for path in ("/", "/upscaled.m3u8", "/upscaled/0.ts", "/live.ts", "/metrics", "/api/status", "/nothing"):
            assert (await get(locked, path))[0] == 401
            assert (await get(locked, path, params={"token": "wrong"}))[0] == 401
        assert (await get(locked, "/healthz"))[0] == 200
        bearer = {"Authorization": "Bearer open sesame/é"}
        assert (await get(locked, "/metrics", params={"token": "open sesame/é"}))[0] == 200
        assert (await get(locked, "/metrics", headers=bearer))[0] == 200

    asyncio.run(main())


def test_with_the_token_in_the_address_players_and_pages_go_on_by_themselves(locked):
    async def main() -> None:
        _, body, _ = await get(locked, "/upscaled.m3u8", params={"token": "open sesame/é"})
        segment = next(line for line in body.decode().splitlines() if ".ts" in line)
        async with client(locked) as session, session.get(f"/{segment}") as answer:
            assert answer.status == 200
        async with client(locked, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get("/", params={"token": "open sesame/é"}) as answer:
                assert answer.status == 200
            async with session.get("/api/status") as answer:
                assert answer.status == 200

    asyncio.run(main())


def test_a_flood_of_silent_connections_locks_nobody_out(front):
    """More than the door lets in: the oldest idle ones make room."""
    connections = []
    try:
        for _ in range(600):
            connection = socket.create_connection(("127.0.0.1", front.http_port), timeout=30)
            connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            connections.append(connection)
        assert asyncio.run(get(front, "/healthz"))[0] == 200
        feed(front)
        assert asyncio.run(get(front, "/upscaled.m3u8"))[0] == 200
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_takes_nothing_does_not_hold_up_the_stream(front):
    with socket.create_connection(("127.0.0.1", front.http_port), timeout=30) as connection:
        connection.sendall(b"GET /live.ts HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
        take = front.taker("upscaled")
        for n in range(400):
            take(Chunk(b"x" * 188 * 500, n % 10 == 0, (30 + n) * TICKS // 10))
        assert asyncio.run(get(front, "/healthz"))[0] == 200


class Inner(asyncio.Protocol):
    """A protocol that does nothing."""


def test_answers_that_nobody_takes_do_not_pile_up(monkeypatch):
    """A client may send thousands of requests and read nothing; others come between."""
    doors: list[Door] = []
    monkeypatch.setattr(web, "Door", lambda *args: doors.append(Door(*args)) or doors[-1])

    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        server = await web.listen(State(FrontOptions()), sock)
        _, writer = await asyncio.open_connection(*sock.getsockname(), limit=1024)
        while not len(doors[0]):
            await asyncio.sleep(0.01)
        greedy = next(iter(doors[0]._guards))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000)
        while not greedy.get_write_buffer_size():
            await asyncio.sleep(0.01)
        for _ in range(20):
            reader, other = await asyncio.open_connection(*sock.getsockname())
            other.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503")
            other.close()
            assert greedy.get_write_buffer_size() < 2**17
        writer.transport.abort()
        server.close()

    asyncio.run(main())


def at_door(main, idle: float) -> None:
    """Run it with a door for three connections, and the port on which that listens."""

    async def run() -> None:
        door = Door(Inner, limit=3, idle=idle)
        server = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
        await main(door, server.sockets[0].getsockname()[1])
        server.close()

    asyncio.run(run())


def test_the_door_closes_what_is_idle_and_makes_room():
    async def main(door: Door, port: int) -> None:
        busy, writer = await asyncio.open_connection("127.0.0.1", port)
        while not len(door):
            await asyncio.sleep(0.01)
        door.begin(next(iter(door._guards)))
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        while door.refused < 3:  # aborted to make room
            await asyncio.sleep(0.01)
        assert len(door) == 3
        watch = asyncio.create_task(door.watch())
        while len(door) > 1:  # aborted for being idle
            await asyncio.sleep(0.01)
        assert [await reader.read() for reader, _ in others] == [b""] * 5
        assert not busy.at_eof()
        writer.close()
        watch.cancel()

    at_door(main, idle=1)


def test_who_has_been_idle_longest_makes_room():
    """Not who came first: viewers come and stay, and ask for something every few seconds."""

    async def main(door: Door, port: int) -> None:
        clients = []
        for n in range(3):
            clients.append(await asyncio.open_connection("127.0.0.1", port))
            while len(door) <= n:
                await asyncio.sleep(0.01)
        viewer = next(iter(door._guards))
        await asyncio.sleep(0.02)
        door.begin(viewer)
        door.done(viewer)
        clients.append(await asyncio.open_connection("127.0.0.1", port))
        assert await clients[1][0].read() == b""
        assert viewer in door._guards
        for _, writer in clients:
            writer.close()

    at_door(main, idle=60)


def until(condition) -> None:
    """Looks are counted, not seconds: a machine may stand still for longer than anything takes."""
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it does not come to that")


def test_clients_that_have_gone_keep_no_place_while_nothing_flows():
    served = Front(FrontOptions(http=("127.0.0.1", 0), listeners=(("127.0.0.1", 0),)))
    try:
        ways = [(served.ports[0], b"")] * 70 + [(served.http_port, b"GET /live.ts HTTP/1.1\r\nHost: a\r\n\r\n")] * 300
        for port, request in ways:
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.sendall(request)
        last = socket.create_connection(("127.0.0.1", served.ports[0]))
        page = socket.create_connection(("127.0.0.1", served.http_port))
        page.sendall(ways[-1][1])
        until(lambda: served.viewers == 2)
        feed(served, 1)
        for client in (last, page):
            got = b""
            client.settimeout(30)
            while bytes([9]) * 188 not in got:
                got += (more := client.recv(1 << 16))
                assert more
            client.close()
        until(lambda: served.viewers == 0)
    finally:
        served.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_process_that_takes_nothing_is_not_waited_for():
    served = Front(FrontOptions(listeners=(("127.0.0.1", 0),)))
    take = served.taker("upscaled")
    os.kill(served._process.pid, signal.SIGSTOP)

    def feeding() -> None:
        with contextlib.suppress(OutputError):
            while True:
                take(Chunk(b"x" * 1_000_000, True, 0))

    feeder = threading.Thread(target=feeding, daemon=True)
    feeder.start()
    closer = threading.Thread(target=served.close, daemon=True)
    closer.start()
    for thread in (closer, feeder):
        thread.join(60)
        assert not thread.is_alive()


def test_the_process_ends_with_its_pipeline():
    served = Front(FrontOptions(listeners=(("127.0.0.1", 0),)))
    served.close()
    assert served._process.exitcode == 0
