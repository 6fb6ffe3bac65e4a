//! A connection to the server: name, TCP, TLS, and who this replica is.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::bounds::Bounded;
use super::settings::RedisSettings;
use crate::peers::connect::Connection as Line;
use crate::peers::link::is_of_tls;

/// Longest wait for a connection, from the name to the password.
const OPEN: Duration = Duration::from_millis(1500);
/// Longest wait for a reply. What peers know of this replica is forgotten soon after.
const ANSWER: Duration = Duration::from_millis(1500);
/// Largest password file, in bytes.
const PASSWORD: u64 = 4096;
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 300;

/// Codes of errors that tell of a password.
const PASSWORD_CODES: [&str; 2] = ["NOAUTH", "WRONGPASS"];

/// Why a connection ended, or could not begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The reason as metrics name it.
    pub(super) reason: &'static str,
    /// For people; never with the password.
    pub(super) error: String,
}

impl Ended {
    pub(super) fn new(reason: &'static str, error: impl std::fmt::Display) -> Self {
        let error = error.to_string();
        Self { reason, error: error.chars().take(LONGEST_ERROR).collect() }
    }
}

/// An open connection. It closes when dropped.
pub(super) struct Connection {
    client: MultiplexedConnection,
    driver: AbortHandle,
    /// What of its replies was refused to be read.
    fault: Arc<OnceLock<&'static str>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects, and logs in.
    pub(super) async fn open(settings: &RedisSettings) -> Result<Self, Ended> {
        let opening = tokio::time::timeout(OPEN, Self::begin(settings));
        opening.await.unwrap_or_else(|_| Err(Ended::new("silent", format!("no connection within {OPEN:?}"))))
    }

    async fn begin(settings: &RedisSettings) -> Result<Self, Ended> {
        let password = match &settings.password_file {
            Some(path) => Some(password(path).await?),
            None => None,
        };
        let (line, fault) = Bounded::new(connect(settings).await?);
        let mut who = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_db(settings.database)
            .set_skip_set_lib_name();
        if let Some(password) = &password {
            who = who.set_password(password);
        }
        if let Some(user) = &settings.user {
            who = who.set_username(user);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let began = MultiplexedConnection::new_with_config(&who, line, config).await;
        let (client, driver) = began.map_err(|error| {
            if let Some(what) = fault.get() {
                return Ended::new("malformed", what);
            }
            // A server that does not know the command repeats it, with the password.
            let text = match &password {
                Some(password) if !password.is_empty() => error.to_string().replace(password, "[password]"),
                _ => error.to_string(),
            };
            Ended::new(reason_of(&error), text)
        })?;
        Ok(Self { client, driver: tokio::spawn(driver).abort_handle(), fault })
    }

    /// Sends commands and reads as many replies, none of which is an error.
    pub(super) async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Ended> {
        let count = commands.len();
        let asking = self.client.send_packed_commands(commands, 0, count);
        let replies = tokio::time::timeout(ANSWER, asking)
            .await
            .map_err(|_| Ended::new("silent", format!("no reply for {ANSWER:?}")))?
            .map_err(|error| match self.fault.get() {
                Some(what) => Ended::new("malformed", what),
                None => Ended::new(reason_of(&error), error),
            })?;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                let details = error.details().unwrap_or_default();
                let reason = if PASSWORD_CODES.contains(&error.code()) { "password" } else { "refused" };
                return Err(Ended::new(reason, format!("{} {details}", error.code())));
            }
        }
        Ok(replies)
    }
}

async fn password(path: &Path) -> Result<String, Ended> {
    let fault = |error: &dyn std::fmt::Display| {
        Ended::new("password", format!("passwordFile {}: {error}", path.display()))
    };
    let file = tokio::fs::File::open(path).await.map_err(|error| fault(&error))?;
    let mut text = String::new();
    file.take(PASSWORD).read_to_string(&mut text).await.map_err(|error| fault(&error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

async fn connect(settings: &RedisSettings) -> Result<Box<dyn Line>, Ended> {
    let stream = TcpStream::connect((settings.host.as_str(), settings.port)).await;
    let stream = stream.map_err(|error| Ended::new("unreachable", error))?;
    stream.set_nodelay(true).map_err(|error| Ended::new("unreachable", error))?;
    let Some(files) = &settings.tls else { return Ok(Box::new(stream)) };
    let config = files.client().map_err(|error| Ended::new("handshake", error))?;
    let name = ServerName::try_from(settings.host.clone()).map_err(|error| Ended::new("handshake", error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| Ended::new("handshake", error))?))
}

fn reason_of(error: &RedisError) -> &'static str {
    use ::redis::ErrorKind;
    match error.kind() {
        ErrorKind::AuthenticationFailed => "password",
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => "malformed",
        ErrorKind::Extension if error.code().is_some_and(|code| PASSWORD_CODES.contains(&code)) => "password",
        ErrorKind::Server(_) | ErrorKind::Extension => "refused",
        ErrorKind::Io if error.is_timeout() => "silent",
        // A server that refuses our certificate says so behind the handshake.
        _ if is_of_tls(&error.to_string()) => "handshake",
        _ => "closed",
    }
}
