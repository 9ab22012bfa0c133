"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) of large arrays: numpy takes thousands of pieces of them side by side."""
from __future__ import annotations

from functools import cache

import numpy as np

POLYNOMIAL = 0x82F63B78       # reflected: the lowest bit is the first
START = b"\x54\x64\x1f\x64"   # what leads a register of 0 to 0xffffffff, with which a CRC-32C begins


def masked_crc32c(*parts: bytes | memoryview) -> int:
    """The checksum of the parts in a row as LevelDB and TensorFlow store it: rotated, and a constant added."""
    crc = crc32c(b"".join(parts))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The checksum. The pieces are computed from a register of 0 and joined in pairs: zeros in front change nothing."""
    data = np.frombuffer(START + data, np.uint8)
    power = len(data).bit_length() // 2
    pieces = -(-len(data) >> power)                                     # of 2 ** power bytes each
    padded = np.zeros(pieces << power, np.uint8)
    padded[len(padded) - len(data):] = data
    state = np.zeros(pieces, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(pieces, -1).T):  # one byte of each piece
        state = table()[(state ^ column) & 255] ^ state >> np.uint32(8)
    while len(state) > 1:
        if len(state) % 2:
            state = np.insert(state, 0, 0)
        state = apply(zero_bytes(power), state[::2]) ^ state[1::2]
        power += 1
    return int(state[0]) ^ 0xFFFFFFFF


@cache
def table() -> np.ndarray:
    """[256] uint32: what each byte makes of a register of 0."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(POLYNOMIAL), values >> 1).astype(np.uint32)
    return values


@cache
def zero_bytes(power: int) -> np.ndarray:
    """[32] uint32: what 2 ** power bytes of zeros make of a register with the bit 0..31 alone."""
    if power == 0:
        bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
        return table()[bits & 255] ^ bits >> np.uint32(8)
    half = zero_bytes(power - 1)
    return apply(half, half)


def apply(operator: np.ndarray, states: np.ndarray) -> np.ndarray:
    """What an operator of zero_bytes makes of registers [n] uint32."""
    result = np.zeros_like(states)
    for bit in range(32):
        result ^= (states >> np.uint32(bit) & np.uint32(1)) * operator[bit]
    return result
