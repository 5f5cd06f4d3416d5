"""What `make demo` runs: an agent that remembers across processes, on a Tenure of its own.

It starts a whole local Tenure (Postgres, Valkey and the server) in a temporary folder, lets two processes
that share nothing else talk to the agent, looks at the thread, shows that a fact told in one thread is known
in another one and that another tenant sees nothing, and stops everything. The exit code is 0 only if all of
that came out as it should.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parents[1]
START_SECONDS = 120
STOP_SECONDS = 30


def main() -> int:
    began = time.monotonic()
    thread_id = str(uuid4())
    step("Starting a local Tenure: Postgres, Valkey and the server, in a temporary folder")
    with local_tenure() as tenure:
        say(f"serving on {tenure['target']} after {time.monotonic() - began:.1f} s")
        checks = [
            *remembers(tenure, thread_id),
            *keeps_history(tenure, thread_id),
            *knows_the_user(tenure),
            *isolates(tenure, thread_id),
        ]
        step("Stopping everything")
    say("stopped, and the folder is gone")

    failed = [what for what, came_out in checks if not came_out]
    print()
    for what in failed:
        print(f"FAILED: {what}")
    if failed:
        return 1
    print(f"The memory works: {len(checks)} checks in {time.monotonic() - began:.0f} s. What next:")
    print("""
    .venv/bin/tenure dev                   a Tenure that keeps its data; it prints two lines to paste
    .venv/bin/python -m examples.chatbot   in a second terminal, after pasting them
    examples/README.md                     the other examples: time travel, approval by a human, ...
    README.md                              ten lines that give your own graph this memory
""")
    return 0


def remembers(tenure: dict[str, str], thread_id: str) -> Iterator[tuple[str, bool]]:
    step("Process 1 tells the agent its name, and ends")
    told = talk(tenure, tenure["api_key"], thread_id, "Hi! I'm Bob.")
    yield "the agent answers", "Hi Bob!" in told

    step("Process 2, started afterwards, asks the agent")
    answer = talk(tenure, tenure["api_key"], thread_id, "What's my name?")
    yield "the agent remembers a name told in another process", "Your name is Bob." in answer


def keeps_history(tenure: dict[str, str], thread_id: str) -> Iterator[tuple[str, bool]]:
    from tenure_client import TenureSaver

    from examples import chatbot

    step("The thread's history (get_state_history), newest first")
    with TenureSaver(tenure["target"], api_key=tenure["api_key"]) as saver:
        config = {"configurable": {"thread_id": thread_id}}
        history = list(chatbot.build(saver).get_state_history(config))
    for snapshot in history:
        last = [message.text for message in snapshot.values["messages"]][-1:]
        metadata = snapshot.metadata
        say(f"step {metadata['step']:2}  {metadata['source']:5}  {' '.join(last) or '(empty)'}")
    yield "two turns leave six snapshots", len(history) == 6


def knows_the_user(tenure: dict[str, str]) -> Iterator[tuple[str, bool]]:
    step("Long-term memory: a fact told in one thread, asked for in another one by another process")
    told = talk(tenure, tenure["api_key"], str(uuid4()), "Remember that I am allergic to peanuts.", "bob")
    yield "the agent keeps a fact", "I'll remember that." in told
    answer = talk(tenure, tenure["api_key"], str(uuid4()), "What do you remember?", "bob")
    yield "the agent knows a fact from another thread", "I am allergic to peanuts" in answer


def isolates(tenure: dict[str, str], thread_id: str) -> Iterator[tuple[str, bool]]:
    step("A second tenant asks with its own key, in the thread of the same id")
    made = subprocess.run(
        [sys.executable, "-m", "tenure_server", "tenant", "create", "other", "--key", "read,write", "--json"],
        env={**os.environ, "TENURE_ADMIN_DATABASE_URL": tenure["database_url"]},
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer = talk(tenure, json.loads(made.stdout)["api_key"], thread_id, "What's my name?")
    yield "another tenant sees nothing", "I don't know your name" in answer


def talk(tenure: dict[str, str], api_key: str, thread_id: str, text: str, *user_id: str) -> str:
    """Say something to the agent in a new process, maybe as a user, and return what the process printed."""
    env = {**os.environ, "TENURE_TARGET": tenure["target"], "TENURE_API_KEY": api_key}
    env.pop("TENURE_CA", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", thread_id, text, *user_id],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate()
    say(f"[process {process.pid}]")
    say(output.strip())
    return output


def one_turn(thread_id: str, text: str, user_id: str | None = None) -> None:
    """The whole of a process that `talk` starts."""
    from tenure_client import TenureSaver, TenureStore

    from examples import chatbot, long_term_memory

    with TenureSaver() as saver:
        config = {"configurable": {"thread_id": thread_id}}
        if user_id is None:
            state = chatbot.build(saver).invoke({"messages": [text]}, config)
        else:
            graph = long_term_memory.build(saver, TenureStore(saver.connection))
            context = long_term_memory.Context(user_id)
            state = graph.invoke({"messages": [text]}, config, context=context)
    print("You:  ", text)
    print("Agent:", state["messages"][-1].text)


@contextmanager
def local_tenure() -> Iterator[dict[str, str]]:
    """Run `tenure dev` in a temporary folder and give what its ready file says."""
    folder = Path(tempfile.mkdtemp(prefix="tenure-demo-"))
    folder.chmod(0o711)  # as root, Postgres runs as another account, which has to get through
    ready, log = folder / "ready.json", folder / "server.log"
    try:
        with log.open("wb") as output:
            places = ["--data-dir", str(folder / "data"), "--ready-file", str(ready)]
            server = subprocess.Popen(
                [sys.executable, "-m", "tenure_server", "dev", "--port", "0", *places],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready.exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"The server did not start. It says:\n{log.read_text()}")
                time.sleep(0.05)
            yield json.loads(ready.read_text())
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        if server.returncode:
            sys.exit(f"The server did not stop as it should. It says:\n{log.read_text()}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def say(text: str) -> None:
    for line in text.splitlines():
        print(f"   {line}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        one_turn(*sys.argv[1:])
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
