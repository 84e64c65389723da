"""Characters that a library knows as letters, marks or digits, or not yet, depending on its version of Unicode.

gigatoken 0.10 has Unicode 17, tokenizers 0.23 has 16, and Python has another one with each of its versions.
"""

from functools import cache
from unicodedata import category

import numpy as np
import numpy.typing as npt

# Found by comparing all characters in places where a letter, a mark, a digit, a sign and anything else are cut
# differently, with tokenizers 0.23; the last one is the whole of CJK extension J.
YOUNG = (
    "88f c5c cdc 1acf-1add 1ae0-1aeb 20c1 2b96 a7ce-a7cf a7d2 a7d4 a7f1 fbc3-fbd2 fd90-fd91 fdc8-fdce 10940-10959 "
    "10ec5-10ec7 10ed0-10ed8 10efa-10efb 11b60-11b67 11db0-11ddb 11de0-11de9 16ea0-16eb8 16ebb-16ed3 16ff2-16ff6 "
    "187f8-187ff 18d09-18d1e 18d80-18df2 1ccfa-1ccfc 1ceba-1ced0 1cee0-1cef0 1e6c0-1e6de 1e6e0-1e6f5 1e6fe-1e6ff "
    "1f6d8 1f777-1f77a 1f8d0-1f8d8 1fa54-1fa57 1fa8a 1fa8e 1fac8 1facd 1faea 1faef 1fbfa 2b73a-2b73f 2cea2-2cead "
    "323b0-33479"
)
TOKENIZERS = "0.23"
CHARACTERS = 0x110000
SURROGATES = range(0xD800, 0xE000)
# The category of code points that are no characters yet; surrogates have another one.
UNASSIGNED = "Cn"
# Planes without characters so far, and where those begin that nobody but their users gives a meaning.
EMPTY = range(0x40000, 0xE0000)
PRIVATE = 0xF0000

Table = npt.NDArray[np.bool_]


@cache
def young() -> Table:
    """Of each character, by code point, whether the libraries differ in what they take it for."""
    table = np.zeros(CHARACTERS, np.bool_)
    for span in YOUNG.split():
        first, _, last = span.partition("-")
        table[int(first, 16) : int(last or first, 16) + 1] = True
    return table


@cache
def young_or_unknown() -> Table:
    """The same, and the characters of which Python cannot tell whether they are in a normal form."""
    table = young().copy()
    table[EMPTY.start : EMPTY.stop] = True
    for codes in (range(EMPTY.start), range(EMPTY.stop, PRIVATE)):
        table[codes.start : codes.stop] |= np.fromiter(
            map(UNASSIGNED.__eq__, map(category, map(chr, codes))), np.bool_
        )
    return table


def holds(text: str, table: Table) -> bool:
    """Whether one of the text's characters is in the table, which has none of ASCII."""
    if text.isascii():
        return False
    return bool(table[np.frombuffer(text.encode("utf-32-le"), np.uint32)].any())
