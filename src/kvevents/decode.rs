//! A batch of events, as vLLM and SGLang write them.
//!
//! A batch is an array: a time, an array of events, and the rank of the engine in newer versions. An event is an array
//! whose first member is its type, or a map with a member `type` (vLLM from 0.32 on). Fields that are missing at the
//! end of an array are absent, and further ones after the known fields are skipped. If an event cannot be read, only
//! this event is lost.

use std::collections::HashMap;

use super::msgpack::{Reader, Unreadable, Value};
use crate::prefix::precise::{Extra, KvEvent, StoredBlocks, Tier};

/// The most layer groups of one engine whose kind is remembered.
const MAX_GROUPS: usize = 64;
/// The longest name of an adapter or a tier, in bytes.
const MAX_NAME: usize = 256;
/// The longest extra key, in bytes.
const MAX_EXTRA: usize = 1024;
/// The most blocks, tokens, extra keys and members of one event. Without these bounds a few bytes of a message could
/// become many bytes in memory.
const MAX_BLOCKS: usize = 1 << 16;
const MAX_TOKENS: usize = 1 << 20;
const MAX_EXTRAS: usize = 1 << 17;
const MAX_MEMBERS: usize = 64;
/// The most events of one batch. An engine puts those of one step into a batch.
const MAX_EVENTS: usize = 1 << 16;

/// The fields of an event, in the order of the array form.
const STORED: [&[u8]; 10] = [
    b"block_hashes",
    b"parent_block_hash",
    b"token_ids",
    b"block_size",
    b"lora_id",
    b"medium",
    b"lora_name",
    b"extra_keys",
    b"group_idx",
    b"kv_cache_spec_kind",
];
const REMOVED: [&[u8]; 3] = [b"block_hashes", b"medium", b"group_idx"];

/// The kinds of attention whose cache holds a prompt from its beginning.
const WHOLE_ATTENTION: [&[u8]; 3] = [b"full_attention", b"mla_attention", b"sink_full_attention"];

/// The numbers of events in a batch that were skipped.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Events that could not be read.
    pub unreadable: u32,
    /// Events of layers that do not hold whole prompts, such as sliding windows and state layers.
    pub of_other_layers: u32,
    /// The batch has more events than are looked at. What the engine holds is not known any more.
    pub too_many: bool,
}

/// Reads the batches of one engine.
#[derive(Debug, Default)]
pub struct Decoder {
    /// For each layer group, whether its blocks count.
    groups: HashMap<u64, bool>,
}

/// The bytes of the fields of an event, by index.
type Fields<'b> = [Option<&'b [u8]>; 10];

enum Read {
    Event(KvEvent),
    OfOtherLayers,
}

impl Decoder {
    /// Reads a batch, and passes on each event that counts, in order. Returns an error if the bytes are not a batch.
    pub fn batch(&mut self, payload: &[u8], mut take: impl FnMut(&KvEvent)) -> Result<PassedOver, NoBatch> {
        let mut reader = Reader::new(payload);
        let mut passed_over = PassedOver::default();
        let members = reader.array()?;
        if members < 2 {
            return Err(NoBatch);
        }
        reader.skip()?;
        let events = reader.array()?;
        passed_over.too_many = events > MAX_EVENTS;
        for _ in 0..events.min(MAX_EVENTS) {
            match self.event(reader.skip()?) {
                Ok(Read::Event(event)) => take(&event),
                Ok(Read::OfOtherLayers) => passed_over.of_other_layers += 1,
                Err(Unreadable) => passed_over.unreadable += 1,
            }
        }
        Ok(passed_over)
    }

