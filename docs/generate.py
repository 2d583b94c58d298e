"""The tables in README.md and docs/, made from tests/golden/family.json and results/*.json.

`python docs/generate.py` writes them, `--check` fails when one is out of date.
"""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

from verdict import rows

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec
from resnetkit.benchmark.ratios import four_digits
from resnetkit.errors import ResnetkitError
from resnetkit.training.recipe import Recipe, load_recipe, recipe_names
from resnetkit.training.trainer import Run

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests/golden/family.json").read_text())
MARK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def variants() -> str:
    """One row a variant: what it is and what it costs at 224x224, or 32x32 for the CIFAR names."""
    lines = [
        "| name | blocks | depths | parameters | GMACs | activations, MiB | receptive field |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for name, facts in GOLDEN.items():
        row = spec(name)
        block = ("pre-activation " if row.preactivation else "") + row.block
        depths = "-".join(map(str, row.depths))
        lines.append(
            f"| `{name}` | {block} | {depths} | {facts['parameters']:,} | {facts['macs'] / 1e9:.3f} "
            f"| {facts['activation_bytes'] / 2**20:.1f} | {facts['receptive_field']:,} |"
        )
    return "\n".join(lines) + "\n"


def recipes() -> str:
    """One row a recipe that comes along."""
    lines = ["| recipe | network | epochs | optimizer, rate | judged at |", "|---|---|--:|---|--:|"]
    for name in recipe_names():
        own = load_recipe(name)
        size = f"{own.img_size} px" if own.img_size else ""
        lines.append(f"| `{name}` | `{own.model}` | {own.epochs} | {own.optimizer}, {own.lr:g} | {size} |")
    return "\n".join(lines) + "\n"


def settings() -> str:
    """One row a setting of a recipe."""
    lines = ["| setting | default, other words | what it is |", "|---|---|---|"]
    for name, field in Recipe.model_fields.items():
        default = "" if field.is_required() or field.default is None else json.dumps(field.default).strip('"[]')
        others = [word for word in get_args(field.annotation) if isinstance(word, str) and word != default]
        shown = ", ".join(f"`{word}`" for word in (default, *others) if word)
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def machine(environment: dict) -> str:
    cores = environment["threads"]
    if environment.get("gpu"):
        return environment["gpu"]
    return f"{cores} core{'s' if cores > 1 else ''} of {environment['processor']}"


def results() -> str:
    """One row a measurement under results/."""
    lines = [
        "| command | seeds | top-1 on the test part | slowest run | machine | commit |",
        "|---|--:|--:|--:|---|---|",
    ]
    for file in sorted((ROOT / "results").glob("*.json")):
        r = json.loads(file.read_text())
        if "top1_mean" not in r:
            continue
        done, planned = len(r["seeds"]), r.get("seeds_planned", 0)
        seeds = f"{done} of {planned}" if done < planned else str(done)
        spread = f" ± {r['top1_std']:.2%}" if r["top1_std"] is not None else ""
        note = f" ({r['note']})" if "note" in r else ""
        lines.append(
            f"| `{r['command']}` | {seeds} | {r['top1_mean']:.2%}{spread} "
            f"| {r['seconds_max']:.0f} s{note} | {machine(r['environment'])} | `{r['environment']['commit']}` |"
        )
    return "\n".join(lines) + "\n"


def published() -> str:
    """One row a published checkpoint."""
    lines = ["| file | taken for | mean, std | published | measured |", "|---|---|---|--:|--:|"]
    for row in json.loads((ROOT / "results/published.json").read_text())["files"]:
        pixels = "; ".join(" ".join(f"{v:g}" for v in row["preprocessing"][name]) for name in ("mean", "std"))
        lines.append(
            f"| `{row['file']}` | {row['taken_for']} | {pixels} | {row['published']:.2%} | {row['top1']:.2%} |"
        )
    return "\n".join(lines) + "\n"


def verdict() -> str:
    """One row a promise or pain of the notebook."""
    lines = ["| the notebook says | verdict | our measurement |", "|---|---|---|"]
    lines += [f"| {promise} | *{judged}* | {measured} |" for promise, measured, judged in rows()]
    return "\n".join(lines) + "\n"


def memory() -> str:
    """What depth costs, from the parts that results/memory.json has."""
    file = ROOT / "results/memory.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    lines = ["| what | plain | checkpoint |", "|---|--:|--:|"] if found else []
    if deep := found.get("checkpoint"):
        images = f"`{deep['network']}`, batch {deep['images']}"
        for kind, cells in (("live", deep["live"]), ("process", {m: p["peak"] for m, p in deep["process"].items()})):
            plain, least = cells["plain"], cells["checkpoint"]
            lines.append(f"| {images}: {kind} memory, MiB | {plain / 2**20:,.0f} | {least / 2**20:,.0f} |")
        if "time_ratio" in deep:
            lines.append(f"| the same: CPU time of a step | 1 | {deep['time_ratio']:.2f} |")
    if growth := found.get("exponent"):
        slopes = " | ".join(f"{growth[mode]['exponent']:.2f}" for mode in ("plain", "checkpoint"))
        lines.append(
            f"| exponent of live memory against depth as planned, {min(growth['depths'])} to 1,202 layers | {slopes} |"
        )
    if runs := found.get("reversible"):
        few, many = (f"{runs['live'][depth] / 2**20:.1f}" for depth in ("110", "10004"))
        lines += ["", f"Reversible, batch {runs['images']}: {few} MiB live at 110 layers, {many} MiB at 10,004."]
    if made := found.get("building"):
        lines += [
            "",
            f"10,004 layers, {made['parameters']:,} parameters, are built in {made['cpu_seconds']:.1f} s of CPU time.",
        ]
    if note := found.get("note"):
        lines += ["", note]
    return "\n".join(lines) + "\n" if lines else ""


def log() -> str:
    """What the first command prints, shortened in the middle."""
    lines = (ROOT / "results/digits.log").read_text().splitlines()
    epochs = [i for i, line in enumerate(lines) if line.startswith("epoch")]
    shown = lines[: epochs[2]] + ["..."] + lines[epochs[-1] :]
    result = json.loads((ROOT / "results/digits.json").read_text())["runs"][0]
    ending = f"The test: top-1 {result['top1']:.2%} of {result['n']} images. In all {result['seconds']:.0f} s."
    return "```\n" + "\n".join(shown) + f"\n```\n\n{ending}\n"


NOT_YET = "Not measured yet: `make bench`.\n"


def measured(pattern: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((ROOT / "results").glob(pattern))]


def interval(found: dict, key: str = "median") -> str:
    return f"{found[key]:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def speed() -> str:
    """One row a peer of each benchmark beside peers."""
    lines = [
        "| | ours | peer | how it runs | ratio, interval | times our MACs | GFLOP/s in float32, bfloat16 | commit |",
        "|---|--:|---|---|--:|--:|--:|---|",
    ]
    for r in (r for r in measured("benchmark-*.json") if "peers" in r):
        job, own = r["job"], r["ours"]
        top = ", ".join(f"{r['ceilings'][f'{name}_gflops']:,.0f}" for name in ("float32", "bfloat16"))
        where = r["environment"]["gpu"] if job["device"] == "cuda" else f"{job['threads']} cores"
        what = f"{r['benchmark']}, `{job['model']}`, {job['batch_size']} x {job['img_size']} px, {where}"
        value = f"{four_digits(own[r['unit']]['median'])} {r['unit'].replace('_', ' ')}, {own['runs']}"
        if "share_of_ceiling" in own:
            value += f", {own['share_of_ceiling']:.0%} of that ceiling"
        if job["device"] == "cuda":
            value += f", {own['share_of_copy']:.0%} of a copy's"
        for name, peer in r["peers"].items():
            macs = f"{peer['work']['macs_ratio']:.3g}" if "work" in peer else ""
            lines.append(
                f"| {what} | {value} | {name} | {peer['runs']} | {interval(peer['ratio'])} | {macs} "
                f"| {top} | `{r['environment']['commit']}` |"
            )
    return "\n".join(lines) + "\n" if len(lines) > 2 else NOT_YET


def first_step() -> str:
    """How long `resnet train digits` takes to the end of its first step."""
    (r,) = measured("first-step.json")
    here, steps = r["environment"], r["first_step"]
    return (
        f"From pressing return to the end of the first step of `{r['command']}`: {steps['median']:.1f} s, the median "
        f"of {len(steps['seconds'])} starts, and {steps['most']:.1f} s at most. To import PyTorch alone "
        f"takes {r['import_torch']['median']:.1f} s there, {machine(here)}, commit `{here['commit']}`.\n"
    )


OTHER_SECONDS = {"ours": "seconds_of_training", "record": "seconds_of_process"}  # beside those that are compared


def fast() -> str:
    """`cifar10_fast` and the record's program, a row each."""
    lines = [
        "| | seeds | top-1 on the test file | mean, interval | seconds | others | machine | commit |",
        "|---|---|---|--:|--:|--:|---|---|",
    ]
    for r in measured("airbench*.json"):
        names = {"ours": f"`{r['command']}`", "record": f"`{r['pairs'][0]['record']['command']}`"}
        for side, what in names.items():
            found, scores = r[side], ", ".join(f"{pair[side]['top1']:.2%}" for pair in r["pairs"])
            others = sum(pair[side][OTHER_SECONDS[side]] for pair in r["pairs"]) / len(r["pairs"])
            mean = f"{found['top1_mean']:.2%}"
            if found["top1_mean_interval"]:
                mean += " ({:.2%} to {:.2%})".format(*found["top1_mean_interval"])
            seeds, here = ", ".join(map(str, r["seeds"])), r["environment"]
            lines.append(
                f"| {what} | {seeds} | {scores} | {mean} | {found['seconds_mean']:,.3g} | {others:,.3g} "
                f"| {machine(here)} | `{here['commit']}` |"
            )
    return "\n".join(lines) + "\n" if len(lines) > 2 else "Not measured yet: `python benchmarks/airbench.py`.\n"


def folder() -> str:
    """One row a recipe and way of reading, beside batches that are there already."""
    lines = [
        "| each image | read from | images/s | share of the speed from memory | commit |",
        "|---|---|--:|--:|---|",
    ]
    for r in measured("benchmark-folder.json"):
        for case in r["cases"]:
            for way in ("folder", "cache"):
                reached = f"{case['images_per_second'][way]['median']:.1f} | {interval(case['ratio'][way])}"
                lines.append(f"| {case['what']} | the {way} | {reached} | `{r['environment']['commit']}` |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else "Not measured yet: `python benchmarks/folder.py`.\n"


def stages() -> str:
    """One table a network: its parts, forward and backward."""
    tables = []
    for r in measured("benchmark-stages-*.json"):
        job, top = r["job"], r["ceilings"][f"{r['precision']}_gflops"]
        batch = f"{job['batch_size']} x {job['img_size']} px"
        lines = [
            f"`{job['model']}`, {batch} in {r['precision']}, {job['threads']} cores: "
            f"{r['seconds']:.3g} s a step; the ceiling is {top:,.0f} GFLOP/s.",
            "",
            "| part | pass | share of the step | share of the ceiling |",
            "|---|---|--:|--:|",
        ]
        for row in r["rows"]:
            shares = f"{row['share_of_step']:.1%} | {row['share_of_ceiling']:.0%}"
            lines.append(f"| {row['part']} | {row['way']} | {shares} |")
        lines.append(f"| loss, optimizer, pixels | | {r['rest']['share_of_step']:.1%} | |")
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables) or NOT_YET


def growth() -> str:
    """One row a ladder."""
    lines = ["| what grows | from | to | exponent of time | exponent of memory |", "|---|--:|--:|--:|--:|"]
    for r in measured("benchmark-growth.json"):
        for name, ladder in r["ladders"].items():
            values = [point["value"] for point in ladder["points"]]
            fits = " | ".join(interval(ladder["fits"][cost], "exponent") for cost in ("seconds", "bytes"))
            lines.append(f"| {name} | {values[0]:g} | {values[-1]:g} | {fits} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else NOT_YET


def coverage() -> str:
    """One row a coverage: how often the sets of calibrated runs held the right class."""
    r = json.loads((ROOT / "results/calibration.json").read_text())
    lines = ["| asked for | sets that held the right class, a run each | classes in a set |", "|--:|---|---|"]
    for asked in r["share_mean"]:
        sets = [run["sets"][asked] for run in r["runs"]]
        shares = ", ".join("{share:.1%} ({0:.1%} to {1:.1%})".format(*s["share_interval"], **s) for s in sets)
        sizes = ", ".join(f"{s['mean_size']:.2f}" for s in sets)
        lines.append(f"| {float(asked):.0%} | {shares} | {sizes} |")
    raw, fitted = (", ".join(f"{run[key]:.2%}" for run in r["runs"]) for key in ("ece_uncalibrated", "ece"))
    lines += ["", f"The calibration error of the runs is {fitted}, and without the temperature {raw}."]
    return "\n".join(lines) + "\n" + origin(r)


def finetuning() -> str:
    """One row a way of training without the weights."""
    r = json.loads((ROOT / "results/transfer.json").read_text())
    names = {"scratch": "the recipe `photos`", "untrained": "the recipe of fine-tuning without weights"}
    lines = ["| trained by | top-1 | fine-tuned | more, interval | by seed |", "|---|--:|--:|--:|---|"]
    for name, found in r["finetuned_against"].items():
        before, after = found["top1"]
        low, high = found["difference_interval"]
        gained = f"{100 * found['difference']:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
        seeds = ", ".join(f"{100 * (b - a):.1f}" for a, b in zip(*found["top1_by_seed"]))
        lines.append(f"| {names[name]} | {before:.1%} | {after:.1%} | {gained} | {seeds} |")
    return "\n".join(lines) + "\n" + origin(r)


def copies() -> str:
    """What a search for copies found of those that are known."""
    r = json.loads((ROOT / "results/duplicates.json").read_text())
    planted, known = r["planted"], r["cifar10"]
    count = sum(trial["planted"] for trial in planted) // len(planted[0]["found"])
    lines = ["| pictures | copies | found |", "|---|---|--:|"]
    for kind in planted[0]["found"]:
        found = sum(trial["found"][kind] for trial in planted) / len(planted)
        lines.append(f"| {r['originals']['images']} flowers | {count} {kind} | {found:.1%} |")
    for kind, words in {"near_duplicates": "near duplicates of", "very_similar": "very similar to"}.items():
        what = f"{known[f'known_{kind}']} test images that are {words} training images"
        lines.append(f"| {known['images']:,} of CIFAR-10 | {what} | {known[f'known_{kind}_found']:.1%} |")
    wrong = sum(trial["images_wrongly_paired"] for trial in planted)
    lines += [
        "",
        f"Of the flowers {wrong} were paired wrongly; of CIFAR-10's test images {known['leaked_test_images']} were "
        "paired with training images, listed or not. The list is that of Barz & Denzler (2020).",
    ]
    return "\n".join(lines) + "\n" + origin(r)


def origin(result: dict) -> str:
    here = result["environment"]
    return f"\nSeeds {', '.join(map(str, result['seeds']))}, {machine(here)}, commit `{here['commit']}`.\n"


def errors() -> str:
    """One row an error and its exit code."""
    kinds = [ResnetkitError, *ResnetkitError.__subclasses__()]
    lines = [f"| `{kind.__name__}` | {kind.exit_code} | {inspect.getdoc(kind)} |" for kind in kinds]
    return "\n".join(["| error | exit code | what it is |", "|---|--:|---|", *lines]) + "\n"


def python() -> str:
    """One section a public name, and those of what `rk.build` and `rk.train` give."""
    names = {f"rk.{name}": getattr(rk, name) for name in rk.__all__ if name != "ResnetkitError"}
    given = {"The network that rk.build gives": ResNet, "The run that rk.train gives": Run}
    return "\n".join(_documented(name, thing) for name, thing in (names | given).items())


def _documented(name: str, thing: Any) -> str:
    parts = [f"## {name}", inspect.getdoc(thing) or ""]
    if name.startswith("rk."):
        parts.insert(1, f"```\n{name}{_arguments(thing)}\n```")
    for own, member in vars(thing).items() if inspect.isclass(thing) else ():
        if (
            own.startswith("_")
            or not member.__doc__
            or not (inspect.isfunction(member) or isinstance(member, property))
        ):
            continue
        called = "" if isinstance(member, property) else _arguments(member)
        parts.append(f"`.{own}{called}`: {inspect.getdoc(member)}")
    return "\n\n".join(parts) + "\n"


def _arguments(function: Any) -> str:
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def regenerated(text: str) -> str:
    makers = {
        "variants": variants,
        "recipes": recipes,
        "settings": settings,
        "results": results,
        "published": published,
        "log": log,
        "speed": speed,
        "first_step": first_step,
        "fast": fast,
        "folder": folder,
        "stages": stages,
        "growth": growth,
        "verdict": verdict,
        "memory": memory,
        "errors": errors,
        "coverage": coverage,
        "finetuning": finetuning,
        "copies": copies,
        "python": python,
    }
    return MARK.sub(lambda match: match[1] + makers[match[2]]() + match[3], text)


def main() -> None:
    stale = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = file.read_text()
        new = regenerated(old)
        if new != old and "--check" in sys.argv:
            stale.append(file.name)
        elif new != old:
            file.write_text(new)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")


if __name__ == "__main__":
    main()
