"""Throw cases of every kind at everything that reads: each must be answered or refused with a sentence.

    python tests/fuzz/fuzz.py [--cases N] [--seed S] [--first N] [--kinds KIND ...] [--log FILE] [--save FOLDER]

A case is a kind, some files and some options (fuzz_traces.py, fuzz_files.py); what is done with it is in
fuzz_trials.py. Case N of a seed is the same in every run. An escape is anything but an answer or a refusal, an answer
that does not add up, more than 5 seconds of CPU, more than 1 GiB of memory. The first of each sort is made smaller,
line by line, printed, and kept in ``--save`` as a file that tests/data/fuzz takes. A short run is one of the tests.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))  # the siblings, whoever loads this

from fuzz_trials import KINDS

from swiommu.errors import InputError

SECONDS = 5
MEMORY = 1 << 30
SHRINK_SECONDS = 60
NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+|'[^']*'|/\S*/")  # what differs from case to case


class Hang(BaseException):
    """A case took too long; no `Exception`, so that nothing on the way takes it for its own."""


@dataclass
class Case:
    """``files`` by name; ``options`` are plain JSON."""

    kind: str
    files: dict[str, bytes]
    options: dict = field(default_factory=dict)

    def to_json(self):
        files = {name: _text(data) for name, data in self.files.items()}
        return {"kind": self.kind, "options": self.options, "files": files}

    @classmethod
    def from_json(cls, document):
        return cls(
            document["kind"], {name: _bytes(text) for name, text in document["files"].items()}, document["options"]
        )


def _text(data):
    try:
        return data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes(text):
    return base64.b64decode(text["base64"]) if isinstance(text, dict) else "\n".join(text).encode("ascii")


def case_of(seed, number, kinds=tuple(KINDS)):
    """Case ``number`` of a seed."""
    rng = Random(f"{seed}/{number}")
    kind = rng.choices(kinds, [KINDS[name][0] for name in kinds])[0]
    files, options = KINDS[kind][1](Random(f"{seed}/{number}/{kind}"))
    return Case(kind, files, options)


# -- one case


@dataclass
class Outcome:
    """What became of a case: ``answered``, ``refused`` with its sentence, or an escape with its ``signature``."""

    seconds: float
    refusal: str = ""
    signature: str = ""
    trace: str = ""


def attempt(case, folder, seconds=SECONDS):
    """Try one case in a folder that is empty before and after."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    _, _, trial, others = KINDS[case.kind]
    outcome = Outcome(0)
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        trial(folder, case.options)
    except (InputError, *others) as error:
        outcome.refusal = str(error)
        if "case" not in outcome.refusal and case.kind not in {"cli", "dump"}:  # these ask by no file, or by several
            shape = re.sub(NUMBERS, "#", outcome.refusal)[:60]
            outcome.signature, outcome.trace = f"a refusal that names no file: {shape}", traceback.format_exc()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (everything else is what is looked for)
        outcome.signature, outcome.trace = _signature(error), traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    outcome.seconds = time.process_time() - begin
    for path in folder.iterdir():
        path.unlink()
    return outcome


def _hang(_signal, _frame):
    raise Hang(f"more than {SECONDS} s of CPU")


def _signature(error):
    """Kind of error and the innermost place of ours: what tells one escape from another."""
    places = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/swiommu/" in frame.filename or "/cma_compat/" in frame.filename
    ]
    inner = places[-1] if places else traceback.extract_tb(error.__traceback__)[-1]
    words = re.sub(NUMBERS, "#", str(error))[:80] if isinstance(error, AssertionError) else ""
    if isinstance(error, Hang):
        return f"Hang in {places[0].name if places else inner.name}"
    return f"{type(error).__name__} in {Path(inner.filename).name}:{inner.name} {words}".strip()


# -- smaller cases


def shrunk(case, signature, folder):
    """The case with as many lines, entries of JSON and words as possible taken away, and still the same escape."""
    stop = time.monotonic() + SHRINK_SECONDS

    def same(files):
        return time.monotonic() < stop and attempt(Case(case.kind, files, case.options), folder).signature == signature

    files = dict(case.files)
    for name in [*files]:
        less = {key: data for key, data in files.items() if key != name}
        if same(less):
            files = less
    for name in files:
        for pieces, join in _ways_to_cut(name, files[name]):

            def holds(kept, name=name, join=join, files=files):
                return same(files | {name: join(kept)})

            files[name] = join(_fewest(pieces, holds))
    return Case(case.kind, files, case.options)


def _ways_to_cut(name, data):
    """Lists of pieces, and what makes a file of some of them."""
    if name.endswith(".json"):
        facts = json.loads(data) if data.startswith(b"{") else None
        if facts:
            yield list(facts.items()), lambda kept: json.dumps(dict(kept)).encode()
    elif name.endswith((".bin", ".dtb", ".gz")):
        yield [data[at : at + 64] for at in range(0, len(data), 64)], b"".join
    else:
        yield data.split(b"\n"), b"\n".join