    fn event(&mut self, bytes: &[u8]) -> Result<Read, Unreadable> {
        let mut reader = Reader::new(bytes);
        match reader.value()? {
            Value::Array(count) if count > 0 => {
                let Value::Text(kind) = reader.value()? else { return Err(Unreadable) };
                let mut fields = Fields::default();
                for place in 0..count - 1 {
                    let value = reader.skip()?;
                    if let Some(field) = fields.get_mut(place) {
                        *field = Some(value);
                    }
                }
                self.of_kind(kind, &fields)
            }
            Value::Map(pairs) => {
                let (kind, members) = named_members(reader, pairs)?;
                let names: &[&[u8]] = if kind == b"BlockRemoved" { &REMOVED } else { &STORED };
                let mut fields = Fields::default();
                for (name, value) in members {
                    if let Some(place) = names.iter().position(|known| *known == name) {
                        fields[place] = Some(value);
                    }
                }
                self.of_kind(kind, &fields)
            }
            _ => Err(Unreadable),
        }
    }

    fn of_kind(&mut self, kind: &[u8], fields: &Fields<'_>) -> Result<Read, Unreadable> {
        match kind {
            b"BlockStored" => self.stored(fields),
            b"BlockRemoved" => self.removed(fields),
            b"AllBlocksCleared" => Ok(Read::Event(KvEvent::Cleared)),
            _ => Err(Unreadable),
        }
    }

    fn stored(&mut self, fields: &Fields<'_>) -> Result<Read, Unreadable> {
        let [hashes, parent, tokens, size, _, medium, adapter, extras, group, kind] = *fields;
        if !self.counts(group, kind)? {
            return Ok(Read::OfOtherLayers);
        }
        let size = match present(size) {
            Some(mut size) => match size.value()? {
                Value::Unsigned(size) => u32::try_from(size).map_err(|_| Unreadable)?,
                _ => return Err(Unreadable),
            },
            None => return Err(Unreadable),
        };
        let hashes = read_hashes(hashes)?;
        let extras = read_extras(extras, hashes.len())?;
        let adapter = text(adapter)?.filter(|name| !name.is_empty()).map(Box::from);
        Ok(Read::Event(KvEvent::Stored(StoredBlocks {
            hashes,
            parent: present(parent).map(|mut parent| hash(&mut parent)).transpose()?,
            tokens: read_tokens(tokens)?,
            block_size: size,
            tier: Tier::named(text(medium)?.unwrap_or_default()),
            adapter,
            extras,
        })))
    }

    fn removed(&mut self, fields: &Fields<'_>) -> Result<Read, Unreadable> {
        let [hashes, medium, group, ..] = *fields;
        if !self.counts(group, None)? {
            return Ok(Read::OfOtherLayers);
        }
        let tier = Tier::named(text(medium)?.unwrap_or_default());
        Ok(Read::Event(KvEvent::Removed { hashes: read_hashes(hashes)?, tier }))
    }

    /// Returns true if blocks of this layer group count. Blocks without a group count. Others count if the layers of
    /// the group hold whole prompts. An event that stores blocks states the kind of its group, which is remembered.
    fn counts(&mut self, group: Option<&[u8]>, kind: Option<&[u8]>) -> Result<bool, Unreadable> {
        let Some(mut group) = present(group) else { return Ok(true) };
        let Value::Unsigned(group) = group.value()? else { return Err(Unreadable) };
        if let Some(mut kind) = present(kind) {
            let Value::Text(kind) = kind.value()? else { return Err(Unreadable) };
            if self.groups.len() < MAX_GROUPS || self.groups.contains_key(&group) {
                self.groups.insert(group, WHOLE_ATTENTION.contains(&kind));
            }
        }
        Ok(self.groups.get(&group).copied().unwrap_or(false))
    }
}

/// Error: the payload is not a batch of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBatch;

impl From<Unreadable> for NoBatch {
    fn from(_: Unreadable) -> Self {
        Self
    }
}

/// The name of a member, and the bytes of its value.
type Member<'b> = (&'b [u8], &'b [u8]);

/// Reads the type and the members of an event that is a map.
fn named_members(mut reader: Reader<'_>, pairs: usize) -> Result<(&[u8], Vec<Member<'_>>), Unreadable> {
    if pairs > MAX_MEMBERS {
        return Err(Unreadable);
    }
    let mut kind = None;
    let mut members = Vec::new();
    for _ in 0..pairs {
        let name = Reader::new(reader.skip()?).value()?;
        let value = reader.skip()?;
        match name {
            Value::Text(b"type") => match Reader::new(value).value()? {
                Value::Text(found) => kind = Some(found),
                _ => return Err(Unreadable),
            },
            Value::Text(name) => members.push((name, value)),
            _ => {}
        }
    }
    Ok((kind.ok_or(Unreadable)?, members))
}

