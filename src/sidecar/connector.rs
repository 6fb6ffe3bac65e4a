//! How the cache of a prompt travels from the server that processed it to the one that answers.

use std::fmt;

/// The protocol between a prefill and a decode server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connector {
    /// NIXL of vLLM: the prefill server's `kv_transfer_params` go to the decode server.
    NixlV2,
    /// NIXL of vLLM's first releases: the same in members of the body itself.
    NixlV1,
    /// LMCache: the servers share a store, and nothing is said in the body.
    LmCache,
    /// A store that servers share, with a threshold of cached tokens.
    SharedStorage,
    /// SGLang: both servers get the same body and meet in a room.
    SgLang,
    /// Mooncake: both servers at once, under one transfer id.
    Mooncake,
    /// The peer-to-peer tier of vLLM's offloading connector: both servers at once.
    Offloading,
}

impl Connector {
    /// All connectors.
    pub const ALL: [Self; 7] = [
        Self::NixlV2,
        Self::NixlV1,
        Self::LmCache,
        Self::SharedStorage,
        Self::SgLang,
        Self::Mooncake,
        Self::Offloading,
    ];

    /// Its name in flags and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NixlV2 => "nixlv2",
            Self::NixlV1 => "nixl",
            Self::LmCache => "lmcache",
            Self::SharedStorage => "shared-storage",
            Self::SgLang => "sglang",
            Self::Mooncake => "mooncake",
            Self::Offloading => "offloading",
        }
    }

    /// The connector of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|connector| connector.name() == name)
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How what an encode server made of images and sounds reaches the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeConnector {
    /// A store that servers share, keyed by hash.
    Example,
    /// NIXL: the encode server's `ec_transfer_params` go to the others.
    Nixl,
}

impl EncodeConnector {
    /// Its name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Example => "ec-example",
            Self::Nixl => "ec-nixl",
        }
    }

    /// The connector of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Example, Self::Nixl].into_iter().find(|connector| connector.name() == name)
    }
}

/// What a server is asked to do for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Encode an image or a sound.
    Encode,
    /// Process the prompt.
    Prefill,
    /// Answer.
    Decode,
}

impl Stage {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }

    /// What flags call the servers of this stage.
    pub fn server(self) -> &'static str {
        match self {
            Self::Encode => "encoder",
            Self::Prefill => "prefiller",
            Self::Decode => "decoder",
        }
    }
}
