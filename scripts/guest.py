#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run guests on virtio-pmem devices.

In a program of your own, run with PYTHONPATH=scripts:

    import kernel
    from guest import Disk, Guest

    with Guest(kernel.ready("release"), pmem=[Disk("a.img", 1 << 29)], name="demo") as guest:
        result = guest.run("mkfs.ext4 -q /dev/pmem0 && echo done")
        print(result.status, result.output)

As a program: run one command line (RUN) or script (SCRIPT) in a guest, or a shell (--shell).
"""

import base64
import contextlib
import dataclasses
import json
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
import architecture
import device
import initramfs
import kernel as kernels
import qemu
import settings
import steps

GIB = 1 << 30

# The drivers' names on the virtio bus, which are those of their modules, too.
DRIVERS = {"rust": "virtio_pmem_rust", "c": "virtio_pmem"}

# The kernel's reports of bugs.
COMPLAINTS = re.compile(
    r"BUG:|WARNING:|Oops|kernel BUG|Kernel panic|UBSAN:|possible (circular|recursive|irq lock)|"
    r"general protection fault|blocked for more than|rcu.*detected.*stalls|suspicious RCU|"
    r"new suspected memory leaks|ODEBUG:|rust_kernel: panicked|DMA-API:.*(error|leak|warning)|"
    r"turning off the locking correctness validator|non-static key"
)

# A fault of QEMU 7.2's emulation, not of the guest: when the kernel patches its code (jump labels,
# for a change of the clock source or a trace event), a processor occasionally executes a stale
# translation of the breakpoint that stood there for a moment.
STALE_BREAKPOINT = re.compile(r"Oops: int3: 0000")

# Another one: on a busy host the kernel may measure the emulated TSC as slower than it is, by
# factors. Its clock is then too fast by the same factor, and its timers fire too early.
STAMP = re.compile(r"^\[ *(\d+)\.\d{6}\] ", re.M)

# Seconds without an answer after which a command is sent again through a UART. The kernel and QEMU
# occasionally lose a part of what comes after a suspend.
PATIENCE = 10

# The tag of a shared directory; init mounts it on /share.
TAG = "share"


class GuestError(steps.Trouble):
    """A guest failed; the text ends with its console."""


def escaped(path):
    """Return a path for one of QEMU's options, in which a comma is written twice."""
    return str(path).replace(",", ",,")


@dataclasses.dataclass(frozen=True)
class Disk:
    """A file of the host that backs a device. A missing one is created, sparse.

    size      in bytes; without it, that of the existing file
    options   of the device, like "packed=on,event_idx=off"
    snapshot  the guest's writes are discarded when it ends, and the file stays as it is
    """
    path: Path
    size: int | None = None
    options: str = ""
    snapshot: bool = False

    def create(self):
        """Create the file if it is missing; return its size."""
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
        except FileNotFoundError:
            if self.size is None:
                raise GuestError(f"{self.path} does not exist: give its size") from None
            with open(self.path, "wb") as file:
                return file.truncate(self.size)
        if self.size not in (None, size):
            raise GuestError(f"{self.path} has {size} bytes, not {self.size}: give no size")
        return size


@dataclasses.dataclass(frozen=True)
class Result:
    """A command's exit status and its output (both streams)."""
    status: int
    output: str


