//! `always-disagg-multimodal-decider`: requests with an image, video or sound are encoded by an encode server. Takes no
//! parameters.
//!
//! Use it where encoders run on servers of their own. It looks at the parsed prompt once; text requests go without the
//! extra stage.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::scheduling::{Call, Decider};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("always-disagg-multimodal-decider", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().decider(Arc::new(Multimodal)))
})
.about(
    "Sends requests with an image, a video or a sound to an encode server.",
    "Use it where encoders run on servers of their own. It costs one look at the parsed prompt.",
);

#[derive(Debug)]
struct Multimodal;

impl Decider for Multimodal {
    fn decide(&self, call: &Call<'_>, _target: Option<&Arc<Endpoint>>) -> bool {
        call.request.inference.prompt.has_media()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::request::MediaKind;
    use crate::scheduling::Columns;

    #[test]
    fn only_requests_with_media_are_encoded_apart() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, None).unwrap();
        for (request, expected) in [
            (request("m"), false),
            (request("m").prompt("describe https://example.com/cat.png"), false),
            (request("m").media(MediaKind::Image, "https://example.com/cat.png"), true),
            (request("m").prompt("describe this: ").media(MediaKind::Video, "https://example.com/v"), true),
            (request("").media(MediaKind::Audio, ""), true),
        ] {
            let decided = fleet.decides(&built.roles, &request, &Columns::new(), None);
            assert_eq!(decided, expected, "{request:?}");
        }
    }
}
