//! Asks the replica that holds the lease whether it still leads, so that another need not wait until the lease runs
//! out.
//!
//! The leader writes into the Lease where its health is asked ([`Reach`]). Everybody who stands by asks there, a few
//! times a second. The holder has certainly stopped leading when it says so itself, when another process answers at
//! its address, or when the system there refuses connections several times in a row. All three count only after the
//! same holder has said that it leads: a leader that has just written the lease does not know it yet, and an address
//! that never answered says nothing. Silence proves nothing either: then the lease runs out.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::admin::LEADER_SERVICE;

/// Annotation of the Lease: the holder's identity, a blank, and where its health is asked.
pub(super) const ANNOTATION: &str = "pointsman/leader-health";

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// The same after a refused connection.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Refused connections in a row that prove that the process is gone.
const REFUSALS: u32 = 3;

/// The address at which a replica's health is asked, and the name it answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// The replica's name in the lease.
    pub(super) identity: String,
    /// Address of its health port.
    pub(super) address: SocketAddr,
}

impl Reach {
    /// The annotation's text.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.identity, self.address)
    }

    /// Reads the annotation. `None` if it is not about `holder`: electors that do not know the annotation leave it as
    /// it is.
    pub(super) fn read(text: &str, holder: &str) -> Option<Self> {
        let (identity, address) = text.rsplit_once(' ')?;
        let address = address.parse().ok()?;
        (identity == holder).then(|| Self { identity: identity.to_owned(), address })
    }
}

/// One answer of a holder's health port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The process at that address is the holder and leads.
    Leads,
    /// The process at that address is the holder and does not lead.
    Stands,
    /// Another process answers at that address.
    Stranger,
    /// Nobody listens there.
    Refused,
    /// The answer, or its absence, proves nothing.
    Silent,
}

/// The evidence of the answers so far.
#[derive(Debug, Default)]
struct Doubt {
    led: bool,
    refused: u32,
}

impl Doubt {
    /// True if the holder has certainly stopped leading.
    fn hear(&mut self, word: Word) -> bool {
        self.refused = if word == Word::Refused { self.refused + 1 } else { 0 };
        match word {
            Word::Leads => self.led = true,
            Word::Stands | Word::Stranger => return self.led,
            Word::Refused => return self.led && self.refused >= REFUSALS,
            Word::Silent => {}
        }
        false
    }
}

/// Resolves when the holder has certainly stopped leading, and not otherwise.
pub(super) async fn ended(reach: Reach) {
    let mut doubt = Doubt::default();
    let mut line = Line { reach, channel: None };
    loop {
        let word = tokio::time::timeout(PATIENCE, line.ask()).await.unwrap_or(Word::Silent);
        if word == Word::Silent {
            line.channel = None;
        }
        if doubt.hear(word) {
            return;
        }
        tokio::time::sleep(if word == Word::Refused { SHORT_PAUSE } else { PAUSE }).await;
    }
}

/// The connection to a holder.
struct Line {
    reach: Reach,
    channel: Option<HealthClient<Channel>>,
}

impl Line {
    async fn ask(&mut self) -> Word {
        let mut client = match self.channel.take() {
            Some(client) => client,
            None => match self.connect().await {
                Ok(client) => client,
                Err(word) => return word,
            },
        };
        let service = format!("{LEADER_SERVICE}{}", self.reach.identity);
        let Ok(answer) = client.check(HealthCheckRequest { service }).await else { return Word::Silent };
        self.channel = Some(client);
        match answer.into_inner().status() {
            ServingStatus::Serving => Word::Leads,
            ServingStatus::NotServing => Word::Stands,
            ServingStatus::ServiceUnknown => Word::Stranger,
            ServingStatus::Unknown => Word::Silent,
        }
    }

    /// A connection. The first one is of plain TCP, whose error says that nobody listens.
    async fn connect(&self) -> Result<HealthClient<Channel>, Word> {
        let refused = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Word::Refused,
            _ => Word::Silent,
        };
        TcpStream::connect(self.reach.address).await.map_err(refused)?;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.reach.address));
        let channel = endpoint.map_err(|_| Word::Silent)?.connect().await.map_err(|_| Word::Silent)?;
        Ok(HealthClient::new(channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proves(words: &[Word]) -> bool {
        let mut doubt = Doubt::default();
        words.iter().any(|word| doubt.hear(*word))
    }

    #[test]
    fn a_holder_that_led_has_ended_when_it_says_so_is_another_or_refuses_connections() {
        use Word::{Leads, Refused, Silent, Stands, Stranger};
        for (words, ended) in [
            (&[Leads, Stands][..], true),
            (&[Leads, Stranger], true),
            (&[Leads, Silent, Refused, Refused, Refused], true),
            (&[Leads, Refused, Refused, Silent, Refused, Refused], false),
            (&[Leads, Silent, Silent, Silent, Silent], false),
            // It has written the lease and does not know it yet, or the address is not its own.
            (&[Stands, Stands, Stands], false),
            (&[Refused, Refused, Refused, Refused], false),
            (&[Stranger], false),
            (&[Stands, Leads, Stands], true),
        ] {
            assert_eq!(proves(words), ended, "{words:?}");
        }
    }

    #[test]
    fn an_address_counts_for_the_holder_that_wrote_it_only() {
        let reach = Reach { identity: "pod_1".to_owned(), address: ([10, 0, 0, 7], 9003).into() };
        assert_eq!(Reach::read(&reach.text(), "pod_1"), Some(reach.clone()));
        assert_eq!(Reach::read(&reach.text(), "pod_2"), None);
        let six = Reach { address: "[fd00::7]:9003".parse().unwrap(), ..reach };
        assert_eq!(Reach::read(&six.text(), "pod_1"), Some(six));
        for odd in ["", "pod_1", "pod_1 ", "pod_1 example.org:80", "pod_1 10.0.0.7", " 10.0.0.7:1 x"] {
            assert_eq!(Reach::read(odd, "pod_1"), None, "{odd:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_was_closed_refuses_and_one_that_is_silent_proves_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reach = Reach { identity: "a".to_owned(), address };
        let mut line = Line { reach, channel: None };
        // The system takes connections; nobody answers.
        let silent = tokio::time::timeout(Duration::from_millis(50), line.ask()).await;
        assert!(matches!(silent, Err(_) | Ok(Word::Silent)), "{silent:?}");
        drop(listener);
        assert_eq!(line.ask().await, Word::Refused);
    }
}
