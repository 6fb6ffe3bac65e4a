//! HTTP/2 frames by hand, for what no client library sends.

/// The preface and an empty SETTINGS frame.
pub(super) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(0x4, 0, 0, &[])].concat()
}

/// A frame of this kind, with these flags, on this stream.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS of a POST to `path`, with END_HEADERS, without END_STREAM.
pub(super) fn post(stream: u32, path: &str, content_type: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    literal(&mut block, 4, path);
    literal(&mut block, 1, "pool");
    literal(&mut block, 31, content_type);
    frame(0x1, 0x4, stream, &block)
}

/// RST_STREAM with the code CANCEL.
pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(0x3, 0, stream, &8_u32.to_be_bytes())
}

/// DATA without END_STREAM.
pub(super) fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(0x0, 0, stream, bytes)
}

/// A header field with the name of this entry of HPACK's static table, never indexed.
fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    // The index has four bits in the first byte and goes on in the next.
    if name < 15 {
        block.push(0x10 | name);
    } else {
        block.extend([0x1f, name - 15]);
    }
    block.push(u8::try_from(value.len()).expect("a short value"));
    block.extend_from_slice(value.as_bytes());
}
