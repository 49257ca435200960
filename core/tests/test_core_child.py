from __future__ import annotations

import asyncio
import signal
import sys
import textwrap

import psutil
import pytest

from locex.jobs.workers import Worker
from locex.processes.child import Child, identity_of, python, reap

ECHO = """
import os, sys
from locex.processes.channel import Channel
channel = Channel.take()
{}
while (message := channel.receive()) is not None:
    channel.send(message)
"""


@pytest.fixture
async def start():
    children = []

    async def start(code, **environment):
        child = await Child.start([sys.executable, "-c", textwrap.dedent(code)], environment=environment)
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        await child.wait()


def echo(line=""):
    return ECHO.format(line)


async def gone(pid):
    """Wait until a process is no more, or only waits to be reaped by whoever adopted it."""
    while psutil.pid_exists(pid):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        await asyncio.sleep(0.02)


async def _send_to_the_ended():
    child = await Child.start([sys.executable, "-c", "raise SystemExit('it cannot start')"])
    assert await child.exited() == 1
    await asyncio.sleep(0.1)  # the loop sees that the pipe is closed
    await child.send({"text": "into the void"})
    assert await child.receive() is None
    await child.wait()
    assert child.log == "it cannot start"


async def test_a_child_that_has_ended_is_noticed_by_receive_not_by_send():
    await _send_to_the_ended()


def test_so_it_is_on_uvloop():
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_send_to_the_ended())


async def test_messages_go_both_ways_whatever_is_printed(start):
    noise = 'print("{}"); os.write(1, b"[1]\\n"); os.system("echo shouted"); assert sys.stdin.read() == ""'
    child = await start(echo(noise))
    for message in ({"text": "ünïcode\nand lines"}, {"number": 1e300, "list": [None, True]}, {"nan": float("inf")}):
        await child.send(message)
        assert await child.receive() == message
    assert {"[1]", "shouted", "{}"} <= {*child.log.splitlines()}


async def test_large_messages_pass_and_those_over_the_limit_are_dropped(start):
    child = await start(echo())
    await child.send({"text": "x" * 2**22})
    assert len((await child.receive())["text"]) == 2**22
    child = await start(
        'import sys; sys.stdout.write("{" + "x" * 2**25 + "\\n[1]\\nnonsense\\n{\\"kind\\": \\"after\\"}\\n")'
    )
    assert await child.receive() == {"kind": "after"}
    assert "a message over the limit was dropped" in child.log
    assert "nonsense" in child.log
    assert await child.receive() is None


async def test_a_child_that_is_gone_takes_no_message_and_gives_none(start):
    child = await start("raise SystemExit(7)")
    assert await child.exited() == 7
    await child.send({"to": "nobody"})
    await child.send({"to": "nobody"})
    assert await child.receive() is None
    assert [await child.wait(), *await asyncio.gather(child.wait(), child.wait())] == [7, 7, 7]


async def test_a_wait_that_is_cancelled_may_be_repeated(start):
    child = await start(echo())
    waiting = asyncio.create_task(child.wait())
    await asyncio.sleep(0.05)
    waiting.cancel()
    child.kill()
    assert await child.wait() == -signal.SIGKILL


async def test_standard_error_is_kept_bounded_in_memory_and_on_disk(start, tmp_path, eventually):
    code = """
        import sys
        sys.stderr.write("early\\n"); sys.stderr.flush(); sys.stdin.readline()
        for number in range(60000):
            sys.stderr.write(f"line {number} " + "é" * 20 + "\\n")
        sys.stderr.write("long " + "x" * 300000 + "\\nlast words without an end")
    """
    child = await start(code)
    await eventually(lambda: "early" in child.log)
    child.keep_log(tmp_path / "worker.log")
    await child.send({})
    assert await child.wait() == 0
    lines = child.log.splitlines()
    assert len(lines) <= 40
    assert lines[-1] == "last words without an end"
    assert max(map(len, lines)) <= 2000
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["worker.log", "worker.log.1"]
    assert all(file.stat().st_size <= 2**20 for file in files)
    kept = files[1].read_text(encoding="utf-8") + files[0].read_text(encoding="utf-8")
    assert "line 59999 " + "é" * 20 + "\n" in kept
    assert "\ufffd" not in kept, "no character was cut in two"


async def test_what_was_said_before_the_log_began_begins_it(start, tmp_path, eventually):
    child = await start("import sys; sys.stderr.write('early\\n')")
    await child.exited()
    await eventually(lambda: child.log)
    child.keep_log(tmp_path / "worker.log")
    await child.wait()
    assert (tmp_path / "worker.log").read_text() == "early\n"


