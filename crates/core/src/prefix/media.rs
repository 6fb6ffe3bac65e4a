//! How many tokens an image, video or audio part is taken to be. Only a guess is needed: the same part must always give
//! the same number.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::request::{Frames, Headers, MediaEstimate, MediaKind, VideoEstimate};

/// Most tokens of one part: clients choose the sizes, and a prompt has no more.
const MAX_MEDIA_TOKENS: u64 = 131_072;
/// Base64 digits of a data URL that are searched for a picture's size.
const HEADER_DIGITS: usize = 48 << 10;

/// How PNG, JPEG and GIF begin in base64: no URL does.
const BARE_PICTURES: [&[u8]; 3] = [b"iVBORw0KGgo", b"/9j/", b"R0lGOD"];

/// Part of a data URL, so the padding may be missing and the last digit incomplete.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What request headers say about a video.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoHints {
    fps: Option<f64>,
    seconds: Option<f64>,
    resolution: Option<(u32, u32)>,
}

impl VideoHints {
    /// Reads `x-llm-d-video-fps`, `x-llm-d-video-duration-seconds` and `x-llm-d-video-resolution` (`WxH`). What does
    /// not parse is ignored.
    pub fn read(headers: &Headers) -> Self {
        let positive = |name| {
            let value: f64 = headers.text(name)?.trim().parse().ok()?;
            (value.is_finite() && value > 0.0).then_some(value)
        };
        let resolution = headers.text("x-llm-d-video-resolution").and_then(|text| {
            let (width, height) = text.trim().split_once(['x', 'X'])?;
            Some((width.parse().ok()?, height.parse().ok()?))
        });
        Self {
            fps: positive("x-llm-d-video-fps"),
            seconds: positive("x-llm-d-video-duration-seconds"),
            resolution,
        }
    }
}

/// Tokens of a part whose URL or data is `content`; at least 1.
pub(super) fn tokens(kind: MediaKind, content: &[u8], hints: VideoHints, estimate: &MediaEstimate) -> u32 {
    let tokens = match kind {
        MediaKind::Image => estimate.picture.of(picture_size(content).unwrap_or(estimate.picture_size)),
        MediaKind::Audio => (content.len() as u64).div_ceil(4),
        MediaKind::Video => video_tokens(hints, &estimate.video),
    };
    tokens.clamp(1, MAX_MEDIA_TOKENS) as u32
}

fn video_tokens(hints: VideoHints, video: &VideoEstimate) -> u64 {
    let seconds = hints.seconds.unwrap_or(video.seconds);
    let most = if video.most_frames == 0 { u64::MAX } else { video.most_frames };
    // A cast from a float stops at the largest integer.
    let bounded = |frames: f64| (frames.ceil() as u64).clamp(video.least_frames.min(most), most);
    let frames = match video.frames {
        Frames::Sampled { fps, patch } => {
            bounded(seconds * hints.fps.unwrap_or(fps).min(fps)).div_ceil(patch.max(1))
        }
        Frames::Strided { fps, stride } => bounded(seconds * hints.fps.unwrap_or(fps) / stride.max(1) as f64),
    };
    let tokens = frames.saturating_mul(video.frame.of(hints.resolution.unwrap_or(video.size)));
    if video.most_tokens == 0 { tokens } else { tokens.min(video.most_tokens) }
}

/// Width and height of the picture in a data URL, or in bare base64 as some APIs take it; `None` for other URLs and
/// unknown formats.
fn picture_size(content: &[u8]) -> Option<(u32, u32)> {
    let digits = match content.strip_prefix(b"data:") {
        Some(data) => {
            // The media type is short; without a comma near the start there is no data.
            let comma = data.iter().take(256).position(|&byte| byte == b',')?;
            let (kind, digits) = (data.get(..comma)?, data.get(comma + 1..)?);
            if !kind.ends_with(b";base64") {
                return None;
            }
            digits
        }
        None if BARE_PICTURES.iter().any(|start| content.starts_with(start)) => content,
        None => return None,
    };
    // Enough for PNG and GIF; JPEG keeps its size behind any amount of other data.
    [64, HEADER_DIGITS].into_iter().find_map(|length| {
        let digits = digits.get(..length).unwrap_or(digits);
        picture_header(&BASE64.decode(digits).ok()?)
    })
}

