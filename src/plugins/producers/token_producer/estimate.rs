//! How tokens of pictures and videos are estimated: the parameters below `estimate`.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `image.mode` | `dynamic` | `dynamic`: by its size; `static`: all pictures alike |
//! | `image.defaultResolution` | 640×360 | size of a picture whose size is not known |
//! | `image.dynamic.factor`, `image.static.staticToken` | 1024, 1 | pixels of a token; tokens of a picture |
//! | `video.tokensPerFrame` | `dynamic`, 1024 | the same for a frame: `mode`, `dynamic.factor`, `static.numTokensPerFrame` |
//! | `video.defaultResolution`, `video.defaultDuration` | 640×360, 10 | where no header says it; seconds |
//! | `video.frames.mode` | `sampled` | `sampled`: so many a second; `strided`: every so manieth of the video |
//! | `video.frames.sampled` | 2, 1 | `sampleFPS`; `temporalPatchSize`, frames that become one |
//! | `video.frames.strided` | 24, 1 | `defaultSourceFPS`; `frameStride` |
//! | `video.frames.minFrames`, `video.frames.maxFrames`, `video.maxVideoTokens` | none | bounds |

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::BuildError;
use crate::request::{Frames, MediaEstimate, PictureTokens, VideoEstimate};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Estimate {
    /// Pictures.
    image: Image,
    /// Videos.
    video: Video,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Image {
    /// `dynamic`, by its size, or `static`, all pictures alike.
    mode: String,
    /// Size of a picture whose size is not known.
    default_resolution: Resolution,
    /// By size.
    dynamic: Dynamic,
    /// All alike.
    #[serde(rename = "static")]
    fixed: StaticImage,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Resolution {
    /// Pixels; 640 if 0.
    width: u32,
    /// Pixels; 360 if 0.
    height: u32,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Dynamic {
    /// Pixels of a token; 1024 if 0.
    factor: u64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct StaticImage {
    /// Tokens of a picture; 1 if 0.
    static_token: u64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Video {
    /// Size where no header says it.
    default_resolution: Resolution,
    /// Seconds where no header says it; 10 if 0.
    default_duration: f64,
    /// Tokens of a frame.
    tokens_per_frame: FrameTokens,
    /// Which frames count.
    frames: FrameChoice,
    /// Most tokens of a video; 0 for no bound.
    max_video_tokens: u64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct FrameTokens {
    /// `dynamic`, by the size, or `static`, all frames alike.
    mode: String,
    /// By size.
    dynamic: Dynamic,
    /// All alike.
    #[serde(rename = "static")]
    fixed: StaticFrame,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct StaticFrame {
    /// Tokens of a frame; 1 if 0.
    num_tokens_per_frame: u64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct FrameChoice {
    /// `sampled`, so many a second, or `strided`, every so manieth frame of the video.
    mode: String,
    /// Fewest frames.
    min_frames: u64,
    /// Most frames; 0 for no bound.
    max_frames: u64,
    /// So many a second.
    sampled: Sampled,
    /// Every so manieth.
    strided: Strided,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sampled {
    /// Frames a second; 2 if 0.
    #[serde(rename = "sampleFPS")]
    sample_fps: f64,
    /// Frames that become one; 1 if 0.
    #[serde(rename = "temporalPatchSize")]
    temporal_patch_size: u64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Strided {
    /// Frames a second where no header says it; 24 if 0.
    #[serde(rename = "defaultSourceFPS")]
    default_source_fps: f64,
    /// Every so manieth frame counts; 1 if 0.
    #[serde(rename = "frameStride")]
    frame_stride: u64,
}

impl Estimate {
    /// The rules that the parameters make.
    pub(super) fn rules(&self) -> Result<MediaEstimate, BuildError> {
        let (image, video) = (&self.image, &self.video);
        let picture =
            tokens("estimate.image.mode", &image.mode, image.dynamic.factor, image.fixed.static_token)?;
        let per_frame = &video.tokens_per_frame;
        let at = "estimate.video.tokensPerFrame.mode";
        let frame =
            tokens(at, &per_frame.mode, per_frame.dynamic.factor, per_frame.fixed.num_tokens_per_frame)?;
        let choice = &video.frames;
        let frames = match choice.mode.as_str() {
            "" | "sampled" => Frames::Sampled {
                fps: positive("estimate.video.frames.sampled.sampleFPS", choice.sampled.sample_fps, 2.0)?,
                patch: choice.sampled.temporal_patch_size.max(1),
            },
            "strided" => Frames::Strided {
                fps: positive(
                    "estimate.video.frames.strided.defaultSourceFPS",
                    choice.strided.default_source_fps,
                    24.0,
                )?,
                stride: choice.strided.frame_stride.max(1),
            },
            other => {
                let message = format!("got \"{other}\", expected \"sampled\" or \"strided\"");
                return Err(BuildError::at("estimate.video.frames.mode", message));
            }
        };
        Ok(MediaEstimate {
            picture_size: image.default_resolution.size(),
            picture,
            video: VideoEstimate {
                size: video.default_resolution.size(),
                seconds: positive("estimate.video.defaultDuration", video.default_duration, 10.0)?,
                frame,
                frames,
                least_frames: choice.min_frames,
                most_frames: choice.max_frames,
                most_tokens: video.max_video_tokens,
            },
        })
    }
}

impl Resolution {
    fn size(&self) -> (u32, u32) {
        let (width, height) = MediaEstimate::DEFAULT.picture_size;
        let or = |given: u32, default: u32| if given == 0 { default } else { given };
        (or(self.width, width), or(self.height, height))
    }
}

fn tokens(at: &str, mode: &str, factor: u64, fixed: u64) -> Result<PictureTokens, BuildError> {
    match mode {
        "" | "dynamic" if factor == 0 => Ok(PictureTokens::PerPixels(1024)),
        "" | "dynamic" => Ok(PictureTokens::PerPixels(factor)),
        "static" => Ok(PictureTokens::Fixed(fixed.max(1))),
        other => Err(BuildError::at(at, format!("got \"{other}\", expected \"dynamic\" or \"static\""))),
    }
}

/// A number above 0; the default for 0.
fn positive(at: &str, number: f64, default: f64) -> Result<f64, BuildError> {
    match number {
        0.0 => Ok(default),
        number if number.is_finite() && number > 0.0 => Ok(number),
        number => Err(BuildError::at(at, format!("got {number}, expected a number above 0"))),
    }
}
