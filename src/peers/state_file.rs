//! The knowledge of a replica as a file, which the next process reads.
//!
//! The file has a line that names the format, eight bytes of digest (XXH64 of the rest, little-endian), and the
//! messages of `pointsman.peers.v1` that a follower would get, each after its length. The messages also contain the
//! requests in flight. The reader ignores these, because they end with the process.

use std::time::Instant;

use bytes::Buf;
use prost::Message;
use xxhash_rust::xxh64::xxh64;

use super::fleet::{Effects, Fleet};
use super::own::{Cursor, Own};
use super::wire::Update;
use crate::prefix::Journal;

/// The first line of the file.
const FORMAT: &[u8] = b"pointsman-state-1\n";
/// The length of the digest in bytes.
const DIGEST: usize = 8;

/// Writes everything that `own` and `journal` know.
pub(super) fn write(own: &Own, journal: &Journal) -> Vec<u8> {
    let mut messages = Vec::new();
    let mut cursor = Cursor::default();
    while let Some(update) = own.update(&mut cursor, journal, Instant::now()) {
        messages.extend(update.encode_length_delimited_to_vec());
    }
    let digest = xxh64(&messages, 0).to_le_bytes();
    [FORMAT, &digest, &messages].concat()
}

/// Reads the assignments in a file. The error says why the file cannot be used.
pub(super) fn read(bytes: &[u8]) -> Result<Effects, String> {
    let rest = bytes.strip_prefix(FORMAT).ok_or("its first line names another format")?;
    let (digest, mut messages) = rest.split_first_chunk::<DIGEST>().ok_or("it is cut off")?;
    if xxh64(messages, 0).to_le_bytes() != *digest {
        return Err("its digest does not fit".to_owned());
    }
    // No process has the number 0.
    let mut fleet = Fleet::new(0);
    let mut effects = Effects::default();
    while messages.has_remaining() {
        let update = Update::decode_length_delimited(&mut messages).map_err(|error| error.to_string())?;
        fleet.apply(0, update, &mut effects).map_err(|fault| format!("a message is {}", fault.name()))?;
    }
    Ok(effects)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Pool};
    use crate::prefix::BlockHashes;

    fn file() -> Vec<u8> {
        let pool = Pool::new("ns", "pool", Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("ns", "a"), address)]);
        let (mut own, journal) = (Own::new(7, "a", vec!["index".to_owned()]), Journal::new(1 << 20));
        own.observe(&pool, Instant::now());
        for number in 0..3 {
            journal.add(0, &pool.snapshot().endpoints()[0], &BlockHashes::from_chains(64, &[&[number, 9]]));
        }
        write(&own, &journal)
    }

    #[test]
    fn what_was_written_is_read() {
        let heard = read(&file()).unwrap().heard;
        let firsts: Vec<u64> = heard.iter().map(|heard| heard.blocks.hashes()[0]).collect();
        assert_eq!((firsts, heard[0].index.as_str()), (vec![0, 1, 2], "index"));
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_off_is_refused() {
        let whole = file();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            assert!(read(&changed).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut off at {at}");
        }
        assert!(read(b"").is_err());
    }
}
