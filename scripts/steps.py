# SPDX-License-Identifier: GPL-2.0
"""Steps that say in one line what was done and how long it took, and keep the rest in a log."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time

import settings

TAIL = 30
PATIENCE = 60  # seconds in which a tool that is told to end may do so in good order
RUNNING = []
LOCK = threading.Lock()


class Trouble(Exception):
    """Something that the user must know; the text says what, and what to do about it."""


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
    """Time a step and print its line, whatever its end."""
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


def log_path(name):
    """Return the path of a log."""
    settings.LOGS.mkdir(parents=True, exist_ok=True)
    return settings.LOGS / (re.sub(r"[^\w.+-]+", "-", name) + ".log")


def tail(path, lines=TAIL):
    """Return the last lines of a log, indented, and where it is.

    When a parallel build fails, much may follow the reason: a compiler's first error before the
    end is shown, too.
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
    """End in good order when a signal says so, as after Ctrl-C; the exit status tells which."""
    raise KeyboardInterrupt(number)


def end(process, tell):
    """See a tool off. After Ctrl-C it needs not be told: the terminal tells all."""
    try:
        # What runs as root cannot be told, and ends by itself.
        with contextlib.suppress(PermissionError, subprocess.TimeoutExpired):
            if tell:
                process.terminate()
            process.wait(PATIENCE)
    finally:
        with contextlib.suppress(PermissionError):
            process.kill()


def run(command, log, *, cwd=None, env=None, append=False):
    """Run a command with its output in a log; show the log's end if the command fails."""
    with open(log, "ab" if append else "wb") as out:
        out.write(("$ " + " ".join(map(str, command)) + "\n").encode())
        out.flush()
        try:
            process = subprocess.Popen(
                [str(word) for word in command], cwd=cwd, env=environment() | (env or {}),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise Trouble(f"{command[0]} is not installed") from error
        try:
            status = process.wait()
        except KeyboardInterrupt as interrupt:
            end(process, tell=bool(interrupt.args))
            raise
    if status:
        words = " ".join(map(str, command[:3]))
        raise Trouble(f"{words} … failed ({status})\n{tail(log)}")


def output(command, **options):
    """Return what a command prints, or None when it cannot be run or fails."""
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
    """Keep two runs of these tools from building in the same place at once."""
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
