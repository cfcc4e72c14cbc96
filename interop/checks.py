"""What the scripts share: running t2l, small models and adapters, judging differences."""

import argparse
import json
import subprocess
import sys

import torch


def arguments(*more):
    parser = argparse.ArgumentParser()
    parser.add_argument("--t2l", default="target/release/t2l", help="the program")
    for name, help_text in more:
        parser.add_argument(name, required=True, help=help_text)
    return parser.parse_args()


class T2l:
    def __init__(self, program):
        self.program = program

    def __call__(self, *words):
        """Runs a command with --json and returns its result."""
        done = subprocess.run([self.program, *map(str, words), "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"FAILED: t2l {' '.join(map(str, words))}\n{done.stderr}")
        return json.loads(done.stdout)


def check(what, found, bound):
    """Fails when a difference is larger than it may be."""
    print(f"{'ok' if found <= bound else 'FAILED'}: {what}: {found:.3g} (at most {bound:.3g})", flush=True)
    if not found <= bound:
        sys.exit(1)


def largest(x, y):
    """Largest difference of two tensors."""
    return (x.double() - y.double()).abs().max().item()


def randomise(model, seed, scale):
    """Fills LoRA factors, of which PEFT leaves B at zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * scale)
