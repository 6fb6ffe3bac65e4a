use proptest::prelude::*;

use super::*;

/// Writes the few types that the tests need.
#[derive(Clone, Debug)]
enum Item {
    Nil,
    Number(u64),
    Text(&'static str),
    Bytes(Vec<u8>),
    Array(Vec<Item>),
    Map(Vec<(&'static str, Item)>),
}

use Item::{Array, Bytes, Map, Nil, Number, Text};

fn write(item: &Item, out: &mut Vec<u8>) {
    match item {
        Nil => out.push(0xc0),
        Number(number) if *number < 128 => out.push(*number as u8),
        Number(number) => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Text(text) => {
            out.extend_from_slice(&[0xd9, text.len() as u8]);
            out.extend_from_slice(text.as_bytes());
        }
        Bytes(bytes) => {
            out.extend_from_slice(&[0xc4, bytes.len() as u8]);
            out.extend_from_slice(bytes);
        }
        Array(items) => {
            out.push(0xdc);
            out.extend_from_slice(&(items.len() as u16).to_be_bytes());
            for item in items {
                write(item, out);
            }
        }
        Map(members) => {
            out.push(0xde);
            out.extend_from_slice(&(members.len() as u16).to_be_bytes());
            for (name, value) in members {
                write(&Text(name), out);
                write(value, out);
            }
        }
    }
}

fn batch_of(events: Vec<Item>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&Array(vec![Number(1), Array(events), Number(0), Text("a field of tomorrow")]), &mut out);
    out
}

/// What a batch says, and what of it was passed over.
struct Batch {
    events: Vec<KvEvent>,
    unreadable: u32,
    of_other_layers: u32,
}

fn read_by(decoder: &mut Decoder, payload: &[u8]) -> Result<Batch, NoBatch> {
    let mut events = Vec::new();
    let PassedOver { unreadable, of_other_layers, .. } =
        decoder.batch(payload, |event| events.push(event.clone()))?;
    Ok(Batch { events, unreadable, of_other_layers })
}

fn read(events: Vec<Item>) -> Batch {
    read_by(&mut Decoder::default(), &batch_of(events)).unwrap()
}

#[test]
fn the_rest_of_a_batch_with_too_many_events_is_passed_over() {
    for (count, too_many) in [(1_u32 << 16, false), ((1 << 16) + 1, true)] {
        // A time, and so many events that are numbers.
        let mut batch = [&[0x92, 1, 0xdd][..], &count.to_be_bytes()].concat();
        batch.resize(batch.len() + count as usize, 1);
        let passed_over = Decoder::default().batch(&batch, |_| {}).unwrap();
        assert_eq!((passed_over.unreadable, passed_over.too_many), (1 << 16, too_many));
    }
}

fn numbers(list: &[u64]) -> Item {
    Array(list.iter().copied().map(Number).collect())
}

fn plain() -> StoredBlocks {
    StoredBlocks {
        hashes: vec![u64::MAX, 8],
        parent: Some(5),
        tokens: vec![1, 2, 3, 4],
        block_size: 2,
        ..StoredBlocks::default()
    }
}

fn stored_fields() -> Vec<Item> {
    vec![Text("BlockStored"), numbers(&[u64::MAX, 8]), Number(5), numbers(&[1, 2, 3, 4]), Number(2)]
}

#[test]
fn arrays_and_maps_say_the_same_and_short_arrays_are_complete() {
    let map = Map(vec![
        ("type", Text("BlockStored")),
        ("block_size", Number(2)),
        ("token_ids", numbers(&[1, 2, 3, 4])),
        ("unknown", Array(vec![Nil])),
        ("parent_block_hash", Number(5)),
        ("block_hashes", numbers(&[u64::MAX, 8])),
    ]);
    let long = [stored_fields(), vec![Nil; 12]].concat();
    let batch = read(vec![Array(stored_fields()), map, Array(long)]);
    assert_eq!((batch.events, batch.unreadable), (vec![KvEvent::Stored(plain()); 3], 0));
}

#[test]
fn a_bad_event_costs_itself_and_not_the_batch() {
    let batch = read(vec![
        Array(vec![Text("Something")]),
        Number(7),
        Map(vec![("block_hashes", numbers(&[1]))]),
        Array(vec![Text("BlockStored"), Text("no hashes")]),
        Array(vec![Text("AllBlocksCleared")]),
    ]);
    assert_eq!((batch.events, batch.unreadable), (vec![KvEvent::Cleared], 4));
    assert_eq!(read_by(&mut Decoder::default(), b"\x93\x01").err(), Some(NoBatch));
    assert_eq!(read_by(&mut Decoder::default(), b"\x07").err(), Some(NoBatch));
}

#[test]
fn hashes_are_numbers_or_the_last_eight_bytes_of_bytes() {
    let mut digest = vec![9; 32];
    digest[24..].copy_from_slice(&77_u64.to_be_bytes());
    let hashes = Array(vec![Bytes(digest), Bytes(vec![1, 0]), Number(3)]);
    let batch = read(vec![Array(vec![Text("BlockRemoved"), hashes, Text("CPU")])]);
    assert_eq!(batch.events, [KvEvent::Removed { hashes: vec![77, 256, 3], tier: Tier::Cpu }]);
}

#[test]
fn adapters_tiers_and_extras_are_read() {
    let extras = Array(vec![
        Array(vec![Text("ad1"), Array(vec![Text("picture"), Number(3)]), Text("salt"), Number(4)]),
        Nil,
    ]);
    let event = [stored_fields(), vec![Number(1), Text("Disk"), Text("ad1"), extras]].concat();
    let expected = StoredBlocks {
        tier: Tier::Other,
        adapter: Some("ad1".into()),
        extras: vec![["ad1", "picture", "salt"].map(|text| Extra::from(text.as_bytes())).into(), Vec::new()],
        ..plain()
    };
    assert_eq!(read(vec![Array(event)]).events, [KvEvent::Stored(expected)]);
}

#[test]
fn only_groups_of_layers_that_hold_whole_prompts_count() {
    let event = |group: u64, kind: Item| {
        Array([stored_fields(), vec![Nil, Nil, Nil, Nil, Number(group), kind]].concat())
    };
    let removed = |group| Array(vec![Text("BlockRemoved"), numbers(&[8]), Nil, Number(group)]);
    let mut decoder = Decoder::default();
    let events = vec![event(0, Text("full_attention")), event(1, Text("sliding_window")), event(2, Nil)];
    let batch = read_by(&mut decoder, &batch_of(events)).unwrap();
    assert_eq!((batch.events.len(), batch.of_other_layers), (1, 2));
    let batch = read_by(&mut decoder, &batch_of(vec![removed(0), removed(1), event(0, Nil)])).unwrap();
    assert_eq!((batch.events.len(), batch.of_other_layers), (2, 1), "the kind is remembered");
}

#[test]
fn an_event_that_would_grow_large_is_passed_over() {
    let hashes = |count: usize| numbers(&vec![1; count]);
    let stored = |blocks: usize, extras: Item| {
        let fields = vec![Text("BlockStored"), hashes(blocks), Nil, hashes(blocks), Number(1)];
        Array([fields, vec![Nil, Nil, Nil, extras]].concat())
    };
    let many = |count: usize| Array(vec![Text(""); count]);
    let fits = read(vec![stored(2, Array(vec![many(60_000), many(60_000)]))]);
    assert_eq!((fits.events.len(), fits.unreadable), (1, 0));
    let large = read(vec![stored(3, Array(vec![many(60_000), many(60_000), many(60_000)]))]);
    assert_eq!((large.events.len(), large.unreadable), (0, 1));
    let members = Map((0..100).map(|_| ("x", Nil)).chain([("type", Text("AllBlocksCleared"))]).collect());
    assert_eq!(read(vec![members]).unreadable, 1);
}

/// The messages of a capture: topic, number, payload.
fn captured(text: &str) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.split_whitespace().next().unwrap_or_default();
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let lines = |name: &str| -> Vec<Vec<u8>> {
        let of_name = |line: &&str| line.split_whitespace().next() == Some(name);
        text.lines()
            .filter(of_name)
            .filter_map(|line| line.split_once("hex "))
            .map(|(_, hex)| bytes(hex))
            .collect()
    };
    let (topics, numbers, payloads) = (lines("topic"), lines("seq"), lines("payload"));
    assert_eq!((topics.len(), numbers.len()), (payloads.len(), payloads.len()));
    let number = |bytes: Vec<u8>| u64::from_be_bytes(bytes.try_into().unwrap());
    topics
        .into_iter()
        .zip(numbers)
        .zip(payloads)
        .map(|((topic, seq), payload)| (topic, number(seq), payload))
        .collect()
}

#[test]
fn captured_events_of_a_real_engine_are_read_whole() {
    let Ok(folder) = std::env::var("POINTSMAN_VLLM_DATA") else {
        return println!("skipped: POINTSMAN_VLLM_DATA names no folder with captured events");
    };
    let mut stored = 0;
    for name in ["kv_events.hex", "kv_events_cleared.hex", "kv_events_dp_rank1.hex"] {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let mut decoder = Decoder::default();
        let messages = captured(&text);
        assert!(!messages.is_empty());
        for (topic, _, payload) in messages {
            assert!(topic.starts_with(b"kv@"));
            let batch = read_by(&mut decoder, &payload).unwrap();
            assert_eq!((batch.unreadable, batch.of_other_layers), (0, 0), "{name}");
            for event in &batch.events {
                if let KvEvent::Stored(blocks) = event {
                    assert_eq!(blocks.tokens.len(), blocks.hashes.len() * blocks.block_size as usize);
                    stored += blocks.hashes.len();
                }
            }
        }
    }
    assert!(stored > 50, "{stored}");
}

proptest! {
    #[test]
    fn any_bytes_are_a_batch_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_by(&mut Decoder::default(), &bytes);
        let _ = read_by(&mut Decoder::default(), &[&[0x92, 0x01][..], &bytes].concat());
    }
}
