"""What the scripts share: running our programs, judging differences."""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy


def arguments(model_needed=False):
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, default="target/release", help="folder of t2l and examples/")
    parser.add_argument("--model", required=model_needed, help="the GGUF file of the model that the script is about")
    return parser.parse_args()


class T2l:
    """Our programs in a folder of cargo's."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def __call__(self, *words):
        """Runs a command with --json and returns its result."""
        return json.loads(self.run("t2l", *words, "--json"))

    def run(self, program, *words):
        done = subprocess.run([self.folder / program, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            fail(f"{program} {' '.join(map(str, words))}\n{done.stderr}")
        return done.stdout

    def probe(self, model):
        return Probe(self.folder / "examples/probe", model)

    def logits(self, model, tokens, scratch, adapter=None, more=0):
        """Our greedy continuation by `more` tokens, and our logits at every position, those of the continuation too."""
        with self.probe(model) as probe:
            chosen = probe.greedy(tokens, more, adapter) if more else []
            return chosen, probe.logits(tokens + chosen, scratch, adapter)


class Probe:
    """The example of that name, of t2l-backbone: questions about one model."""

    def __init__(self, program, model):
        command = [program, str(model)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()

    def __call__(self, **question):
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline()
        if not answer:
            fail(f"probe does not answer {question}")
        return json.loads(answer)

    def greedy(self, tokens, count, adapter=None):
        return self(greedy=tokens, count=count, **worn(adapter))["ids"]

    def logits(self, tokens, scratch, adapter=None):
        out = scratch / "logits.f32"
        shape = self(logits=tokens, out=str(out), **worn(adapter))["shape"]
        return numpy.fromfile(out, "<f4").reshape(shape)


def worn(adapter):
    return {"adapter": str(adapter)} if adapter else {}


def fail(text):
    print(f"FAILED: {text}", flush=True)
    sys.exit(1)


def same(what, found, expected):
    """Fails when two things are not the same; says nothing else."""
    if found != expected:
        fail(f"{what}: {found!r} instead of {expected!r}")


def agreed(text):
    """What the checks before it amount to."""
    print(f"ok: {text}", flush=True)


def check(what, found, bound):
    """Fails when a difference is larger than it may be."""
    print(f"{'ok' if found <= bound else 'FAILED'}: {what}: {found:.3g} (at most {bound:.3g})", flush=True)
    if not found <= bound:
        sys.exit(1)


def note(text):
    """A figure that nothing is asked of."""
    print(f"note: {text}", flush=True)


def largest(x, y):
    """Largest difference of two arrays or tensors of one shape."""
    x, y = numpy.asarray(x, numpy.float64), numpy.asarray(y, numpy.float64)
    assert x.shape == y.shape, (x.shape, y.shape)
    return float(numpy.abs(x - y).max())


def randomise(model, seed, scale):
    """Fills LoRA factors, of which PEFT leaves B at zero."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * scale)
