# SPDX-License-Identifier: GPL-2.0
"""Steps that print one line with their name and duration; a log has the rest."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import settings

TAIL = 30
GRACE = 60  # seconds for a terminated tool to clean up
RUNNING = []
LOCK = threading.Lock()


class Trouble(Exception):
    """A failure for the user to read; the text names it, and a remedy."""


def say(text):
    """Print a line of progress; standard output is kept for results."""
    with LOCK:
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{clear}{text}\n")
        if clear and RUNNING:
            sys.stderr.write(", ".join(RUNNING) + " …")
        sys.stderr.flush()


@contextlib.contextmanager
def step(name):
    """Time a step and print its line, even when it fails."""
    start = time.monotonic()
    with LOCK:
        RUNNING.append(name)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{', '.join(RUNNING)} …")
            sys.stderr.flush()
    end = "failed after "
    try:
        yield
        end = ""
    finally:
        with LOCK:
            RUNNING.remove(name)
        say(f"{name} … {end}{time.monotonic() - start:.0f} s")


def log_path(name, folder=None):
    """Return the path of a log, in build/logs or in a folder of the caller's."""
    folder = Path(folder or settings.LOGS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (re.sub(r"[^\w.+-]+", "-", name) + ".log")


def tail(path, lines=TAIL):
    """Return the last lines of a log, indented, and its path.

    In a parallel build much may follow the reason of a failure, so a compiler's first error is
    shown, too.
    """
    try:
        text = path.read_text(errors="replace").splitlines()
    except OSError:
        text = []
    shown = text[-lines:]
    for number, line in enumerate(text[:-lines]):
        if re.search(r"(^|: )(fatal )?error(\[\w+\])?: ", line):
            shown = [*text[number:number + 12], "…", *shown]
            break
    return "".join(f"    {line}\n" for line in shown) + f"log: {path}"


def environment():
    """Return the environment for other tools: without make's own and our variables."""
    ours = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", *settings.VARIABLES}
    others = {name: value for name, value in os.environ.items() if name not in ours}
    return others | settings.ccache()


def interrupted(number, _frame):
    """Turn a signal into the exception of Ctrl-C, with its number for the exit status."""
    raise KeyboardInterrupt(number)


def end(process, signalled):
    """Wait until a tool has cleaned up. After Ctrl-C the terminal has signalled it already."""
    try:
        # A tool that runs as root cannot be signalled, and ends by itself.
        with contextlib.suppress(PermissionError, subprocess.TimeoutExpired):
            if not signalled:
                process.terminate()
            process.wait(GRACE)
    finally:
        with contextlib.suppress(PermissionError):
            process.kill()


@contextlib.contextmanager
def without_sigterm():
    """Hold a SIGTERM back until the end, so that a tool that has just been started is not lost."""
    if threading.current_thread() is not threading.main_thread():  # only that handles signals
        yield
        return
    arrived = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def run(command, log, *, cwd=None, env=None, append=False):
    """Run a command with its output in a log; show the log's end if the command fails."""
    with open(log, "ab" if append else "wb") as out:
        out.write(("$ " + " ".join(map(str, command)) + "\n").encode())
        out.flush()
        process = None
        try:
            with without_sigterm():
                process = subprocess.Popen(
                    [str(word) for word in command], cwd=cwd, env=environment() | (env or {}),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                )
            status = process.wait()
        except FileNotFoundError as error:
            raise Trouble(f"{command[0]} is not installed") from error
        except KeyboardInterrupt as interrupt:
            if process:
                end(process, signalled=not interrupt.args)
            raise
    if status:
        words = " ".join(map(str, command[:3]))
        raise Trouble(f"{words} … failed ({status})\n{tail(log)}")


def output(command, **options):
    """Return the output of a command, or None when it cannot be run or fails."""
    try:
        done = subprocess.run(
            [str(word) for word in command], env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False, **options,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextlib.contextmanager
def alone():
    """Hold the lock that keeps two runs of these tools from building in the same place."""
    settings.BUILD.mkdir(parents=True, exist_ok=True)
    with open(settings.BUILD / ".lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that builds here")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(function):
    """Run a tool's main function; trouble becomes a message and exit status 1."""
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(function())
    except (Trouble, settings.BadSetting) as error:
        say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        say(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
