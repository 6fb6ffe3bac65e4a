//! How the cache of a prompt travels from the server that processed the prompt to the server that answers.

use std::fmt;

/// The protocol between a prefill and a decode server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connector {
    /// vLLM with NIXL: the `kv_transfer_params` of the prefill server's answer go into the decode call.
    NixlV2,
    /// vLLM's first releases with NIXL: the transfer parameters are members of the body itself.
    NixlV1,
    /// LMCache: the servers share a store, and the bodies carry no transfer parameters.
    LmCache,
    /// A store that the servers share. If the client sets `cache_hit_threshold`, the engine is asked first, and answers
    /// if it has enough of the prompt in its cache.
    SharedStorage,
    /// SGLang: both servers get the same body, which names the room in which they meet.
    SgLang,
    /// Mooncake: both servers are asked at the same time, with one transfer id.
    Mooncake,
    /// The peer-to-peer tier of vLLM's offloading connector: both servers are asked at the same time.
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

    /// The name of the connector in flags.
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

    /// The connector with this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|connector| connector.name() == name)
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The protocol by which the result of an encode server reaches the other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeConnector {
    /// The servers share a store whose keys are hashes of the media.
    Example,
    /// NIXL: the `ec_transfer_params` of the encode server's answer go into the later calls.
    Nixl,
}

impl EncodeConnector {
    /// The name of the connector in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Example => "ec-example",
            Self::Nixl => "ec-nixl",
        }
    }

    /// The connector with this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Example, Self::Nixl].into_iter().find(|connector| connector.name() == name)
    }
}

/// A part of the work on a request that a server of its own may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Encoding an image, a video or a sound.
    Encode,
    /// Processing the prompt.
    Prefill,
    /// Writing the answer.
    Decode,
}

impl Stage {
    /// The name of the stage in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }

    /// The word that flags use for a server of this stage.
    pub fn server(self) -> &'static str {
        match self {
            Self::Encode => "encoder",
            Self::Prefill => "prefiller",
            Self::Decode => "decoder",
        }
    }
}
