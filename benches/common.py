"""What the scripts of this folder share: running the command line, and the head of what they print."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parser(about, **first):
    """Of a script's arguments: those of `first`, the model, the binary."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in first.items():
        found.add_argument(name, help=what)
    found.add_argument("model", type=pathlib.Path, help="the model file")
    binary = os.environ.get("CONCERTINA", ROOT / "target/release/concertina")
    found.add_argument("--concertina", default=str(binary), help="the binary to measure")
    return found


def numbers(text):
    return [int(word) for word in text.split(",")]


def output(command):
    """What a command prints; its errors pass through."""
    command = [str(word) for word in command]
    print(f"==> {' '.join(command)}", file=sys.stderr, flush=True)
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def json_lines(command):
    """Every line of the command's output that is a JSON object."""
    return [json.loads(line) for line in output(command).splitlines() if line.startswith("{")]


def bench(arguments, kind, *flags):
    """Objects of `concertina bench KIND --json`, one a case."""
    return json_lines([arguments.concertina, "bench", kind, "--model", arguments.model, "--json", *flags])


def kernels(arguments, *flags):
    """The object of `concertina bench kernels --json`. Kernels get `ns`, of all their dispatches."""
    command = [arguments.concertina, "bench", "kernels", "--model", arguments.model, "--json", *flags]
    report = json.loads(output(command))
    for line in report["passes"]:
        for kernel in line["kernels"]:
            kernel["ns"] = 1e3 * kernel["us"] * kernel["count"]
    return report


def table(head, rows):
    """Lines of a Markdown table: all columns but the first to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(value, target, holds):
    """A number beside its target."""
    return f"{value} (target {target}: {'met' if holds else '**missed**'})"


def load():
    """Programs that wanted a core in the last minute, beside the one that runs now; None where there is no such count."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def title(model):
    """Date, commit and model."""
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return f"{datetime.date.today()}, {commit or 'no commit'}, {model.stem}"