/// Returns a reader of a field, or `None` if the field is absent or nil.
fn present(field: Option<&[u8]>) -> Option<Reader<'_>> {
    field.filter(|bytes| *bytes != [0xc0]).map(Reader::new)
}

fn text(field: Option<&[u8]>) -> Result<Option<&str>, Unreadable> {
    let Some(mut reader) = present(field) else { return Ok(None) };
    match reader.value()? {
        Value::Text(text) if text.len() <= MAX_NAME => {
            std::str::from_utf8(text).map(Some).map_err(|_| Unreadable)
        }
        _ => Err(Unreadable),
    }
}

/// Reads the hash of a block. It is a 64-bit number, signed or not, or a string of bytes whose last eight bytes count.
fn hash(reader: &mut Reader<'_>) -> Result<u64, Unreadable> {
    match reader.value()? {
        Value::Unsigned(hash) => Ok(hash),
        Value::Negative(hash) => Ok(hash.cast_unsigned()),
        Value::Bytes(bytes) | Value::Text(bytes) if !bytes.is_empty() => {
            let last = bytes.get(bytes.len().saturating_sub(8)..).unwrap_or_default();
            Ok(last.iter().fold(0, |hash, byte| (hash << 8) | u64::from(*byte)))
        }
        _ => Err(Unreadable),
    }
}

/// Returns `count` if it is at most `most`.
fn at_most(most: usize, count: usize) -> Result<usize, Unreadable> {
    if count <= most { Ok(count) } else { Err(Unreadable) }
}

fn read_hashes(field: Option<&[u8]>) -> Result<Vec<u64>, Unreadable> {
    let mut reader = present(field).ok_or(Unreadable)?;
    (0..at_most(MAX_BLOCKS, reader.array()?)?).map(|_| hash(&mut reader)).collect()
}

fn read_tokens(field: Option<&[u8]>) -> Result<Vec<u32>, Unreadable> {
    let Some(mut reader) = present(field) else { return Ok(Vec::new()) };
    let token = |reader: &mut Reader<'_>| match reader.value()? {
        Value::Unsigned(token) => u32::try_from(token).map_err(|_| Unreadable),
        _ => Err(Unreadable),
    };
    (0..at_most(MAX_TOKENS, reader.array()?)?).map(|_| token(&mut reader)).collect()
}

/// Reads one list of extra keys for each block, or no list at all. An extra key may itself be a list, such as a media
/// item with its position; its first member counts.
fn read_extras(field: Option<&[u8]>, blocks: usize) -> Result<Vec<Vec<Extra>>, Unreadable> {
    let Some(mut reader) = present(field) else { return Ok(Vec::new()) };
    let count = reader.array()?;
    if count != blocks {
        return if count == 0 { Ok(Vec::new()) } else { Err(Unreadable) };
    }
    let mut extras = Vec::with_capacity(count);
    let mut room = MAX_EXTRAS;
    for _ in 0..count {
        let mut block = Vec::new();
        let mut inner = Reader::new(reader.skip()?);
        match inner.value()? {
            Value::Nil => {}
            Value::Array(count) => {
                room -= at_most(room, count)?;
                for _ in 0..count {
                    block.extend(extra(inner.skip()?)?);
                }
            }
            _ => return Err(Unreadable),
        }
        extras.push(block);
    }
    Ok(extras)
}

fn extra(bytes: &[u8]) -> Result<Option<Extra>, Unreadable> {
    let mut reader = Reader::new(bytes);
    let found = match reader.value()? {
        Value::Array(count) if count > 0 => reader.value()?,
        other => other,
    };
    match found {
        Value::Text(text) | Value::Bytes(text) if text.len() <= MAX_EXTRA => Ok(Some(text.into())),
        Value::Text(_) | Value::Bytes(_) => Err(Unreadable),
        _ => Ok(None),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
