"""Texts that tokenizers are likely to disagree about."""

import random
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import product
from unicodedata import normalize

SEED = 11
OF_EACH_CATEGORY = 12
# The planes that hold letters, marks and symbols; what comes after is private or empty.
LAST_CHARACTER = 0x323AF
STEP = 7
LONG = 20_000
# White space that is cut in ways of its own at line ends; all runs of so many are tried.
LINES = (" ", "\n", "\r", "\t")
LONGEST_RUN = 4
WHITE = (*" \n\t\r\x0b\x0c\x85\xa0\u2003\u2028\u3000\u200b\ufeff", "\r\n")
# Between them they have each byte that UTF-8 has, in characters that hardly any vocabulary has.
RARE_CODES = (
    *(*range(0x80, 0x800, 0x40), *range(0x840, 0xD800, 0x1C0), *range(0xE000, 0xFFC0, 0x1C0)),
    *(*range(0xF0000, 0xF0040), 0x1BFFF, 0x50000, 0x80000, 0x10FFFD),
)
RARE = "".join(map(chr, RARE_CODES))
WRITTEN = (
    "Hello, world! It's 12:30, isn't it? I'LL we'Ve they'RE he'd I'm ’s 'S",
    "def f(x: int) -> int:\n\tif x > 1_000:\n\t\treturn x**2  # squared\n\n    return 0x1F\n\n\n\n",
    "1 12 123 1234 12345 1234567890 3.14159 -1e-9 1,000,000 ½ ² ٣٤٥ 一二三 Ⅷ",
    "naïve café — “quotes” … résumé ÅNGSTRÖM ﬁne ſtraße İstanbul ΣΑΣ ǅ",
    "cafe\u0301 A\u030a \u1100\u1161\u11a8 한국어 q\u0307\u0323 \u0323\u0307 e\u0301\u0301",
    "日本語のテキスト。中文文本，标点。ไทยภาษา हिन्दी क्षि العربية עברית ქართული አማርኛ",
    "🎉 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ☺️ ☺ ⌨︎ 𝔘𝔫𝔦 𠜎𠜱 \U0001f9d1\u200d\U0001f4bb",
    "https://example.org/a/b?c=d&e=%20#f user@example.org C:\\path\\file.txt ../..//x",
    "<s></s> <unk> <0x0A><0xE4> ▁▁under▁score ĠGĊ Ä <|endoftext|> <|im_start|>user <|im_end|>\n[INST] [/INST]",
    "\x00\x01\x1f\x7f\x80\x9f \ufffd \ufffe \uffff \ue000 \U0010ffff",
    '{"a": [1, 2.5, null], \'b\': "\\u00e9\\n"}\n| x | y |\n|---|---|\n$$\\frac{a}{b}$$ ```py\n```',
    "",
    " ",
    "\n",
    "a",
)


@cache
def characters() -> dict[str, tuple[str, ...]]:
    """Some characters of each category of Unicode but surrogates, always the same ones."""
    found: dict[str, list[str]] = defaultdict(list)
    for code in range(0, LAST_CHARACTER, STEP):
        category = unicodedata.category(chr(code))
        if category not in ("Cs", "Cn"):
            found[category].append(chr(code))
    rng = random.Random(SEED)  # noqa: S311
    return {
        category: tuple(rng.sample(held, min(len(held), OF_EACH_CATEGORY)))
        for category, held in sorted(found.items())
    }


def battery(special_tokens: Sequence[str]) -> list[str]:
    """The texts. `special_tokens` are those of the tokenizer: they occur in the middle of texts too."""
    rng = random.Random(SEED)  # noqa: S311
    texts = list(WRITTEN)
    texts += [
        white * count + end for white in WHITE for count in (1, 2, 3, 4, 9, 17) for end in ("", "x", "1", ".")
    ]
    texts += ["".join(map(chr, range(0x80))), "".join(f" {chr(code)}" for code in range(0x21, 0x100)), RARE]
    runs = ["".join(run) for size in range(1, LONGEST_RUN + 1) for run in product(LINES, repeat=size)]
    texts += [
        start + run + end for run in runs for start, end in (("", ""), ("a", ""), (".", "b"), ("1", " "))
    ]
    every = [character for held in characters().values() for character in held]
    for category, held in characters().items():
        texts += [
            "".join(held),
            "".join(f" {c}a{c}{c} 1{c}" for c in held),
            category + "".join(f"{c}\n" for c in held),
        ]
    pool = every + list("abcdefghij ABC 0123 .,'!\n\t  ") * (len(every) // 10)
    texts += ["".join(rng.choices(pool, k=rng.randint(1, 40))) for _ in range(200)]
    forms = [form for token in special_tokens for form in dict.fromkeys((token, normalize("NFC", token)))]
    for token in forms:
        texts += [
            token,
            f"a{token}b",
            f" {token} {token}\n{token}",
            f"{token}{token[:-1]}",
            f"{token}\u0338 {token}\u0301",
            f"x {token}\n\n y",
        ]
    texts += [
        "a" * LONG,
        " " * LONG,
        "ab1 " * (LONG // 4),
        "".join(rng.choices(pool, k=LONG)),
        "é" * 999,
        "🎉" * 99,
    ]
    return texts
