//! A real Prometheus that scrapes every second.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::poll::eventually;
use super::process::Process;

/// Where a `make setup` unpacks Debian's package, below the project, and where an installation of it puts the program.
const PLACES: [&str; 2] =
    [concat!(env!("CARGO_MANIFEST_DIR"), "/target/prometheus/usr/bin/prometheus"), "/usr/bin/prometheus"];

/// Something to scrape.
#[derive(Clone)]
pub(crate) struct Target<'a> {
    /// Value of the label `job`.
    pub(crate) job: &'a str,
    /// Where `/metrics` is.
    pub(crate) addr: SocketAddr,
    /// Labels that every series of it gets, as a scrape configuration adds them.
    pub(crate) labels: &'a [(&'a str, &'a str)],
}

/// A series of an answer: its labels as a JSON object, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// Labels.
    pub(crate) labels: Value,
    /// Value.
    pub(crate) value: f64,
}

/// A running Prometheus.
pub(crate) struct Prometheus {
    addr: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts Prometheus and waits until each target has been scraped. It takes five seconds to look at its own list of
    /// targets, so several are best started at once.
    pub(crate) async fn start(targets: &[Target<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, config(targets)).unwrap();
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        let mut process = Process::start("prometheus", &program(), args);
        let addr = process
            .line("address", |line| {
                let rest = line.split_once("msg=\"Listening on\"")?.1.split_once("address=")?.1;
                rest.split_whitespace().next()?.parse().ok()
            })
            .await;
        let prometheus = Self { addr, _process: process, _folder: folder };
        let count = targets.len() as f64;
        eventually("prometheus has scraped every target", async || {
            let ready = Client::http1(addr).get("/-/ready").await.status == 200;
            (ready && prometheus.value("sum(up)").await? == count).then_some(())
        })
        .await;
        prometheus
    }

    /// What a query gives now, whatever the number of series.
    pub(crate) async fn query(&self, query: &str) -> Vec<Series> {
        let reply = Client::http1(self.addr).get(&format!("/api/v1/query?query={}", escaped(query))).await;
        let page = reply.json();
        assert_eq!(page["status"], "success", "{query}: {page}");
        let data = &page["data"];
        match data["resultType"].as_str() {
            Some("vector") => {
                let series = data["result"].as_array().unwrap();
                series
                    .iter()
                    .map(|series| Series {
                        labels: series["metric"].clone(),
                        value: number(&series["value"]),
                    })
                    .collect()
            }
            Some("scalar") => vec![Series { labels: Value::Null, value: number(&data["result"]) }],
            other => panic!("{query}: {other:?} is no number"),
        }
    }

    /// The one number that a query gives now, as an autoscaler wants it; `None` without data. The test fails if there
    /// are several.
    pub(crate) async fn value(&self, query: &str) -> Option<f64> {
        let series = self.query(query).await;
        assert!(series.len() < 2, "{query} has {} answers: {series:?}", series.len());
        series.first().map(|series| series.value)
    }
}

fn program() -> PathBuf {
    let named = std::env::var_os("POINTSMAN_PROMETHEUS").map(PathBuf::from);
    let places = named.into_iter().chain(PLACES.map(PathBuf::from));
    places.into_iter().find(|place| place.exists()).unwrap_or_else(|| {
        panic!(
            "no Prometheus at {}: run `make setup`, or `apt-get install prometheus`, or name one in \
             POINTSMAN_PROMETHEUS",
            PLACES.join(" or ")
        )
    })
}

fn config(targets: &[Target<'_>]) -> String {
    let mut text = String::from("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n");
    let mut jobs: Vec<&str> = targets.iter().map(|target| target.job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    for job in jobs {
        writeln!(text, "- job_name: {job}\n  static_configs:").unwrap();
        for target in targets.iter().filter(|target| target.job == job) {
            let labels = target.labels.iter().map(|(key, value)| format!("{key}: {value:?}"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            writeln!(text, "  - {{targets: [\"{}\"], labels: {{{labels}}}}}", target.addr).unwrap();
        }
    }
    text
}

fn number(pair: &Value) -> f64 {
    pair[1].as_str().unwrap().parse().unwrap()
}

/// Escapes all that is no letter or digit.
fn escaped(query: &str) -> String {
    query.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
        text
    })
}
