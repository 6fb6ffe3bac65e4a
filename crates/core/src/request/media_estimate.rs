//! How many tokens images and videos are taken to be, where nobody counts them.

use super::headers::Headers;

/// The rules for a whole process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MediaEstimate {
    /// Width and height of a picture whose size is not known, in pixels.
    pub picture_size: (u32, u32),
    /// Tokens of a picture.
    pub picture: PictureTokens,
    /// Videos.
    pub video: VideoEstimate,
}

/// The rules for videos.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoEstimate {
    /// Width and height where no header says them, in pixels.
    pub size: (u32, u32),
    /// Length where no header says it, in seconds.
    pub seconds: f64,
    /// Tokens of a frame.
    pub frame: PictureTokens,
    /// Which frames the model looks at.
    pub frames: Frames,
    /// Fewest frames.
    pub least_frames: u64,
    /// Most frames; 0 for no bound.
    pub most_frames: u64,
    /// Most tokens; 0 for no bound.
    pub most_tokens: u64,
}

/// Tokens of one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureTokens {
    /// As many pixels are a token; at least 1.
    PerPixels(u64),
    /// This many, whatever its size.
    Fixed(u64),
}

/// Which frames of a video count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frames {
    /// So many a second, and `patch` of them make one.
    Sampled {
        /// Frames a second.
        fps: f64,
        /// Frames that become one; at least 1.
        patch: u64,
    },
    /// Every `stride`th frame of the video.
    Strided {
        /// Frames a second where no header says it.
        fps: f64,
        /// At least 1.
        stride: u64,
    },
}

impl MediaEstimate {
    /// The rules where nothing is configured.
    pub const DEFAULT: Self = Self {
        picture_size: (640, 360),
        picture: PictureTokens::PerPixels(1024),
        video: VideoEstimate {
            size: (640, 360),
            seconds: 10.0,
            frame: PictureTokens::PerPixels(1024),
            frames: Frames::Sampled { fps: 2.0, patch: 1 },
            least_frames: 0,
            most_frames: 0,
            most_tokens: 0,
        },
    };
}

impl Default for MediaEstimate {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl PictureTokens {
    /// Tokens of a picture of this width and height.
    pub fn of(self, (width, height): (u32, u32)) -> u64 {
        match self {
            Self::PerPixels(pixels) => (u64::from(width) * u64::from(height) / pixels.max(1)).max(1),
            Self::Fixed(tokens) => tokens,
        }
    }
}

/// The rules for the media of one request, and headers that say more.
#[derive(Clone, Copy, Debug)]
pub struct MediaRules<'a> {
    /// Request headers.
    pub headers: &'a Headers,
    /// The rules.
    pub estimate: &'a MediaEstimate,
}

impl<'a> From<&'a Headers> for MediaRules<'a> {
    /// The default rules.
    fn from(headers: &'a Headers) -> Self {
        Self { headers, estimate: &MediaEstimate::DEFAULT }
    }
}
