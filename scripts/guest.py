#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run guests on virtio-pmem devices.

    with Guest(kernel.ready("release"), pmem=[Disk(path, 1 << 29)], name="demo") as guest:
        result = guest.run("mkfs.ext4 -q /dev/pmem0 && echo done")
        print(result.status, result.output)

As a program: run one command line (RUN) or script (SCRIPT) in a guest, or a shell (--shell).
"""

import base64
import contextlib
import dataclasses
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import accel
import initramfs
import kernel as kernels
import settings
import steps

GIB = 1 << 30

# The drivers' names on the virtio bus, which are those of their modules, too.
DRIVERS = {"rust": "virtio_pmem_rust", "c": "virtio_pmem"}

# How the kernel speaks of bugs, its own or ours.
COMPLAINTS = re.compile(
    r"BUG:|WARNING:|Oops|kernel BUG|Kernel panic|UBSAN:|possible (circular|recursive|irq lock)|"
    r"general protection fault|blocked for more than|rcu.*detected.*stalls|suspicious RCU|"
    r"new suspected memory leaks|ODEBUG:|rust_kernel: panicked|DMA-API:.*(error|leak|warning)|"
    r"turning off the locking correctness validator|non-static key"
)


# A fault of QEMU 7.2's emulation, not of the guest: when the kernel patches its code (jump labels,
# as when it changes its clock source or enables a trace event), a processor now and then goes on
# with a translation of the breakpoint that stood there for a moment.
STALE_BREAKPOINT = re.compile(r"Oops: int3: 0000")

# Another one: on a busy host the kernel may find that an emulated TSC is slower than it is, by
# factors. Then its clock is as much too fast, and its timers fire when they should not.
STAMP = re.compile(r"^\[ *(\d+)\.\d{6}\] ", re.M)


class GuestError(steps.Trouble):
    """A guest did not do what was expected of it; the text ends with its console."""


@dataclasses.dataclass(frozen=True)
class Disk:
    """A file of the host that backs a device; kept if it is there, else made, sparse."""
    path: Path
    size: int
    options: str = ""  # of the device, like "packed=on,event_idx=off"

    def create(self):
        """See to it that the file is there."""
        if not Path(self.path).exists():
            with open(self.path, "wb") as file:
                file.truncate(self.size)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command in a guest printed (both streams), and its exit status."""
    status: int
    output: str