def _fewest(pieces, holds):
    """Pieces of which none can be spared, found by leaving out halves, quarters, and so on."""
    step = max(len(pieces) // 2, 1)
    while True:
        at = 0
        while at < len(pieces):
            fewer = pieces[:at] + pieces[at + step :]
            if holds(fewer):
                pieces = fewer
            else:
                at += step
        if step == 1:
            return pieces
        step //= 2


# -- many cases


@dataclass
class Tally:
    """Of one kind."""

    cases: int = 0
    answered: int = 0
    refused: int = 0
    escaped: int = 0
    seconds: float = 0
    slowest: tuple[float, int] = (0, -1)
    refusals: Counter = field(default_factory=Counter)

    def to_json(self):
        return {
            "cases": self.cases,
            "answered": self.answered,
            "refused": self.refused,
            "escaped": self.escaped,
            "seconds": round(self.seconds, 1),
            "slowest": {"seconds": round(self.slowest[0], 3), "case": self.slowest[1]},
            "refusals": dict(self.refusals.most_common(12)),
        }


class Run:
    """Cases one after the other; ``escapes`` by signature, with the number and the smallest case of the first."""

    def __init__(self, seed, kinds, folder, *, save=None):
        self.seed, self.kinds, self.folder, self.save = seed, tuple(kinds), folder, save
        self.tallies = {kind: Tally() for kind in kinds}
        self.escapes = {}
        self.begin = time.monotonic()

    def one(self, number):
        case = case_of(self.seed, number, self.kinds)
        outcome = attempt(case, self.folder)
        tally = self.tallies[case.kind]
        tally.cases += 1
        tally.seconds += outcome.seconds
        tally.slowest = max(tally.slowest, (outcome.seconds, number))
        if outcome.signature:
            tally.escaped += 1
            self._escape(number, case, outcome)
        elif outcome.refusal:
            tally.refused += 1
            shape = re.sub(NUMBERS, "#", outcome.refusal)[:100]
            if shape in tally.refusals or len(tally.refusals) < 500:
                tally.refusals[shape] += 1
        else:
            tally.answered += 1

    def _escape(self, number, case, outcome):
        known = self.escapes.get(outcome.signature)
        if known:
            known["times"] += 1
            return
        small = shrunk(case, outcome.signature, self.folder)
        document = small.to_json()
        self.escapes[outcome.signature] = {"times": 1, "number": number, "case": document}
        print(f"case {number} of seed {self.seed}: {outcome.signature}\n{outcome.trace}", file=sys.stderr)
        print(f"{json.dumps(document)[:6000]}\n", file=sys.stderr, flush=True)
        if self.save:
            name = re.sub(r"\W+", "-", f"{case.kind}-{outcome.signature}")[:80]
            (self.save / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")

    def to_json(self):
        return {
            "seed": self.seed,
            "cases": sum(tally.cases for tally in self.tallies.values()),
            "seconds": round(time.monotonic() - self.begin, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "kinds": {kind: tally.to_json() for kind, tally in self.tallies.items()},
            "escapes": self.escapes,
        }


def run(cases, seed, folder, *, first=0, kinds=tuple(KINDS), log=None, save=None):
    """So many cases; the log is written again every minute, so that it is there if the machine is not."""
    signal.signal(signal.SIGPROF, _hang)
    running, written = Run(seed, kinds, folder, save=save), time.monotonic()
    for number in range(first, first + cases):
        running.one(number)
        if log and time.monotonic() - written > 60:
            log.write_text(json.dumps(running.to_json(), indent=1) + "\n")
            written = time.monotonic()
    if log:
        log.write_text(json.dumps(running.to_json(), indent=1) + "\n")
    return running


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--log", type=Path, help="what was done, as JSON")
    parser.add_argument("--save", type=Path, help="where the smallest cases that escape are kept")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        done = run(
            options.cases,
            options.seed,
            Path(folder),
            first=options.first,
            kinds=options.kinds,
            log=options.log,
            save=options.save,
        )
    for kind, tally in done.tallies.items():
        print(
            f"{kind:14} {tally.cases:9,} cases: {tally.answered:,} answered, {tally.refused:,} refused, "
            f"{tally.escaped:,} escaped; {tally.seconds:.1f} s, slowest {tally.slowest[0]:.3f} s (case {tally.slowest[1]})"  # noqa: E501
        )
    for signature, escape in done.escapes.items():
        print(f"escaped {escape['times']:,} times, first case {escape['number']}: {signature}")
    facts = done.to_json()
    print(f"{facts['cases']:,} cases of seed {done.seed} in {facts['seconds']} s, at most {facts['peak_mib']} MiB")
    sys.exit(bool(done.escapes))


if __name__ == "__main__":
    main()
