//! Events of engines about their caches: the messages that carry them, and the batches in these.

use pointsman::kvevents::zmtp::{Connection, Kind, Room};
use pointsman::kvevents::{Decoder, PassedOver};
use pointsman::prefix::precise::KvEvent;

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

const WORDS: [&str; 14] = [
    "\u{b}BlockStored",
    "BlockRemoved",
    "AllBlocksCleared",
    "block_hashes",
    "token_ids",
    "extra_keys",
    "group_idx",
    "full_attention",
    "GPU",
    "type",
    "\u{4}PING\0\u{10}xy",
    "\u{5}READY",
    "\0\0\0\0\0\0\0",
    "kv@",
];

/// A batch of three events: blocks stored, with an extra and tokens; blocks removed; and all cleared.
fn batch() -> Vec<u8> {
    let blocks =
        b"\x99\xabBlockStored\x92\x01\xcf\0\0\0\0\0\0\0\x09\xc0\x94\x01\x02\x03\x04\x02\xc0\xa3GPU\xa1a";
    // The last field is the extras of the two blocks.
    let stored = [&blocks[..], b"\x92\x91\xa1x\xc0"].concat();
    let removed = b"\x83\xa4type\xacBlockRemoved\xacblock_hashes\x91\x07\xa6medium\xa3CPU";
    let cleared = b"\x91\xb0AllBlocksCleared";
    [&b"\x93\xcb\0\0\0\0\0\0\0\0\x93"[..], &stored, removed, cleared, b"\x00"].concat()
}

#[test]
fn a_batch_of_events_costs_no_more_than_its_bytes() {
    let seeds = vec![batch(), [&b"\x92\xc0\x91"[..], b"\x91\xb0AllBlocksCleared"].concat()];
    // A hash or a token of one byte becomes eight or four in memory, a list of extras of one byte a vector.
    let target = Target { name: "kv_events", seeds, words: &WORDS, memory_factor: 96, memory_base: 64 << 10 };
    run(&target, check_batch);
}

fn check_batch(input: &[u8]) -> Result<u64, Broken> {
    let mut decoder = Decoder::default();
    let (mut events, mut parts) = (0, 0);
    let passed_over = decoder.batch(input, |event| {
        events += 1;
        parts += match event {
            KvEvent::Stored(blocks) => {
                blocks.hashes.len() + blocks.tokens.len() + blocks.extras.iter().map(Vec::len).sum::<usize>()
            }
            KvEvent::Removed { hashes, .. } => hashes.len(),
            KvEvent::Cleared => 1,
        };
    });
    if parts > input.len() {
        return Err(format!("{parts} parts of events from {} bytes", input.len()));
    }
    let Ok(PassedOver { unreadable, of_other_layers, .. }) = passed_over else {
        return Ok(path((size_class(events), size_class(parts))));
    };
    if events + unreadable as usize + of_other_layers as usize > input.len() {
        return Err("more events than bytes".to_owned());
    }
    Ok(path((size_class(events), size_class(parts), unreadable.min(4), of_other_layers.min(4))))
}

#[test]
fn frames_of_an_engine_are_taken_apart_within_bounds() {
    let ready = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x03PUB";
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    let hello = [&greeting[..], ready].concat();
    let seeds = [
        &b"\x01\x02kv\x01\x00\x02\0\0\0\0\0\0\0\x03abc"[..],
        b"\x04\x09\x04PING\0\x10xy\0\x01a\0\x01b",
        b"\x01\x01a\x01\x01b\x00\x01c\x04\x09\x04PING\0\x10xy",
        b"\x02\0\0\0\0\0\x01\0\0abc",
    ];
    let seeds = seeds.into_iter().map(|seed| [&hello, seed].concat()).collect();
    let target = Target { name: "zmtp", seeds, words: &WORDS, memory_factor: 8, memory_base: 256 << 10 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    run(&target, |input| runtime.block_on(check_frames(input)));
}

async fn check_frames(input: &[u8]) -> Result<u64, Broken> {
    let mut said = Vec::new();
    let stream = tokio::io::join(input, &mut said);
    let (mut messages, mut frames, mut bytes) = (0, 0, 0);
    if let Ok(mut connection) = Connection::open(stream, Kind::Subscriber, Room::default()).await {
        while let Ok(heard) = connection.hear().await {
            messages += 1;
            frames += heard.len();
            bytes += heard.iter().map(Vec::len).sum::<usize>();
        }
    }
    if bytes + 2 * frames > input.len() {
        return Err(format!("{frames} frames of {bytes} bytes from {}", input.len()));
    }
    // The greeting, the command to be ready, and an answer to each ping.
    if said.len() > input.len() + 256 {
        return Err(format!("{} bytes said to a peer that said {}", said.len(), input.len()));
    }
    Ok(path((size_class(messages), size_class(bytes), size_class(said.len()))))
}
