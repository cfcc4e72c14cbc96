"""llama.cpp beside t2l on Gemma 3: tokens, greedy answers, and a generated adapter, from one GGUF file.

    t2l models pull gemma-3-270m
    cargo build --release -p t2l -p t2l-backbone --bin t2l --example probe --example random_hypernetwork
    python interop/llama_cpp_gemma.py --model "$(target/release/t2l models path gemma-3-270m)"
"""

import json
import pathlib
import tempfile

import gguf
import numpy
import torch
import transformers
from llama_cpp import Llama

from checks import T2l, agreed, arguments, check, largest, note, same
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
# llama.cpp's cache in f32, flash attention off.
EXACT = dict(type_k=gguf.GGMLQuantizationType.F32, type_v=gguf.GGMLQuantizationType.F32, flash_attn=False)


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


def text_and_tokens(probe, words):
    for text in TEXTS:
        found = probe(encode=text)["ids"]
        same(f"tokens of {text!r}", found, words.tokenize(text.encode(), add_bos=True, special=True))
        same(f"tokens of {text!r}, decoded", probe(decode=found)["text"], "<bos>" + text.replace("▁", " "))
    agreed(f"tokens of {len(TEXTS)} texts, and back")
    for chat, expected in zip(CHATS, RENDERED):
        found = probe(render=[{"role": role, "content": content} for role, content in chat])["text"]
        same(f"{chat}, rendered", found, expected)
    agreed(f"{len(CHATS)} conversations rendered")


def continuing(probe, model, plain, prompts):
    """On F32 weights the same up to the first token that is barely ahead; on the file itself llama.cpp quantises activations."""
    ours = [probe.greedy(prompt, COUNT) for prompt in prompts]
    for path in [plain, model]:
        llama = Llama(str(path), logits_all=True, n_ctx=128, verbose=False, **EXACT)
        total = 0
        for text, prompt, found in zip(PROMPTS, prompts, ours):
            expected, margins = greedy(llama, prompt, COUNT)
            clear = next((i for i, margin in enumerate(margins) if margin < MARGIN), COUNT)
            if path == plain:
                same(f"{text!r}, continued by {clear} tokens of clear margin", found[:clear], expected[:clear])
            total += next((i for i in range(16) if found[i] != expected[i]), 16)
        count = f"{total} of {16 * len(prompts)} tokens the same (until the first that differs, 16 of each prompt)"
        if path == plain:
            agreed(f"greedy continuation on F32: {count}; all of clear margin are")
        else:
            note(f"greedy continuation on the quantised file: {count}")


def main():
    args = arguments(model_needed=True)
    t2l = T2l(args.bin)
    words = Llama(args.model, vocab_only=True, verbose=False)
    with tempfile.TemporaryDirectory() as folder, t2l.probe(args.model) as probe:
        root = pathlib.Path(folder)
        text_and_tokens(probe, words)
        plain = root / "f32.gguf"
        as_f32(args.model, plain)
        prompts = [words.tokenize(text.encode(), add_bos=True) for text in PROMPTS]
        continuing(probe, args.model, plain, prompts)
        tokens = prompts[0]
        base = logits(plain, tokens)
        check("logits on F32", largest(probe.logits(tokens, root), base), TABLE)

        # Sliding layers see 512 tokens; a text that is longer than that.
        long = (prompts[1][1:] + prompts[0][1:] + prompts[3][1:]) * 40
        long = prompts[0][:1] + long[:599]
        llama = Llama(str(plain), logits_all=True, n_ctx=640, verbose=False, **EXACT)
        llama.eval(long)
        expected = numpy.array(llama.scores[590:600])
        del llama
        check("logits beyond the window", largest(probe.logits(long, root)[590:600], expected), TABLE)

        model = transformers.AutoModelForCausalLM.from_pretrained(root, gguf_file="f32.gguf", dtype=torch.float32)
        with torch.no_grad():
            exact = model.eval()(torch.tensor([tokens])).logits[0].numpy()
            exact_long = model(torch.tensor([long]), logits_to_keep=10).logits[0].numpy()
        del model
        check("logits of transformers", largest(probe.logits(tokens, root), exact), 2e-3)
        check("logits of transformers beyond the window", largest(probe.logits(long, root)[590:600], exact_long), 2e-3)

        t2l.run("examples/random_hypernetwork", args.model, root / "hypernet", "1")
        settings = ["--checkpoint", root / "hypernet", "--base-name", "google/gemma-3-270m"]
        t2l("generate", DESCRIPTION, "-o", root / "peft", *settings)
        t2l("adapter", "convert", root / "peft", root / "lora.gguf", "--model", args.model)
        theirs = logits(plain, tokens, root / "lora.gguf")
        moved = largest(theirs, base)
        assert moved > 0.5, f"the adapter moves the logits by {moved} only"
        for name in ["peft", "lora.gguf"]:
            ours = probe.logits(tokens, root, root / name)
            check(f"a generated adapter that moves logits by {moved:.2f}, here from {name}: logits", largest(ours, theirs), TABLE)
        answer = t2l("ask", DESCRIPTION, "tall", "--checkpoint", root / "hypernet", "--model", args.model, "--max-tokens", "8")
        note(f"t2l ask answers under random weights: {json.dumps(answer)}")


if __name__ == "__main__":
    main()
