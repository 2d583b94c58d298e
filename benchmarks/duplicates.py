"""How well `resnet data check` finds copies: planted ones in a set of photos, the known ones of CIFAR-10.

python benchmarks/duplicates.py --flowers PATH/flowers --cifar10 PATH/cifar10 --known LIST.csv --sheet SHEET.png

`--known` is the list of Barz & Denzler (Do We Train on Test Data? Purging CIFAR of Near-Duplicates, Journal of Imaging
6(6), 2020): meta/duplicates_cifar10.csv of github.com/cvjena/cifair. Of it the test images count, whose order is the
published one in every copy of the set. `--sheet` draws 30 of the leaked test images beside what they were found to
copy; look at it and say with `--judged` how many pairs show one picture.
"""

import argparse
import csv
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

from PIL import Image
from record import RESULTS, header, save

KINDS = ("exact", "resized", "recompressed", "cropped", "brightened")
SEEDS = [2, 3, 4]  # the thresholds were chosen on copies of seed 1
OTHER = {"train": "val", "val": "train"}
SAMPLE = 30


def check(data: Path, out: Path) -> tuple[dict, list[dict[str, str]], float]:
    """What `resnet data check` prints, the pairs it lists, and the seconds of the whole command."""
    started = perf_counter()
    command = [sys.executable, "-m", "resnetkit.cli.main", "data", "check", str(data), "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    with open(out / "duplicates.csv", newline="") as file:
        return json.loads(done.stdout), list(csv.DictReader(file)), seconds


def copy(file: Path, kind: str, draw: random.Random) -> bytes:
    """The file again: as it is, at 50 to 75 % of its size, as JPEG of quality 50 to 80, with 90 to 95 % of each side
    kept at a place drawn, or 5 to 15 % darker or brighter."""
    if kind == "exact":
        return file.read_bytes()
    image = Image.open(file).convert("RGB")
    width, height = image.size
    quality = 95
    if kind == "resized":
        share = draw.uniform(0.5, 0.75)
        image = image.resize((round(width * share), round(height * share)), Image.Resampling.BICUBIC)
    elif kind == "recompressed":
        quality = draw.randint(50, 80)
    elif kind == "cropped":
        kept = [round(side * draw.uniform(0.9, 0.95)) for side in (width, height)]
        left, top = (draw.randint(0, side - have) for side, have in zip((width, height), kept))
        image = image.crop((left, top, left + kept[0], top + kept[1]))
    else:
        factor = 1 + draw.choice((-1, 1)) * draw.uniform(0.05, 0.15)
        image = image.point(lambda value: min(255, value * factor))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def plant(flowers: Path, seed: int, folder: Path) -> dict[str, tuple[str, str]]:
    """The set, with a copy of every image in the other part; by path of the copy its source and its kind."""
    shutil.copytree(flowers, folder, copy_function=shutil.copyfile)
    draw = random.Random(seed)
    planted = {}
    for split in OTHER:
        files = sorted((flowers / split).rglob("*.jpg"))
        draw.shuffle(files)
        for i, file in enumerate(files):
            kind = KINDS[i % len(KINDS)]
            place = Path(OTHER[split]) / file.parent.name / f"planted_{file.name}"
            (folder / place).write_bytes(copy(file, kind, draw))
            planted[str(place)] = (str(file.relative_to(flowers)), kind)
    return planted


def measure_planted(flowers: Path) -> list[dict]:
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "flowers"
            planted = plant(flowers, seed, folder)
            _, pairs, seconds = check(folder, Path(temporary) / "out")
        found = {frozenset((pair["path"], pair["copy_path"])) for pair in pairs}
        total = Counter(kind for _, kind in planted.values())
        hits = Counter(kind for path, (source, kind) in planted.items() if frozenset((path, source)) in found)
        wrong = {
            path
            for pair in found
            if len({planted[path][0] if path in planted else path for path in pair}) > 1
            for path in pair
        }
        shares = {kind: hits[kind] / total[kind] for kind in KINDS}
        runs.append(
            {
                "seed": seed,
                "planted": len(planted),
                "found": shares,
                "images_wrongly_paired": len(wrong),
                "seconds": round(seconds, 1),
            }
        )
        print(
            f"seed {seed}: " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items()) + f"; {len(wrong)} wrong",
            flush=True,
        )
    return runs


def measure_originals(flowers: Path) -> dict:
    """Pairs among the photos themselves. They are to be looked at: none was planted."""
    with tempfile.TemporaryDirectory() as temporary:
        record, pairs, _ = check(flowers, Path(temporary))
    return {"images": record["images"], "pairs": [[pair["path"], pair["copy_path"], pair["score"]] for pair in pairs]}


def measure_cifar10(data: Path, known: Path | None, sheet: Path | None, judged: int | None) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        record, pairs, seconds = check(data, Path(temporary))
    leaks = [pair for pair in pairs if pair["split"] != pair["copy_split"]]
    count = sum(finding["count"] for finding in record["findings"] if finding["kind"] == "leak")
    result = {"images": record["images"], "leaked_test_images": count, "pairs_across_parts": len(leaks)}
    result |= {"pairs": len(pairs), "seconds": round(seconds, 1)}
    if known:
        found = {int(pair["copy_path"].partition("#")[2]) for pair in leaks}
        with open(known, newline="") as file:
            listed = [(int(row["TestID"]), row["Judgment"]) for row in csv.DictReader(file)]
        for judgement, name in (("1", "near_duplicates"), ("2", "very_similar")):
            ids = [test for test, given in listed if given == judgement]
            result[f"known_{name}"] = len(ids)
            result[f"known_{name}_found"] = sum(test in found for test in ids) / len(ids)
    # One pair a test image, so that the few pictures with a hundred copies do not fill the sample.
    best = {pair["copy_path"]: pair for pair in sorted(leaks, key=lambda pair: float(pair["score"]))}
    sample = random.Random(0).sample([best[path] for path in sorted(best)], min(SAMPLE, len(best)))
    if sheet:
        draw_pairs(data, sample, sheet)
    if judged is not None:
        result |= {"looked_at": len(sample), "judged_one_picture": judged}
    return result


def draw_pairs(data: Path, pairs: list[dict[str, str]], path: Path) -> None:
    """Pairs side by side, six a row."""
    from resnetkit.data.datasets import open_dataset

    parts = open_dataset(data).parts.values()
    stored = {name: image for part in parts for name, image in zip(part.names, part.images)}
    sheet = Image.new("RGB", (6 * 208, -(-len(pairs) // 6) * 104), "white")
    for i, pair in enumerate(pairs):
        for j, name in enumerate((pair["path"], pair["copy_path"])):
            image = Image.open(io.BytesIO(stored[name])).resize((96, 96), Image.Resampling.BICUBIC)
            sheet.paste(image, (i % 6 * 208 + j * 98, i // 6 * 104))
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--known", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--judged", type=int, help=f"how many of the {SAMPLE} pairs of the sheet show one picture")
    parser.add_argument("--out", type=Path, default=RESULTS / "duplicates.json")
    arguments = parser.parse_args()
    result = header("duplicates", "resnet data check", SEEDS) | {
        "originals": measure_originals(arguments.flowers),
        "planted": measure_planted(arguments.flowers),
        "cifar10": measure_cifar10(arguments.cifar10, arguments.known, arguments.sheet, arguments.judged),
    }
    save(result, arguments.out)
    print(json.dumps(result["cifar10"]))
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
