//! The server, and the names under which replicas of a pool keep what they do there.

use std::path::PathBuf;
use std::time::Duration;

use crate::transport::ClientFiles;

/// What a replica wrote is gone this long after its last word.
pub(super) const EXPIRES: Duration = Duration::from_secs(3);
/// The set of replicas is gone this long after the last one has written into it.
pub(super) const MEMBERS_EXPIRE: Duration = Duration::from_mins(1);
/// Longest name of a replica that is kept.
const NAME: usize = 100;

/// A server that speaks the protocol of Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS; `None` for plaintext.
    pub tls: Option<ClientFiles>,
    /// User; `None` for the default one.
    pub user: Option<String>,
    /// File whose first line is the password. It is read at each connection.
    pub password_file: Option<PathBuf>,
    /// Number of the database.
    pub database: i64,
    /// What the names of all keys begin with.
    pub key_prefix: String,
}

impl RedisSettings {
    /// `HOST:PORT`.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Names of keys. The braces keep the keys of a pool in one slot.
#[derive(Clone, Debug)]
pub(super) struct Keys(String);

impl Keys {
    pub(super) fn new(settings: &RedisSettings, pool: &str) -> Self {
        Self(format!("{}:{{{pool}}}", settings.key_prefix))
    }

    /// Set of the replicas, as [`Member::text`].
    pub(super) fn members(&self) -> String {
        format!("{}:replicas", self.0)
    }

    /// Hash that tells people of a replica.
    pub(super) fn about(&self, epoch: u64) -> String {
        format!("{}:{epoch:016x}", self.0)
    }

    /// Stream of what a replica says.
    pub(super) fn log(&self, epoch: u64) -> String {
        format!("{}:{epoch:016x}:log", self.0)
    }
}

/// One life of a replica, as the set names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) epoch: u64,
    /// `NAME/EPOCH`: unique, and short enough for a label.
    pub(super) peer: String,
}

impl Member {
    /// The entry of the set.
    pub(super) fn text(epoch: u64, name: &str) -> String {
        let clean = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
        let name: String = name.chars().take(NAME).map(clean).collect();
        format!("{epoch:016x}:{name}")
    }

    /// The same of this life.
    pub(super) fn entry(&self) -> String {
        Self::text(self.epoch, self.peer.rsplit_once('/').unwrap_or_default().0)
    }

    /// Reads one, which may be anything.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (epoch, name) = std::str::from_utf8(bytes).ok()?.split_once(':')?;
        let is_hex = epoch.len() == 16 && epoch.bytes().all(|byte| byte.is_ascii_hexdigit());
        let epoch = u64::from_str_radix(epoch, 16).ok().filter(|epoch| is_hex && *epoch != 0)?;
        (Self::text(epoch, name).as_bytes() == bytes)
            .then(|| Self { epoch, peer: format!("{name}/{:08x}", epoch >> 32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_as_it_is_written_and_nothing_else_is() {
        let text = Member::text(0xab_0000_0001, "pod-1");
        assert_eq!(text, "000000ab00000001:pod-1");
        let member = Member::read(text.as_bytes()).unwrap();
        assert_eq!(member.entry(), text);
        assert_eq!((member.epoch, member.peer.as_str()), (0xab_0000_0001, "pod-1/000000ab"));
        assert_eq!(Member::text(1, "a b\"\n"), "0000000000000001:a_b__");
        for wrong in [
            "",
            "1:a",
            "000000AB00000001:a",
            "0000000000000000:a",
            "000000ab00000001:a b",
            "000000ab00000001",
        ] {
            assert_eq!(Member::read(wrong.as_bytes()), None, "{wrong}");
        }
        let long = format!("000000ab00000001:{}", "x".repeat(101));
        assert_eq!(Member::read(long.as_bytes()), None);
        assert_eq!(Member::read(&[0xff, b':']), None);
    }
}
