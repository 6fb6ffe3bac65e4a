use serde_json::{Value, json};

use super::*;
use crate::plugins::fixture::{Built, Fleet};
use crate::request::{Frames, MediaEstimate, PictureTokens};

fn build(params: &Value) -> Result<Built, BuildError> {
    Fleet::new([]).build(&TYPE, Some(params.clone()))
}

#[test]
fn a_model_name_alone_asks_the_default_endpoint() {
    for params in [
        json!({"modelName": "org/model"}),
        json!({"modelName": "m", "vllm": {}}),
        json!({"modelName": "m", "vllm": {"url": "https://render:8443/", "timeout": "2s", "mmTimeout": "1m"}}),
        json!({"modelName": "m", "vllm": {"url": "http://[::1]:8000", "patience": "10ms"}}),
        json!({"MODELNAME": "m"}),
    ] {
        let built = build(&params).unwrap();
        assert!(built.roles.preparer.is_some() && built.roles.media_estimate.is_none(), "{params}");
    }
    let limits = build(&json!({"modelName": "m", "vllm": {"timeout": "40s", "patience": "10ms"}}));
    let limits = limits.unwrap().roles.preparer.unwrap().limits();
    assert_eq!((limits.timeout.as_secs(), limits.patience.as_millis()), (40, 10));
}

#[test]
fn without_parameters_tokens_are_estimated() {
    for params in [Value::Null, json!({}), json!({"estimate": {}}), json!({"udsTokenizerConfig": {}})] {
        let built = build(&params).unwrap();
        assert_eq!(built.roles.media_estimate, Some(MediaEstimate::DEFAULT), "{params}");
        assert!(built.roles.preparer.is_none());
    }
    let built = build(&json!({"modelName": "m", "estimate": {}})).unwrap();
    assert!(built.roles.preparer.is_none() && built.warnings[0].contains("modelName"));
}

#[test]
fn the_rules_for_pictures_and_videos_are_what_is_configured() {
    let rules =
        |estimate: Value| build(&json!({"estimate": estimate})).unwrap().roles.media_estimate.unwrap();
    let hd =
        rules(json!({"image": {"mode": "dynamic", "defaultResolution": {"width": 1280, "height": 720}}}));
    assert_eq!(hd, MediaEstimate { picture_size: (1280, 720), ..MediaEstimate::DEFAULT });
    let fixed = rules(json!({"image": {"mode": "static", "static": {"staticToken": 280}}}));
    assert_eq!(fixed.picture, PictureTokens::Fixed(280));
    let video = rules(json!({"video": {
        "tokensPerFrame": {"mode": "static", "static": {"numTokensPerFrame": 296}},
        "frames": {"mode": "strided", "minFrames": 1, "maxFrames": 8, "strided": {"frameStride": 4}},
        "defaultDuration": 2.5, "maxVideoTokens": 12288
    }}));
    assert_eq!(video.video.frames, Frames::Strided { fps: 24.0, stride: 4 });
    assert_eq!((video.video.least_frames, video.video.most_frames), (1, 8));
    assert_eq!((video.video.frame, video.video.most_tokens), (PictureTokens::Fixed(296), 12288));
}

#[test]
fn wrong_parameters_name_their_field() {
    for (params, at, text) in [
        (json!({"vllm": {"url": "http://server:8000"}}), "modelName", "required"),
        (json!({"udsTokenizerConfig": {"socketFile": "/s"}}), "modelName", "required"),
        (json!({"modelName": "m", "vllm": {}, "estimate": {}}), "estimate", "beside `vllm`"),
        (json!({"modelName": "m", "vllm": {"url": "localhost"}}), "vllm.url", "localhost"),
        (json!({"modelName": "m", "vllm": {"url": "ftp://x"}}), "vllm.url", "ftp"),
        (json!({"modelName": "m", "vllm": {"timeout": "5"}}), "vllm.timeout", "duration"),
        (json!({"modelName": "m", "vllm": {"mmTimeout": "-1s"}}), "vllm.mmTimeout", "at least 0"),
        (json!({"estimate": {"image": {"mode": "x"}}}), "estimate.image.mode", "dynamic"),
        (json!({"estimate": {"video": {"frames": {"mode": "x"}}}}), "estimate.video.frames.mode", "strided"),
        (
            json!({"estimate": {"video": {"defaultDuration": -1}}}),
            "estimate.video.defaultDuration",
            "above 0",
        ),
        (json!({"model": "m"}), "model", "modelName"),
        (
            json!({"modelName": "m", "udsTokenizerConfig": {"socketFile": "/s", "modelTokenizerMap": {"n": "/n"}}}),
            "udsTokenizerConfig.modelTokenizerMap",
            "\"m\"",
        ),
    ] {
        let error = build(&params).unwrap_err();
        assert_eq!(error.path, at, "{params}: {error}");
        assert!(error.message.contains(text), "{params}: {error}");
    }
}

#[test]
fn the_socket_of_the_former_tokenizer_is_deprecated() {
    let uds = json!({"socketFile": "/run/tokenizer/tokenizer-uds.socket"});
    let built = build(&json!({"modelName": "m", "udsTokenizerConfig": uds})).unwrap();
    assert!(built.roles.preparer.is_some());
    assert!(built.warnings[0].contains("deprecated"), "{:?}", built.warnings);
}

#[cfg(feature = "tokens")]
#[test]
fn tokens_of_this_process_need_a_model_and_its_folder() {
    let built = build(&json!({"modelName": "m", "local": {"folder": "/nowhere", "aliases": ["a"]}})).unwrap();
    assert!(built.roles.preparer.is_some() && built.roles.media_estimate.is_none());
    for (params, at, text) in [
        (json!({"local": {"folder": "/f"}}), "modelName", "required"),
        (json!({"modelName": "m", "local": {}}), "local.folder", "required"),
        (json!({"modelName": "m", "vllm": {}, "local": {"folder": "/f"}}), "local", "beside `vllm`"),
        (
            json!({"modelName": "m", "local": {"folder": "/f", "repository": "o/m"}}),
            "local.repository",
            "beside `folder`",
        ),
        (
            json!({"modelName": "m", "local": {"repository": "../m", "cacheFolder": "/c"}}),
            "local.repository",
            "organisation/model",
        ),
        (
            json!({"modelName": "m", "local": {"repository": "o/m", "revision": "a?", "cacheFolder": "/c"}}),
            "local.revision",
            "commit",
        ),
        (json!({"modelName": "m", "local": {"repository": "o/m"}}), "local.cacheFolder", "required"),
        (
            json!({"modelName": "m", "local": {"folder": "/f", "vllmVersion": "0.28"}}),
            "local.vllmVersion",
            "0.29",
        ),
        (
            json!({"modelName": "m", "local": {"folder": "/f", "vllmVersion": "1.30"}}),
            "local.vllmVersion",
            "1.30",
        ),
        (
            json!({"modelName": "m", "local": {"folder": "/f", "contentFormat": "x"}}),
            "local.contentFormat",
            "openai",
        ),
        (json!({"modelName": "m", "local": {"folder": "/f", "cacheMib": 0}}), "local.cacheMib", "4096"),
        (
            json!({"modelName": "m", "local": {"folder": "/f", "chatTemplate": "/nowhere"}}),
            "local.chatTemplate",
            "read",
        ),
    ] {
        let error = build(&params).unwrap_err();
        assert_eq!(error.path, at, "{params}: {error}");
        assert!(error.message.contains(text), "{params}: {error}");
    }
}