fn picture_header(bytes: &[u8]) -> Option<(u32, u32)> {
    let u16_le = |at: usize| Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let u16_be = |at: usize| Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let u32_be = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((u32_be(16)?, u32_be(20)?));
    }
    if bytes.starts_with(b"GIF8") {
        return Some((u16_le(6)?, u16_le(8)?));
    }
    if !bytes.starts_with(b"\xff\xd8") {
        return None;
    }
    let mut at = 2;
    loop {
        let (marker, code) = (*bytes.get(at)?, *bytes.get(at + 1)?);
        match (marker, code) {
            // A frame header; C4, C8 and CC are other tables in the same range.
            (0xff, 0xc0..=0xcf) if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                return Some((u16_be(at + 7)?, u16_be(at + 5)?));
            }
            (0xff, 0xff) => at += 1,
            (0xff, _) => at += 2 + (u16_be(at + 2)? as usize).max(2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(url: &str) -> u32 {
        tokens(MediaKind::Image, url.as_bytes(), VideoHints::default(), &MediaEstimate::DEFAULT)
    }

    fn data_url(bytes: &[u8]) -> String {
        format!("data:image/x;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    #[test]
    fn an_image_behind_a_url_counts_as_one_of_default_size() {
        assert_eq!(image("https://example.com/cat.png"), 225);
        assert_eq!(image(""), 225);
        assert_eq!(image("data:image/png;base64,%%%"), 225);
        assert_eq!(image("data:image/svg+xml,<svg/>"), 225);
    }

    #[test]
    fn the_size_of_an_image_in_a_data_url_counts() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 4, 0, 0, 0, 2, 0]);
        assert_eq!(image(&data_url(&png)), 512);
        assert_eq!(image(&data_url(b"GIF89a\x40\0\x40\0")), 4);
        assert_eq!(image(&data_url(b"GIF89a\x01\0\x01\0")), 1);
        let mut jpeg = b"\xff\xd8\xff\xe1\x10\x02".to_vec();
        jpeg.resize(jpeg.len() + 0x1000, 7);
        jpeg.extend(b"\xff\xc4\0\x03\0\xff\xff\xc2\0\x11\x08\x01\0\x02\0");
        assert_eq!(image(&data_url(&jpeg)), 128);
        assert_eq!(image(&data_url(&jpeg[..100])), 225);
    }

    #[test]
    fn the_size_of_an_image_in_bare_base64_counts_as_in_a_data_url() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 2, 128, 0, 0, 3, 232]);
        let jpeg = b"\xff\xd8\xff\xc0\0\x11\x08\x01\0\x02\0";
        for (bytes, expected) in [(&png[..], 625), (&jpeg[..], 128), (b"GIF89a\x40\0\x40\0", 4)] {
            let url = data_url(bytes);
            let bare = url.split_once(',').unwrap().1;
            assert_eq!((image(bare), image(&url)), (expected, expected));
        }
        assert_eq!(image("file_011CNha8iCJcU1wXNR6q4V8w"), 225);
        assert_eq!(image("iVBORw0KGgo"), 225);
    }

    #[test]
    fn data_urls_are_looked_into_by_their_bytes_and_not_by_their_type() {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 2, 128, 0, 0, 3, 232]);
        let (mut broken, whole) = (encode(&png), encode(&png));
        broken.insert(8, '\n');
        let empty = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\0";
        for (what, url, expected) in [
            ("another type", format!("data:application/octet-stream;base64,{whole}"), 625),
            ("no type", format!("data:;base64,{whole}"), 625),
            ("no semicolon", format!("data:image/pngbase64,{whole}"), 225),
            ("line feeds", format!("data:image/png;base64,{broken}"), 225),
            ("a size of nothing", data_url(empty), 1),
            ("a GIF without a body", data_url(b"GIF89a\x40\0\x40\0"), 4),
        ] {
            assert_eq!(image(&url), expected, "{what}");
        }
        let mut vast = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        vast.extend([255; 8]);
        assert_eq!(image(&data_url(&vast)), 131_072, "one picture has a bound");
    }

    #[test]
    fn headers_of_a_video_count_first_and_odd_ones_not_at_all() {
        let frames = |name: &'static str, value: &'static str| {
            let headers: Headers = [(name, value)].into();
            tokens(MediaKind::Video, b"u", VideoHints::read(&headers), &MediaEstimate::DEFAULT)
        };
        assert_eq!(frames("x-llm-d-video-fps", "1"), 10 * 225, "fewer frames than are sampled");
        assert_eq!(frames("x-llm-d-video-fps", "60"), 20 * 225, "at most two a second");
        assert_eq!(frames("x-llm-d-video-duration-seconds", "2.7"), 6 * 225, "a part of a second counts");
        assert_eq!(frames("x-llm-d-video-resolution", "64 x 6400"), 20 * 225, "blanks are no size");
    }

    #[test]
    fn audio_counts_four_bytes_a_token() {
        let audio =
            |data: &[u8]| tokens(MediaKind::Audio, data, VideoHints::default(), &MediaEstimate::DEFAULT);
        assert_eq!((audio(b""), audio(b"abcd"), audio(b"abcde")), (1, 1, 2));
    }

    #[test]
    fn a_video_counts_its_sampled_frames_and_headers_say_more() {
        let video = |headers: Headers| {
            tokens(MediaKind::Video, b"u", VideoHints::read(&headers), &MediaEstimate::DEFAULT)
        };
        assert_eq!(video(Headers::new()), 20 * 225);
        let exact = [
            ("x-llm-d-video-fps", "1"),
            ("x-llm-d-video-duration-seconds", "3"),
            ("x-llm-d-video-resolution", "64x32"),
        ];
        assert_eq!(video(exact.into()), 6);
        assert_eq!(video([("x-llm-d-video-duration-seconds", "1e300")].into()), 131_072);
        assert_eq!(video([("x-llm-d-video-duration-seconds", "NaN")].into()), 20 * 225);
    }

    #[test]
    fn configured_rules_decide_where_nothing_says_more() {
        use crate::request::PictureTokens;
        let video = |video: VideoEstimate| {
            let estimate = MediaEstimate { video, ..MediaEstimate::DEFAULT };
            tokens(MediaKind::Video, b"u", VideoHints::default(), &estimate)
        };
        let default = MediaEstimate::DEFAULT.video;
        let fixed = VideoEstimate { frame: PictureTokens::Fixed(10), ..default };
        let strided = |stride| VideoEstimate { frames: Frames::Strided { fps: 24.0, stride }, ..fixed };
        assert_eq!(video(fixed), 200);
        assert_eq!(video(VideoEstimate { frames: Frames::Sampled { fps: 2.0, patch: 3 }, ..fixed }), 70);
        assert_eq!((video(strided(1)), video(strided(24)), video(strided(0))), (2400, 100, 2400));
        assert_eq!(video(VideoEstimate { most_frames: 4, ..fixed }), 40);
        assert_eq!(video(VideoEstimate { least_frames: 30, ..fixed }), 300);
        assert_eq!(video(VideoEstimate { least_frames: 30, most_frames: 4, ..fixed }), 40);
        assert_eq!(video(VideoEstimate { most_tokens: 25, ..fixed }), 25);
        assert_eq!(video(VideoEstimate { frame: PictureTokens::Fixed(0), ..default }), 1);
        let hd = MediaEstimate { picture_size: (1280, 720), ..MediaEstimate::DEFAULT };
        assert_eq!(tokens(MediaKind::Image, b"u", VideoHints::default(), &hd), 900);
        let fixed = MediaEstimate { picture: PictureTokens::Fixed(280), ..MediaEstimate::DEFAULT };
        assert_eq!(tokens(MediaKind::Image, b"u", VideoHints::default(), &fixed), 280);
    }
}
