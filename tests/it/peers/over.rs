//! How replicas of a test reach each other.

use super::replicas::free_port;
use crate::support::Redis;

/// By streams, or over a server.
pub(super) enum Over {
    Streams,
    Server(Box<Redis>),
}

impl Over {
    /// Over a server of its own; `None`, with a printed line, where there is none.
    pub(super) async fn server() -> Option<Self> {
        Redis::start(free_port(), &[]).await.map(|redis| Self::Server(Box::new(redis)))
    }

    /// The flags that say so.
    pub(super) fn flags(&self) -> &'static [&'static str] {
        match self {
            Self::Streams => &["--peer-plaintext"],
            Self::Server(_) => &[],
        }
    }

    /// The configuration that says so. `text` ends in the section `dataLayer`.
    pub(super) fn config(&self, text: &str) -> String {
        match self {
            Self::Streams => text.to_owned(),
            Self::Server(redis) => with_server(text, &format!("{{url: \"redis://{}\"}}", redis.addr)),
        }
    }
}

/// The configuration with this server.
pub(super) fn with_server(text: &str, server: &str) -> String {
    format!("{text}  crossReplica:\n    redis: {server}\n")
}

/// Each of these, by streams and over a server.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod by_streams {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(&$crate::peers::over::Over::Streams).await;
                }
            )+
        }

        mod over_a_server {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    if let Some(over) = $crate::peers::over::Over::server().await {
                        super::$name(&over).await;
                    }
                }
            )+
        }
    };
}
pub(super) use over_both;
