"""Records proto/tiktoken-0.14.0/o200k.jsonl: what OpenAI's own tokenizer makes of texts that tokenizers differ on.

tiktoken comes without its vocabulary. The one that it is given here is the file within the crate `bpe-openai`, where cargo has unpacked
it; tiktoken itself checks that its SHA-256 is that of the file which OpenAI publishes. The texts are constructed, the counts are tiktoken's.

    .deps/venv/bin/pip install tiktoken==0.14.0
    .deps/venv/bin/python tests/captures/o200k.py
"""

import gzip
import hashlib
import json
import os
import random
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "proto/tiktoken-0.14.0/o200k.jsonl"
CARGO = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"

PROSE = [
    "",
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say it's what we've WE'VE we'Ve been told; y'all'd've known.",
    "  leading, trailing  ",
    "one\ntwo\r\nthree\n\n\nfour\t\tfive",
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x7fff",
    "CamelCaseWords HTTPServer XMLHttpRequest snake_case_words kebab-case-words SCREAMING_CASE",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org",
    "!!!???...---___***///\\\\\\ @#$%^&*()[]{}<>|~`",
    "<|endoftext|><|start|>system<|message|>not special here<|end|>",
    "Größe, naïve, Ελλάδα, Привет, שלום, مرحبا, नमस्ते, สวัสดี",
    "你好,世界。今天天气怎么样? 日本語のテキスト、カタカナ。한국어 문장입니다.",
    "e\u0301 against \u00e9, \ufb01 against fi, \u00a0\u2003\u3000spaces\u200b\ufeff",
    "😀👍🏽👩‍👩‍👧‍👦🏳️‍🌈 in a row 🇩🇪🇫🇷",
    "\u0000\u0001\u001b[31mred\u001b[0m\u007f",
    "ǅ ǈ ǋ title case, ᾳ, ß→ẞ, İi ıI",
]
CODE = [
    'fn main() {\n    let x: Vec<u8> = (0..10).map(|n| n * 2).collect();\n    println!("{x:?}");\n}\n',
    "def f(a, b=1, *args, **kwargs):\n\treturn {**kwargs, 'a': a}  # done\n\n\nclass A:\n    pass\n",
    '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}',
    "SELECT a.id, COUNT(*) FROM a LEFT JOIN b ON a.id = b.a_id WHERE b.x IS NULL GROUP BY 1;",
    "<div class=\"a b\"><p>text &amp; more</p>\n</div>\n",
    "*** Begin Patch\n*** Update File: src/lib.rs\n@@ fn a()\n-    old();\n+    new();\n*** End Patch",
    "if (a && !b || c[d] >= e<<2) { return x ? y : -z; } /* why */ // so",
]
LENGTHS = [1, 2, 3, 7, 8, 31, 64, 127, 128, 129, 500, 3000]


def runs() -> list[str]:
    """The same again and again: where greedy and exact tokenizers differ."""
    return [unit * length for unit in (" ", "\n", "a", "ab", "0", "=", "é", "字", " \n", "A a") for length in LENGTHS]


def mixtures(count: int) -> list[str]:
    """Pieces of all the texts and letters of many scripts, thrown together by a fixed seed."""
    chance = random.Random(20261122)
    words = [word for text in PROSE + CODE for word in text.split(" ")]
    ranges = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x900, 0x97F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0x1F300, 0x1F64F)]
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(chance.randint(1, 60)):
            letters = "".join(chr(chance.randint(*chance.choice(ranges))) for _ in range(chance.randint(0, 4)))
            pieces.append(chance.choice(words) + chance.choice(["", " ", "  ", "\n", "\t", "'", "."]) + letters)
        texts.append("".join(pieces))
    return texts


def main() -> None:
    [packed] = (CARGO / "registry/src").glob("*/bpe-openai-0.3.2/data/o200k_base.tiktoken.gz")
    with tempfile.TemporaryDirectory() as cache:
        (Path(cache) / hashlib.sha1(URL.encode()).hexdigest()).write_bytes(gzip.decompress(packed.read_bytes()))
        os.environ["TIKTOKEN_CACHE_DIR"] = cache
        import tiktoken

        encoding = tiktoken.get_encoding("o200k_base")
    texts = PROSE + CODE + runs() + mixtures(120)
    rows = ({"tokens": len(encoding.encode_ordinary(text)), "text": text} for text in texts)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


main()
