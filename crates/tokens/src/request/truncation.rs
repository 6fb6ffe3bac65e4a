//! The fields `truncate_prompt_tokens` and `truncation_side`.

use crate::encoder::{Encoder, Stop};
use crate::json::{Json, Map, present};
use crate::profile::ServerProfile;
use crate::unsupported::Unsupported;

/// How many tokens of a prompt are kept, and on which side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truncation {
    most: Option<usize>,
    side: Option<Side>,
}

/// The side that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The first version in which the whole context is one token shorter if the request limits its answer.
const ROOM_FOR_ONE: u32 = 32;

impl Truncation {
    /// The truncation that a body asks for. `limited` says whether the number of generated tokens is limited.
    pub(crate) fn of(body: &Map, profile: &ServerProfile, limited: bool) -> Result<Self, Unsupported> {
        const FIELD: &str = "truncate_prompt_tokens";
        let side = match present(body, "truncation_side") {
            None => None,
            Some(Json::Text(side)) if &**side == "left" => Some(Side::Left),
            Some(Json::Text(side)) if &**side == "right" => Some(Side::Right),
            Some(_) => return Err(Unsupported::refused("truncation_side", "is neither left nor right")),
        };
        let whole = || {
            let most = profile.max_model_len;
            let most = most.ok_or_else(|| Unsupported::field(FIELD, "needs the server's context length"))?;
            Ok::<_, Unsupported>(most - usize::from(limited && profile.version >= ROOM_FOR_ONE && most > 0))
        };
        let most = match present(body, FIELD) {
            None => None,
            Some(Json::Int(-1)) => Some(whole()?),
            Some(Json::Int(most)) => {
                let most = usize::try_from(*most).map_err(|_| Unsupported::refused(FIELD, "is below -1"))?;
                if profile.max_model_len.is_some_and(|longest| most > longest) {
                    return Err(Unsupported::refused(FIELD, "is more than the server's context"));
                }
                Some(most)
            }
            Some(_) => return Err(Unsupported::refused(FIELD, "is no integer")),
        };
        Ok(Self { most, side })
    }

    /// The part of the ids that is kept. If no side is set, the last ids are kept.
    pub(crate) fn cut(self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(most) = self.most {
            let over = ids.len().saturating_sub(most);
            match self.side {
                Some(Side::Right) => ids.truncate(most),
                Some(Side::Left) | None => drop(ids.drain(..over)),
            }
        }
        ids
    }

    /// Encodes a text and keeps a part of it. If no side is set, the special tokens around the text are kept, and
    /// count.
    pub(crate) fn encode(
        self,
        encoder: &Encoder,
        text: &str,
        special: bool,
        stop: Stop<'_>,
    ) -> Result<Vec<u32>, Unsupported> {
        let (Some(most), None, true) = (self.most, self.side, special) else {
            return Ok(self.cut(encoder.encode(text, special, stop)?));
        };
        let room = most.checked_sub(encoder.frame_length());
        let room = room.ok_or_else(|| {
            Unsupported::field("truncate_prompt_tokens", "leaves no room for special tokens")
        })?;
        let inner = Self { most: Some(room), side: None };
        Ok(encoder.framed(&inner.cut(encoder.encode(text, false, stop)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str, profile: &ServerProfile) -> Result<Truncation, Unsupported> {
        let body = Json::parse(body.as_bytes()).expect("JSON");
        Truncation::of(body.map().expect("an object"), profile, true)
    }

    #[test]
    fn the_last_tokens_are_kept_unless_the_right_side_is_cut() {
        let profile = ServerProfile::default();
        let cut = |body: &str| of(body, &profile).map(|truncation| truncation.cut((0..10).collect()));
        assert_eq!(cut(r#"{"truncate_prompt_tokens":3}"#), Ok(vec![7, 8, 9]));
        assert_eq!(cut(r#"{"truncate_prompt_tokens":3,"truncation_side":"left"}"#), Ok(vec![7, 8, 9]));
        assert_eq!(cut(r#"{"truncate_prompt_tokens":3,"truncation_side":"right"}"#), Ok(vec![0, 1, 2]));
        assert_eq!(cut(r#"{"truncate_prompt_tokens":null}"#), Ok((0..10).collect()));
        for body in [
            r#"{"truncate_prompt_tokens":-2}"#,
            r#"{"truncate_prompt_tokens":1.5}"#,
            r#"{"truncation_side":"up"}"#,
        ] {
            assert!(matches!(cut(body), Err(Unsupported::Refused { .. })), "{body}");
        }
    }

    #[test]
    fn minus_one_is_the_context_and_one_less_since_the_version_that_leaves_room() {
        let most = |version, max_model_len| {
            let profile = ServerProfile { version, max_model_len, ..ServerProfile::default() };
            of(r#"{"truncate_prompt_tokens":-1}"#, &profile).map(|truncation| truncation.most)
        };
        assert_eq!(most(32, Some(100)), Ok(Some(99)));
        assert_eq!(most(31, Some(100)), Ok(Some(100)));
        assert!(matches!(most(32, None), Err(Unsupported::Field { .. })));
    }
}
