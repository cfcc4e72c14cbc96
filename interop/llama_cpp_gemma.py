"""llama.cpp beside t2l on Gemma 3: tokens, greedy answers, and a generated adapter, from one GGUF file.

    t2l models pull gemma-3-270m
    cargo build --release -p t2l-backbone --example probe; cargo build --release -p t2l --examples
    python interop/llama_cpp_gemma.py --t2l target/release/t2l --examples target/release/examples \
        --model "$(target/release/t2l models path gemma-3-270m)"
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy
import torch
import transformers
from llama_cpp import Llama

from checks import T2l, arguments, check, largest
from llama_cpp_adapters import as_f32, logits

TEXTS = [
    "Hello", " Hello", "Hello  world", "  two before", "after  ", "a\tb\t\tc", "line\nline\n\nline\n\n\n\nfar", "\r\nwindows\r\n",
    "     ", "a" + " " * 40 + "b", "\n" * 30, "1234567890 12.5 1,000,000", "naïve café coöperate", "Ünïcödé ﬁ ½ ², Ⅻ",
    "e\u0301 combining", "日本語のテキスト", "中文字符，标点。", "한국어 문장", "Привет, мир!", "مرحبا بالعالم", "שלום עולם", "हिन्दी में",
    "ไทยไม่มีช่องว่าง", "🙂🚀 emoji 👩‍👩‍👧‍👦 family 🇩🇪", "𝒳 astral 𐍈", "zero\u200bwidth\u00a0space\u3000wide", "▁already▁here",
    "def f(x):\n    return {k: v**2 for k, v in x.items()}  # note\n", "fn main() { println!(\"{:?}\", x?); }",
    "<div class=\"a\">&amp;</div><br/>", "SELECT * FROM t WHERE a<>b;", "https://example.org/a?b=c&d=%20", "\\n \\u0041 $x^2$",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<bos>twice", "<unused12> <mask>", "<start_of_turn", "<0x41>",
    "[multimodal]", "aaaaaaaaaaaaaaaaaaaaaaa", "Donaudampfschifffahrtsgesellschaftskapitän", "\x00\x01\x7f", "x", ".", "'s 't I'm we'll",
]
CHATS = [
    [("user", "Hi")],
    [("user", "  spaces  "), ("assistant", "Yes.\n"), ("user", "And\nnow?")],
    [("system", "Be brief."), ("user", "What is 2+2?")],
]
RENDERED = [
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<bos><start_of_turn>user\nspaces<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n<start_of_turn>user\nAnd\nnow?"
    "<end_of_turn>\n<start_of_turn>model\n",
    "<bos><start_of_turn>user\nBe brief.\n\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n",
]
PROMPTS = [
    "The capital of France is Paris. The capital of Italy is", "Once upon a time", "def fibonacci(n):\n",
    "The three primary colours are", "Water boils at a temperature of",
]
DESCRIPTION = "Give the superlative form of the adjective."
# Where the first and the second token are closer than this, either may come.
MARGIN = 0.01
COUNT = 32
# llama.cpp looks Gemma's activation up in a table of f16; transformers, which computes it, is compared more closely.
TABLE = 0.05


class Probe:
    """t2l-backbone's example of that name."""

    def __init__(self, program, model):
        self.process = subprocess.Popen([program, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"FAILED: no answer to {question}")
        return json.loads(answer)

    def logits(self, tokens, out, **more):
        shape = self(logits=tokens, out=str(out), **more)["shape"]
        return torch.from_numpy(numpy.fromfile(out, dtype="<f4")).reshape(shape)


def greedy(llama, prompt, count):
    """Tokens and how far each was before the second."""
    tokens, margins = [], []
    llama.reset()
    llama.eval(prompt)
    for _ in range(count):
        row = llama.scores[llama.n_tokens - 1]
        second, first = numpy.partition(row, -2)[-2:]
        tokens.append(int(row.argmax()))
        margins.append(float(first - second))
        llama.eval(tokens[-1:])
    return tokens, margins


def main():
    args = arguments(("--model", "Gemma 3 270M as GGUF"), ("--examples", "folder of the built examples"))
    probe = Probe(f"{args.examples}/probe", args.model)
    words = Llama(args.model, vocab_only=True, verbose=False)
    for text in TEXTS:
        expected = words.tokenize(text.encode(), add_bos=True, special=True)
        found = probe(encode=text)["ids"]
        if found != expected:
            sys.exit(f"FAILED: tokens of {text!r}: {found} instead of {expected}")
        decoded = probe(decode=found)["text"]
        if decoded != "<bos>" + text.replace("▁", " "):
            sys.exit(f"FAILED: tokens of {text!r} decode to {decoded!r}")
    print(f"ok: tokens of {len(TEXTS)} texts, and back")
    for chat, expected in zip(CHATS, RENDERED):
        found = probe(render=[{"role": role, "content": content} for role, content in chat])["text"]
        if found != expected:
            sys.exit(f"FAILED: {chat} is rendered as {found!r}")
    print(f"ok: {len(CHATS)} conversations rendered")

    options = dict(type_k=gguf.GGMLQuantizationType.F32, type_v=gguf.GGMLQuantizationType.F32, flash_attn=False)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        plain = root / "f32.gguf"
        as_f32(args.model, plain)
        prompts = [words.tokenize(text.encode(), add_bos=True) for text in PROMPTS]
        ours = [probe(greedy=prompt, count=COUNT)["ids"] for prompt in prompts]
        for name, path in [("F32", plain), ("the file itself", args.model)]:
            llama = Llama(str(path), logits_all=True, n_ctx=128, verbose=False, **options)
            same = 0
            for text, prompt, found in zip(PROMPTS, prompts, ours):
                expected, margins = greedy(llama, prompt, COUNT)
                clear = next((i for i, margin in enumerate(margins) if margin < MARGIN), COUNT)
                differs = next((i for i in range(COUNT) if found[i] != expected[i]), COUNT)
                same += min(differs, 16)
                if name == "F32":
                    print(f"{text!r}: {differs} of {COUNT} tokens the same; the first unclear one is {clear}")
                    if differs < clear:
                        sys.exit(f"FAILED: {found} instead of {expected}, margin {margins[differs]}")
            print(f"ok: greedy tokens on {name}: {same} of {16 * len(PROMPTS)} the same (first 16 of each)")
            del llama
        tokens = prompts[0]
        base = logits(plain, tokens)
        check("logits on F32", largest(probe.logits(tokens, root / "ours"), base), TABLE)

        # Sliding layers see 512 tokens; a text that is longer than that.
        long = (prompts[1][1:] + prompts[0][1:] + prompts[3][1:]) * 40
        long = prompts[0][:1] + long[:599]
        llama = Llama(str(plain), logits_all=True, n_ctx=640, verbose=False, **options)
        llama.eval(long)
        expected = torch.tensor(numpy.array(llama.scores[590:600]))
        del llama
        found = probe.logits(long, root / "ours")[590:600]
        check("logits beyond the window", largest(found, expected), TABLE)

        model = transformers.AutoModelForCausalLM.from_pretrained(root, gguf_file="f32.gguf", dtype=torch.float32)
        with torch.no_grad():
            exact = model.eval()(torch.tensor([tokens])).logits[0]
            exact_long = model(torch.tensor([long]), logits_to_keep=10).logits[0]
        del model
        check("logits of transformers", largest(probe.logits(tokens, root / "ours"), exact), 2e-3)
        check("logits of transformers beyond the window", largest(found, exact_long), 2e-3)

        subprocess.run([f"{args.examples}/random_hypernetwork", args.model, root / "hypernet", "0.05"], check=True)
        t2l = T2l(args.t2l)
        settings = ["--checkpoint", root / "hypernet", "--base-name", "google/gemma-3-270m"]
        t2l("generate", DESCRIPTION, "-o", root / "peft", *settings)
        t2l("adapter", "convert", root / "peft", root / "lora.gguf", "--model", args.model)
        ours = probe.logits(tokens, root / "ours", adapter=str(root / "peft"))
        theirs = logits(plain, tokens, root / "lora.gguf")
        moved = largest(theirs, base)
        assert moved > 0.5, f"the adapter moves the logits by {moved} only"
        check(f"a generated adapter that moves logits by {moved:.2f}: logits", largest(ours, theirs), TABLE)
        answer = t2l("ask", DESCRIPTION, "tall", "--checkpoint", root / "hypernet", "--model", args.model, "--max-tokens", "8")
        print(f"ok: ask: {json.dumps(answer)}")


if __name__ == "__main__":
    main()
