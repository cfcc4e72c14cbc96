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
    parser.add_argument("--model", required=model_needed, help="SmolLM2-135M-Instruct as GGUF")
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
            print(f"FAILED: {program} {' '.join(map(str, words))}\n{done.stderr}", flush=True)
            sys.exit(1)
        return done.stdout

    def logits(self, model, tokens, scratch, adapter=None, more=0):
        """Our greedy continuation by `more` tokens, and our logits at every position, those of the continuation too."""
        out = scratch / "logits.f32"
        words = [model, ",".join(map(str, tokens)), more, out]
        said = self.run("examples/logits", *words, *([adapter] if adapter else [])).strip()
        chosen = [int(word) for word in said.split(",")] if said else []
        return chosen, numpy.fromfile(out, numpy.float32).reshape(len(tokens) + len(chosen), -1)


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