class Guest:  # pylint: disable=too-many-instance-attributes
    """One run of QEMU: from start() or entering the context until it has ended.

    name     names the logs: console_log, qemu_log
    pmem     virtio-pmem devices (Disk), each behind a PCIe root port; QOM ids pmem0, pmem1, …
    blk      virtio-blk devices (Disk) beside them; ids blk0, …
    ports    further root ports that stay empty, for hot-add; ids port0, …
    driver   which driver the guest loads: "rust", "c" or "none"
    append   more words for the kernel's command line
    args     more arguments for QEMU
    uart     commands go through a UART: slower, but it survives suspend and hibernation
    wrapper  a command that runs QEMU, such as strace with its options
    files    more files for the guest, as {guest path: host path}
    timeout  seconds after which the guest is killed, whatever it is doing
    """

    def __init__(self, kernel, *, name="guest", pmem=(), blk=(), ports=0, driver="rust",
                 memory=GIB, smp=2, append="", args=(), wrapper=(), files=None, timeout=None,
                 uart=False, accelerator=None, shell=False):
        self.kernel = kernel
        self.name = name
        self.pmem, self.blk, self.ports = list(pmem), list(blk), ports
        self.driver, self.append = driver, append
        self.memory, self.smp = memory, smp
        self.args, self.wrapper = list(args), list(wrapper)
        self.files = files or {}
        self.uart = uart
        self.timeout = timeout or (1800 if kernel.name == "debug" else 600)
        self.accelerator = accelerator
        self.shell = shell
        self.console_log = steps.log_path(f"{name}.console")
        self.qemu_log = steps.log_path(f"{name}.qemu")
        self.process = None
        self.group = None
        self.started = None
        self.agent = None
        self.pending = b""
        self.folder = None

    # Life

    def __enter__(self):
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def qmp_path(self):
        """The socket on which QEMU speaks QMP."""
        return str(self.folder / "qmp")

    def devices(self):
        """Return QEMU's arguments for the devices under test."""
        words, chassis = [], 0

        def port(name):
            nonlocal chassis
            chassis += 1
            words.extend(["-device", f"pcie-root-port,id={name},chassis={chassis},bus=pcie.0"])

        def device(kind, disk, name, link):
            more = f",{disk.options}" if disk.options else ""
            port(f"{name}-port")
            words.extend(["-device", f"{kind},id={name},bus={name}-port,{link}{more}"])

        for index, disk in enumerate(self.pmem):
            disk.create()
            words.extend(["-object", f"memory-backend-file,id=mem{index},share=on,"
                          f"mem-path={disk.path},size={disk.size}"])
            device("virtio-pmem-pci", disk, f"pmem{index}", f"memdev=mem{index}")
        for index, disk in enumerate(self.blk):
            disk.create()
            words.extend(["-drive", f"if=none,id=drive{index},file={disk.path},format=raw"])
            device("virtio-blk-pci", disk, f"blk{index}", f"drive=drive{index}")
        for index in range(self.ports):
            port(f"port{index}")
        return words

    def command(self):
        """Return the command line of QEMU."""
        # Every region may be aligned to a gigabyte, and hot-added ones want room, too.
        room = sum(-(-disk.size // GIB) + 1 for disk in self.pmem) + 8
        append = f"console=ttyS0 panic=-1 oops=panic driver={self.driver} {self.append}"
        accelerator = self.accelerator or accel.choose(self.kernel, boots)
        if accelerator == "tcg":
            append += " maxcpus=1"  # init starts the others
        if self.uart:
            append += " agent=ttyS1"
        archive = self.kernel.initramfs
        if self.files:
            archive = self.folder / "initramfs.cpio"
            initramfs.add_files(self.kernel, self.files, archive)
        words = [
            *self.wrapper, settings.qemu(),
            "-M", "q35,nvdimm=off", *accel.arguments(accelerator),
            "-m", f"{self.memory >> 20}M,slots=2,maxmem={(self.memory >> 20) + (room << 10)}M",
            "-smp", str(self.smp), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", self.kernel.image, "-initrd", archive,
            "-append", f"{append} shell=1" if self.shell else append,
            "-chardev", f"socket,id=qmp,path={self.qmp_path},server=on,wait=off",
            "-mon", "chardev=qmp,mode=control",
            *(["-serial", "mon:stdio"] if self.shell else ["-serial", f"file:{self.console_log}"]),
            "-chardev", f"socket,id=agent,path={self.folder}/agent,server=on,wait=off",
            *(["-serial", "chardev:agent"] if self.uart else [
                "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=agent,name=agent",
            ]),
            # QEMU wants an IOMMU before the devices that it is for.
            *self.args, *self.devices(),
        ]
        return [str(word) for word in words]

    def start(self):
        """Start the guest."""
        self.folder = Path(tempfile.mkdtemp(prefix="guest-"))
        self.console_log.write_bytes(b"")
        self.pending = b""
        self.started = time.monotonic()
        # The limit holds even if we are killed ourselves. It ends the whole process group, since
        # QEMU outlives a wrapper; but a shell's QEMU must stay in the terminal's.
        limit = ["timeout", *(["--foreground"] if self.shell else []), "-s", "KILL",
                 str(self.timeout)]
        try:
            command = [*limit, *self.command()]
            if self.shell:
                self.process = subprocess.Popen(command, env=steps.environment())
                return
            with open(self.qemu_log, "wb") as log:
                log.write((shlex.join(command) + "\n").encode())
                log.flush()
                self.process = subprocess.Popen(
                    command, env=steps.environment(), stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, start_new_session=True,
                )
            self.group = self.process.pid
            self.connect()
        except BaseException:
            self.close()
            raise

    def connect(self):
        """Connect to the agent's port; must be done before the guest looks at it."""
        self.agent = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.agent.connect(f"{self.folder}/agent")
                return
            except OSError:
                if self.process.poll() is not None:
                    raise self.error("QEMU has ended at once") from None
                time.sleep(0.02)

    def wait_ready(self, timeout=None):
        """Wait until the guest has loaded its driver and takes commands."""
        if self.uart:
            # What comes before somebody listens is lost.
            self.wait_console("agent: ready", timeout or self.timeout)
        self.run("true", timeout)

    def alive(self):
        """Tell whether QEMU still runs."""
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout=None):
        """Wait until the guest has ended by itself; return QEMU's exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.error(f"still runs after {timeout} s") from None

    def poweroff(self, timeout=60):
        """Sync, power off and wait for the end."""
        self.send("sync; poweroff -f")
        self.wait(timeout)

    def kill(self):
        """End the guest as a power failure does: at once, with nothing written back by it."""
        if self.group is not None:
            # QEMU may still run when its wrapper has ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)
            self.group = None  # the number may come to be another's
        self.process.wait()

    def close(self):
        """End the guest, if it runs, and remove what only this run needed."""
        if self.process is not None and not self.shell:
            self.kill()
        if self.agent is not None:
            self.agent.close()
            self.agent = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Commands

    def send(self, script):
        """Give the guest a script without waiting for it; return the word that ends its output."""
        word = f"end-{secrets.token_hex(12)}"
        text = base64.b64encode(script.encode()).decode()
        try:
            self.agent.settimeout(self.timeout)
            self.agent.sendall(f"{word} {text}\n".encode())
        except OSError as error:
            raise self.error(f"takes no commands: {error}") from None
        return word

    def run(self, script, timeout=None, *, check=False, stream=None):
        """Run a script in the guest's shell, from /root.

        With check, a failure raises GuestError; with stream, output goes to that binary file as
        it comes and is not returned.
        """
        word = self.send(script).encode() + b" "
        limit = time.monotonic() + (timeout or self.timeout)
        data, self.pending = self.pending, b""
        while (end := re.search(re.escape(word) + rb"(\d+)\n", data)) is None:
            if stream is not None and len(data) > len(word) + 8:
                # What may yet turn out to be the end's beginning is held back.
                cut = len(data) - len(word) - 8
                stream.write(data[:cut])
                stream.flush()
                data = data[cut:]
            data += self.receive(limit, script)
        self.pending = data[end.end():]
        text = data[:end.start()]
        if stream is not None:
            stream.write(text)
            stream.flush()
            text = b""
        result = Result(int(end[1]), text.decode(errors="replace"))
        if check and result.status:
            raise self.error(f"exit status {result.status}: {script}\n{result.output}")
        return result

    def receive(self, limit, script):
        """Return some output of the guest."""
        try:
            left = limit - time.monotonic()
            if left > 0:
                self.agent.settimeout(left)
                data = self.agent.recv(1 << 16)
                if data:
                    return data
        except TimeoutError:
            pass
        except OSError:
            pass
        first = script.strip().split("\n", maxsplit=1)[0]
        if time.monotonic() < limit:
            self.process.wait()
            raise self.error(f"has ended during: {first}")
        raise self.error(f"no answer in time to: {first}")

    # Console

    def console(self):
        """Return what the kernel and init have printed so far."""
        return self.console_log.read_text(errors="replace").replace("\r", "")

    def wait_console(self, pattern, timeout=60):
        """Wait for a regular expression on the console; return its match."""
        limit = time.monotonic() + timeout
        while True:
            alive = self.alive()
            match = re.search(pattern, self.console())
            if match:
                return match
            if not alive or time.monotonic() > limit:
                raise self.error(f"did not print: {pattern}")
            time.sleep(0.05)

    def complaints(self):
        """Return the lines in which the kernel speaks of a bug."""
        return [line for line in self.console().splitlines() if COMPLAINTS.search(line)]

    def is_fast(self):
        """Tell whether the kernel's clock says that the guest runs for much longer than it does."""
        stamps = STAMP.findall(self.console())
        return (self.started is not None and stamps != []
                and int(stamps[-1]) > 5 * (time.monotonic() - self.started) + 10)

    def error(self, text):
        """Return an error that says what happened and shows the console's end."""
        if self.started is not None and time.monotonic() - self.started >= self.timeout:
            text += f" (its time limit of {self.timeout} s is over)"
        if STALE_BREAKPOINT.search(self.console()):
            text += " (stale breakpoint: a fault of QEMU's emulation)"
        if self.is_fast():
            text += " (wrong clock: a fault of QEMU's emulation)"
        parts = [f"guest {self.name}: {text}"]
        if self.process is not None and self.process.poll() is not None:
            said = self.qemu_log.read_text(errors="replace").splitlines()[1:]
            parts.append(f"QEMU has ended ({self.process.returncode}): {' '.join(said[-5:])}\n"
                         f"command line: {self.qemu_log}")
        parts.append(steps.tail(self.console_log))
        return GuestError("\n".join(parts))


def boots(kernel, accelerator, limit):
    """Return whether a guest boots under an accelerator within so many seconds."""
    try:
        with Guest(kernel, name=f"probe-{accelerator}", accelerator=accelerator, timeout=limit):
            return True
    except GuestError:
        return False


def requested():
    """Return the guest that the variables of make describe, and what it is to run."""
    run, script = settings.get("RUN"), settings.get("SCRIPT")
    if script and run:
        raise settings.BadSetting("RUN= and SCRIPT= are both given: give one")
    if script:
        try:
            run = Path(script).read_text(encoding="utf-8")
        except OSError as error:
            raise settings.BadSetting(f"SCRIPT={script}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise settings.BadSetting(f"SCRIPT={script}: no text; give a shell script") from error
    try:
        args = shlex.split(settings.get("QEMU_ARGS"))
    except ValueError as error:
        raise settings.BadSetting(f"QEMU_ARGS={settings.get('QEMU_ARGS')}: {error}; quote as in a "
                                  "shell") from error
    options = {
        "driver": settings.choice("DRIVER"),
        "memory": settings.size("MEM"),
        "smp": settings.number("SMP"),
        "args": args,
        "timeout": settings.number("TIMEOUT"),
    }
    return options, run


def main():
    """Run what RUN or SCRIPT says, or a shell."""
    shell = sys.argv[1:] == ["--shell"]
    options, run = requested()
    if not shell and not run:
        raise settings.BadSetting("nothing to run: give RUN='command line' or SCRIPT=file")
    if shell:
        options["timeout"] = options["timeout"] or 24 * 3600
    size = settings.size("PMEM_SIZE")
    built = kernels.ready(settings.choice("KERNEL"))
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="guest-") as folder:
        disk = Disk(Path(folder) / "pmem0", size)
        guest = Guest(built, name=f"guest-{os.getpid()}", pmem=[disk], shell=shell, **options)
        if shell:
            steps.say("the guest's console; leave it with 'exit', or Ctrl-A X")
            guest.start()
            try:
                return guest.process.wait()
            finally:
                guest.close()
        with guest:
            status = guest.run(run, stream=sys.stdout.buffer).status
        for line in guest.complaints():
            steps.say(f"console: {line}")
        return status


if __name__ == "__main__":
    steps.main(main)
