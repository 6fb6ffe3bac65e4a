//! Small changes of an input, from a flipped bit to a part repeated a thousand times.

use fastrand::Rng;

/// Numbers at which readers break.
const NUMBERS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-1e999",
    "1e-999",
    "NaN",
    "+Inf",
    "0.1e1",
    "00",
];

/// Changes `input` once. `other` is an input to take parts of; `words` are the reader's.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    match rng.u8(..12) {
        0 => flip(input, rng),
        1 => replace_byte(input, rng),
        2 => remove(input, rng),
        3 => repeat(input, rng, 8),
        4 => repeat(input, rng, 1_000),
        5 | 6 => insert(input, word(words, rng), rng),
        7 => insert(input, rng.choice(NUMBERS).unwrap_or("0").as_bytes(), rng),
        8 => splice(input, other, rng),
        9 => nest(input, rng),
        10 => swap(input, rng),
        _ => cut(input, rng),
    }
}

fn word<'a>(words: &[&'a str], rng: &mut Rng) -> &'a [u8] {
    rng.choice(words).map_or(b"\x00", |word| word.as_bytes())
}

fn place(input: &[u8], rng: &mut Rng) -> usize {
    rng.usize(..=input.len())
}

/// A range of at most 200 bytes.
fn part(input: &[u8], rng: &mut Rng) -> std::ops::Range<usize> {
    let start = place(input, rng);
    start..(start + rng.usize(..200)).min(input.len())
}

fn flip(input: &mut [u8], rng: &mut Rng) {
    if !input.is_empty() {
        let at = rng.usize(..input.len());
        input[at] ^= 1 << rng.u8(..8);
    }
}

fn replace_byte(input: &mut [u8], rng: &mut Rng) {
    const BYTES: &[u8] = b"\"\\{}[]:,# \n\r\t\0\x01\x7f\xff\xc3\xed09-+.eEu";
    if !input.is_empty() {
        let at = rng.usize(..input.len());
        input[at] = BYTES[rng.usize(..BYTES.len())];
    }
}

fn remove(input: &mut Vec<u8>, rng: &mut Rng) {
    let range = part(input, rng);
    input.drain(range);
}

fn repeat(input: &mut Vec<u8>, rng: &mut Rng, most: usize) {
    let range = part(input, rng);
    let (bytes, times) = (input[range.clone()].to_vec(), rng.usize(1..=most));
    input.splice(range.end..range.end, bytes.repeat(times));
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], rng: &mut Rng) {
    let at = place(input, rng);
    input.splice(at..at, bytes.iter().copied());
}

fn splice(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let (range, from) = (part(input, rng), part(other, rng));
    input.splice(range, other[from].iter().copied());
}

fn nest(input: &mut Vec<u8>, rng: &mut Rng) {
    let (open, close): (&[u8], &[u8]) = if rng.bool() { (b"[", b"]") } else { (b"{\"a\":", b"}") };
    let (range, levels) = (part(input, rng), rng.usize(1..300));
    let inner = input[range.clone()].to_vec();
    input.splice(range, [open.repeat(levels), inner, close.repeat(levels)].concat());
}

fn swap(input: &mut Vec<u8>, rng: &mut Rng) {
    let range = part(input, rng);
    let bytes: Vec<u8> = input.drain(range).collect();
    insert(input, &bytes, rng);
}

fn cut(input: &mut Vec<u8>, rng: &mut Rng) {
    input.truncate(place(input, rng));
}