FAMILY = """
    import subprocess, sys, json, signal
    {before}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(json.dumps({{"grandchild": child.pid}}), flush=True)
    {after}
"""


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("", "child.wait()", -signal.SIGTERM),
        ("", "sys.exit(3)", 3),
        (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "child.wait(); child.wait(); signal.pause()",
            -signal.SIGKILL,
        ),
    ],
)
async def test_grandchildren_end_with_the_group(start, before, after, code):
    child = await start(FAMILY.format(before=before, after=after))
    grandchild = (await child.receive())["grandchild"]
    if code == 3:  # gone by itself, while the grandchild holds its pipes
        assert await child.exited() == 3
    assert await child.end(0.2 if before else 30) == code
    await gone(grandchild)


async def test_a_grandchild_that_left_the_group_keeps_nobody_waiting(start):
    code = FAMILY.replace('time.sleep(600)"]', 'time.sleep(600)"], start_new_session=True')
    child = await start(code.format(before="", after="sys.exit(3)"))
    grandchild = (await child.receive())["grandchild"]
    try:
        assert await asyncio.wait_for(child.wait(), 30) == 3
    finally:
        psutil.Process(grandchild).kill()


async def test_a_child_that_obeys_is_not_killed(start):
    code = 'import signal, sys; signal.signal(15, lambda *_: sys.exit(9)); print("{}", flush=True); signal.pause()'
    child = await start(code)
    assert await child.receive() == {}
    assert await child.end(30) == 9


async def test_kill_spares_a_later_process_of_the_same_id(start, monkeypatch):
    child = await start("")
    assert await child.exited() == 0
    stranger = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    monkeypatch.setattr(child._process._transport, "_pid", stranger.pid)
    monkeypatch.setattr(type(child), "pid", stranger.pid)
    child.kill()
    assert psutil.Process(stranger.pid).status() != psutil.STATUS_ZOMBIE
    stranger.kill()
    assert await stranger.wait() == -signal.SIGKILL


async def test_reaping_needs_the_very_process(start):
    child = await start(echo())
    assert child.identity == identity_of(child.pid)
    assert not reap(child.pid, None)
    assert not reap(child.pid, "another boot:17")
    assert psutil.pid_exists(child.pid)
    assert reap(child.pid, child.identity)
    assert await child.wait() == -signal.SIGKILL
    assert not reap(child.pid, child.identity)
    assert identity_of(child.pid) is None


SERVICE = """
    import asyncio, json, sys
    from locex.jobs.workers import Worker
    from locex.settings import NodeSettings

    async def main():
        worker = await Worker.start(NodeSettings())
        print(worker.child.pid, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""


async def test_a_worker_ends_with_its_service_even_when_that_is_killed():
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(SERVICE), stdout=-1)
    worker = int(await service.stdout.readline())
    assert psutil.Process(worker).cmdline()[-1] == "locex.worker"
    service.kill()
    await service.wait()
    await gone(worker)


async def test_a_worker_that_is_told_nonsense_ends_rather_than_outlive_its_service(settings):
    worker = await Worker.start(settings)
    await worker.child.send({"kind": "of another version"})
    assert await worker.receive_any() is None
    assert await worker.child.wait() == -signal.SIGKILL
    assert "ValidationError" in worker.child.log


async def test_no_secret_of_the_service_is_in_a_workers_environment(settings, monkeypatch):
    monkeypatch.setenv("LOCEX_STORE_URL", "mongodb://user:password@db")
    monkeypatch.setenv("LOCEX_API_TOKEN_FILE", "/run/secrets/tokens")
    monkeypatch.setenv("KEPT", "1")
    worker = await Worker.start(settings)
    environment = psutil.Process(worker.child.pid).environ()
    await worker.end()
    assert environment["KEPT"] == "1"
    assert environment["DATA_FOLDER"] == str(settings.data_folder)
    assert not {"LOCEX_STORE_URL", "LOCEX_API_TOKEN_FILE"} & environment.keys()
    assert "password" not in str(environment)


async def test_an_idle_worker_sends_nothing_that_would_pile_up(settings):
    worker = await Worker.start(settings)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.receive_any(), 2.5)
    await worker.end()
    assert not psutil.pid_exists(worker.child.pid)


def test_argv_names_our_interpreter_unless_another_is_given():
    assert python("locex.worker") == [sys.executable, "-m", "locex.worker"]
    assert python("m", "a", interpreter="/opt/python")[0] == "/opt/python"