class Guest:  # pylint: disable=too-many-instance-attributes
    """One run of QEMU: from start() or entering the context until it has ended.

    name     names the logs: console_log, qemu_log
    logs     their directory; without it build/logs
    pmem     virtio-pmem devices (Disk), each behind a PCIe root port; QOM ids pmem0, pmem1, …
    blk      virtio-blk devices (Disk) beside them; ids blk0, …
    share    a directory of the host that the guest has on /share
    ports    further root ports that stay empty, for hot-add; ids port0, …
    driver   the driver that the guest loads: "rust", "c", "none", or "both" by the devices' alias
    append   more words for the kernel's command line
    args     more arguments for QEMU
    uart     commands go through a UART: slower, but it survives suspend and hibernation
    wrapper  a command that runs QEMU, such as strace with its options; or the programs that serve
             the devices, where QEMU has none
    files    more files for the guest, as {guest path: host path}
    timeout  seconds after which the guest is killed in any case

    accelerator  "kvm" or "tcg", probed by default; "icount", TCG that counts instructions
    """

    def __init__(self, kernel, *, name="guest", logs=None, pmem=(), blk=(), share=None, ports=0,
                 driver="rust", memory=GIB, smp=2, append="", args=(), wrapper=(), files=None,
                 timeout=None, uart=False, accelerator=None, shell=False):
        self.kernel = kernel
        self.name = name
        self.pmem, self.blk, self.share, self.ports = list(pmem), list(blk), share, ports
        self.driver, self.append = driver, append
        self.memory, self.smp = memory, smp
        self.args, self.wrapper = list(args), list(wrapper)
        self.files = files or {}
        self.uart = uart
        self.timeout = timeout or (1800 if kernel.name == "debug" else 600)
        self.accelerator = accelerator
        self.shell = shell
        self.console_log = steps.log_path(f"{name}.console", logs)
        self.qemu_log = steps.log_path(f"{name}.qemu", logs)
        self.backends, self.programs = [], []
        self.process = None
        self.group = None
        self.started = None
        self.agent = None
        self.pending = b""
        self.folder = None

    # Start and end

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
        """The path of QEMU's QMP socket."""
        return str(self.folder / "qmp")

    def start_programs(self):
        """Start the programs that serve devices: those of tests/device, where QEMU has none."""
        self.backends = self.served_devices()
        for index, one in enumerate(self.backends):
            log = steps.log_path(f"{self.name}.device{index}", self.console_log.parent)
            wrapper = [] if architecture.guests().has_pmem else self.wrapper
            self.programs.append(device.Program(one, log, self.timeout, wrapper))

    def served_devices(self):
        """List the devices that programs of the project's own serve: see device.py."""
        if architecture.guests().has_pmem or not self.pmem:
            return []
        found, start = [], architecture.guests().memory + self.memory
        program = device.build()
        for index, disk in enumerate(self.pmem):
            folder, path = self.folder / f"pmem{index}", disk.path
            folder.mkdir()
            size = disk.create()
            if disk.snapshot:
                path = shutil.copy(path, folder / "image")
            found.append(device.Device(program, folder, "qemu", options={"sync": 1}, file=path,
                                       size=size, start=start))
            start += -(-size // device.SECTION) * device.SECTION
        return found

    def hole(self):
        """Return words for the command line; the kernel leaves the devices' ranges alone."""
        ranges = [one for one in self.backends if not one.has_region]
        if not ranges:
            return ""
        guests, first, last = architecture.guests(), ranges[0], ranges[-1]
        return guests.hole.format(start=first.start, offset=first.start - guests.memory,
                                  size=last.start + last.size - first.start)

    def link(self, index):
        """Return QEMU's arguments for a program's socket, and the device's properties."""
        chardev = ["-chardev", f"socket,id=served{index},path={self.programs[index].socket}"]
        return chardev, f"chardev=served{index},{self.backends[index].properties()}"

    def shared_memory(self, bus, size):
        """Return QEMU's arguments for a machine whose memory the devices' programs can map."""
        return ["-M", f"{architecture.guests().machines[bus]},memory-backend=ram",
                "-m", f"{size >> 20}M",
                "-object", f"memory-backend-memfd,id=ram,size={size >> 20}M,share=on",
                "-global", "virtio-mmio.force-legacy=off"]

    def devices(self):
        """Return QEMU's arguments for the devices under test."""
        words, chassis = [], 0

        def port(name):
            nonlocal chassis
            chassis += 1
            words.extend(["-device", f"pcie-root-port,id={name},chassis={chassis},bus=pcie.0"])

        def add(kind, disk, name, link):
            more = f",{disk.options}" if disk.options else ""
            port(f"{name}-port")
            words.extend(["-device", f"{kind},id={name},bus={name}-port,{link}{more}"])

        for index, disk in enumerate(self.pmem):
            if self.backends:
                chardev, properties = self.link(index)
                words.extend(chardev)
                add("vhost-user-test-device-pci", disk, f"pmem{index}", properties)
                continue
            words.extend(["-object", f"memory-backend-file,id=mem{index},"
                          f"share={'off' if disk.snapshot else 'on'},"
                          f"mem-path={escaped(disk.path)},size={disk.create()}"])
            add("virtio-pmem-pci", disk, f"pmem{index}", f"memdev=mem{index}")
        for index, disk in enumerate(self.blk):
            disk.create()
            words.extend(["-drive", f"if=none,id=drive{index},format=raw,"
                          f"snapshot={'on' if disk.snapshot else 'off'},file={escaped(disk.path)}"])
            add("virtio-blk-pci", disk, f"blk{index}", f"drive=drive{index}")
        for index in range(self.ports):
            port(f"port{index}")
        if self.share:
            # The guest's files belong to QEMU's user, whatever their owner is in the guest.
            words.extend(["-fsdev", f"local,id={TAG},security_model=none,multidevs=remap,"
                          f"path={escaped(self.share)}",
                          "-device", f"virtio-9p-pci,fsdev={TAG},mount_tag={TAG}"])
        return words

    def machine(self):
        """Return QEMU's arguments for the machine and its memory."""
        if self.backends:
            last = self.backends[-1]
            size = last.start + last.size - architecture.guests().memory
            return self.shared_memory("pci", -(-size // device.SECTION) * device.SECTION)
        # Every region may be aligned to a gigabyte, and hot-added ones need room, too.
        room = sum(-(-disk.create() // GIB) + 1 for disk in self.pmem) + 8
        return ["-M", architecture.guests().machines["pci"],
                "-m", f"{self.memory >> 20}M,slots=2,maxmem={(self.memory >> 20) + (room << 10)}M"]

    def port(self):
        """Return QEMU's arguments for the port that carries commands."""
        if self.uart:
            return ["-serial", "chardev:agent"]
        return ["-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=agent,name=agent"]

    def command(self):
        """Return the command line of QEMU."""
        terminal = architecture.guests().terminal
        append = f"console={terminal}0 panic=-1 oops=panic driver={self.driver} {self.append}"
        accelerator = self.accelerator or accel.choose(self.kernel, boots)
        append += f" {self.hole()}"
        if accelerator != "kvm":
            append += f" {architecture.guests().tcg}"
        if self.share:
            append += f" share={TAG}"
        if self.uart:
            append += f" agent={terminal}1"
        archive = self.kernel.initramfs
        if self.files:
            archive = self.folder / "initramfs.cpio"
            initramfs.add_files(self.kernel, self.files, archive)
        words = [
            *(self.wrapper if architecture.guests().has_pmem else []), qemu.program(),
            *self.machine(), *accel.arguments(accelerator),
            "-smp", str(self.smp), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", self.kernel.image, "-initrd", archive,
            "-append", f"{append} shell=1" if self.shell else append,
            "-chardev", f"socket,id=qmp,path={self.qmp_path},server=on,wait=off",
            "-mon", "chardev=qmp,mode=control",
            *(["-serial", "mon:stdio"] if self.shell else ["-serial", f"file:{self.console_log}"]),
            "-chardev", f"socket,id=agent,path={self.folder}/agent,server=on,wait=off",
            *self.port(),
            # An IOMMU must come before the devices that it serves.
            *self.args, *self.devices(),
        ]
        return [str(word) for word in words]

    def start(self):
        """Start the guest."""
        self.folder = Path(tempfile.mkdtemp(prefix="guest-"))
        self.pending = b""
        self.started = time.monotonic()
        # The limit holds even if this process is killed. It ends the whole process group, because
        # QEMU outlives a wrapper; but a shell's QEMU must stay in the terminal's group.
        limit = ["timeout", *(["--foreground"] if self.shell else []), "-s", "KILL",
                 str(self.timeout)]
        try:
            self.console_log.write_bytes(b"")
            self.start_programs()
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
        """Connect to the agent's port; must be done before the guest opens it."""
        self.agent = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.agent.connect(f"{self.folder}/agent")
                return
            except OSError:
                if self.process.poll() is not None:
                    raise self.error("QEMU did not start") from None
                time.sleep(0.02)

    def wait_ready(self, timeout=None):
        """Wait until the guest has loaded its driver and accepts commands."""
        if self.uart:
            # A UART drops what arrives before the agent has opened it.
            self.wait_console("agent: ready", timeout or self.timeout)
        self.run("true", timeout)

    def alive(self):
        """Return whether QEMU still runs."""
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout=None):
        """Wait until QEMU has ended by itself; return its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.error(f"still runs after {timeout} s") from None

    def poweroff(self, timeout=60):
        """Sync and power off; wait until QEMU has ended."""
        self.send("sync; poweroff -f")
        self.wait(timeout)

    def kill(self):
        """End the guest as a power failure does: at once, and it writes nothing back."""
        if self.group is not None:
            # QEMU may still run when its wrapper has ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)
            self.group = None  # the number may be reused
        if self.process is not None:
            self.process.wait()
        self.finish_programs()

    def finish_programs(self):
        """Wait for the programs that serve devices, which end after QEMU."""
        while self.programs:
            self.programs.pop().finish(device.GRACE if self.process else 0)

    def close(self):
        """End the guest if it runs, and remove its temporary files."""
        if self.process is not None and self.shell:
            steps.end(self.process, signalled=False)  # QEMU restores the terminal
            self.finish_programs()
        else:
            self.kill()
        if self.agent is not None:
            self.agent.close()
            self.agent = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Commands

    def send(self, script):
        """Send the guest a script, and do not wait.

        Return the word that ends its output, and the line that was sent.
        """
        word = f"end-{secrets.token_hex(12)}".encode()
        text = base64.b64encode(script.encode())
        line = b"%s %d %s\n" % (word, len(text), text)
        try:
            self.agent.settimeout(self.timeout)
            self.agent.sendall(line)
        except OSError as error:
            raise self.error(f"accepts no commands: {error}") from None
        return word, line

    def run(self, script, timeout=None, *, check=False, stream=None):
        """Run a script in the guest's shell, in /root; return its Result.

        With check, a failure raises GuestError; with stream, output goes to that binary file as
        it arrives and is not returned.
        """
        word, line = self.send(script)
        word += b" "
        limit = time.monotonic() + (timeout or self.timeout)
        data, self.pending = self.pending, b""
        while (end := re.search(re.escape(word) + rb"(\d+)\n", data)) is None:
            if stream is not None and len(data) > len(word) + 8:
                # The last bytes may be the beginning of the final line.
                cut = len(data) - len(word) - 8
                stream.write(data[:cut])
                stream.flush()
                data = data[cut:]
            data += self.receive(limit, script, line)
        self.pending = data[end.end():]
        text = data[:end.start()]
        if self.uart:
            text = text.rpartition(word + b"begin\n")[2]
        if stream is not None:
            stream.write(text)
            stream.flush()
            text = b""
        result = Result(int(end[1]), text.decode(errors="replace"))
        if check and result.status:
            raise self.error(f"exit status {result.status}: {script}\n{result.output}")
        return result

    def receive(self, limit, script, line):
        """Wait for output of the guest; return what has arrived."""
        patience = PATIENCE if self.uart else limit
        while (left := limit - time.monotonic()) > 0:
            try:
                self.agent.settimeout(min(left, patience))
                if data := self.agent.recv(1 << 16):
                    return data
                break
            except TimeoutError:
                if self.uart:
                    # The agent may have a part of the line. If QEMU has ended, recv() reports it.
                    with contextlib.suppress(OSError):
                        self.agent.sendall(b"\n" + line)
                    patience *= 2
            except OSError:
                break
        first = script.strip().split("\n", maxsplit=1)[0]
        if time.monotonic() < limit:
            self.process.wait()
            raise self.error(f"has ended during: {first}")
        raise self.error(f"not done in time: {first} ({self.processors()})")

    def qmp(self, command, arguments=None):
        """Execute a QMP command; return its result.

        By itself: qemu.qmp is not in Debian, and a guest needs no Python environment.
        """
        with socket.socket(socket.AF_UNIX) as qmp, qmp.makefile("rw") as stream:
            qmp.settimeout(self.timeout)
            qmp.connect(self.qmp_path)
            for name, more in ("qmp_capabilities", {}), (command, arguments or {}):
                stream.write(json.dumps({"execute": name, "arguments": more}) + "\n")
                stream.flush()
                # Before an answer there may be a greeting, and events.
                while "return" not in (answer := json.loads(stream.readline() or "{}")):
                    if not answer or "error" in answer:
                        raise self.error(f"no answer to {name}: {answer}")
        return answer["return"]

    def processors(self):
        """Return what the guest's processors do: they are halted, or execute at an address."""
        try:
            text = self.qmp("human-monitor-command", {"command-line": "info registers -a"})
        except (OSError, ValueError, GuestError) as error:
            return f"QEMU does not answer: {error}"
        places = re.findall(r"^RIP=(\w+).* HLT=(\d)", text, re.M)
        return "processors: " + ", ".join(
            "halted" if halted == "1" else f"at {address}" for address, halted in places)

    def instructions(self):
        """Return how many instructions were executed so far; for the accelerator icount."""
        return self.qmp("query-replay")["icount"]

    # Console

    def console(self):
        """Return the output of the kernel and of init so far."""
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
        """Return the lines in which the kernel reports a bug."""
        return [line for line in self.console().splitlines() if COMPLAINTS.search(line)]

    def is_fast(self):
        """Return whether the kernel's clock is far ahead of the time since the guest's start."""
        stamps = STAMP.findall(self.console())
        return (self.started is not None and stamps != []
                and int(stamps[-1]) > 5 * (time.monotonic() - self.started) + 10)

    def error(self, text):
        """Return an error with this text, known causes, and the console's end."""
        if self.started is not None and time.monotonic() - self.started >= self.timeout:
            text += f" (its time limit of {self.timeout} s is over)"
        if STALE_BREAKPOINT.search(self.console()):
            text += " (stale breakpoint: a fault of QEMU's emulation)"
        if self.is_fast():
            text += " (wrong clock: a fault of QEMU's emulation)"
        parts = [f"guest {self.name}: {text}"]
        if self.process is not None and self.process.poll() is not None:
            output = self.qemu_log.read_text(errors="replace").splitlines()[1:]
            parts.append(f"QEMU has ended ({self.process.returncode}): {' '.join(output[-5:])}\n"
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


def split(name):
    """Return the words of a variable of make, which may be quoted as in a shell."""
    try:
        return shlex.split(settings.get(name))
    except ValueError as error:
        raise settings.BadSetting(f"{name}={settings.get(name)}: {error}; quote as in a shell") \
            from error


def disks(name, folder):
    """Return the disks that a variable of make lists; those without a file are in a folder."""
    found, snapshot = [], settings.flag("SNAPSHOT")
    for index, word in enumerate(split(name)):
        path, size = re.fullmatch(r"(.*?)(?::(\d+[KMGT]?))?", word).groups()
        if not path and not size:
            raise settings.BadSetting(f"{name}={word}: use FILE, FILE:SIZE or :SIZE")
        found.append(Disk(Path(path or folder / f"{name.lower()}{index}"),
                          size and settings.in_bytes(name, size), snapshot=snapshot))
    return found


def shared():
    """Return the directory that the guest shares, or None."""
    path = settings.get("SHARE")
    if path and not Path(path).is_dir():
        raise settings.BadSetting(f"SHARE={path}: not a directory")
    return path or None


def requested(folder):
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
    pmem = [Disk(folder / "pmem0", settings.size("PMEM_SIZE"))]
    options = {
        "pmem": disks("PMEM", folder) or pmem,
        "blk": disks("BLK", folder),
        "share": shared(),
        "logs": settings.get("LOGS") or None,
        "driver": settings.choice("DRIVER"),
        "memory": settings.size("MEM"),
        "smp": settings.number("SMP"),
        "args": split("QEMU_ARGS"),
        "timeout": settings.number("TIMEOUT"),
    }
    return options, run


def main():
    """Run RUN or SCRIPT, or a shell."""
    shell = sys.argv[1:] == ["--shell"]
    settings.BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="guest-") as folder:
        options, run = requested(Path(folder))
        if not shell and not run:
            raise settings.BadSetting("nothing to run: give RUN='command line' or SCRIPT=file")
        if shell:
            options["timeout"] = options["timeout"] or 24 * 3600
        built = kernels.ready(settings.choice("KERNEL"))
        guest = Guest(built, name=f"guest-{os.getpid()}", shell=shell, **options)
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
