//! The wiring of the sidecar: log, settings, ports, and what runs until a signal.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::help::help;
use super::settings::{AllowedBy, Options, ServingTls, log_level, read};
use super::values::{Unreadable, Values};
use crate::cli::stop::stop_signal;
use crate::discovery::{Discovery, FileDiscovery, KubernetesDiscovery, ReloadOutcome, Scope};
use crate::kubernetes::{Connection, Leadership};
use crate::metrics::{Format, Metrics, SidecarMetrics};
use crate::plugins::FileDiscoverySpec;
use crate::pool::Pool;
use crate::sidecar::{Allowed, Sidecar, new_metrics};
use crate::telemetry::{LineQueue, LogFormat, Tracing, logs};
use crate::transport::{FEW_CLIENTS, Keepalive, LargeBodies, PageBody, Port, Tls, serve_pages};

/// Exit code of a command line that the parser does not understand, as Go's has it.
const NO_SUCH_FLAG: u8 = 2;

/// Longest time for writing the last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// Longest start configuration file.
const CONFIGURATION: u64 = 1 << 20;

/// Where a pod finds the namespace that it is in.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Runs the sidecar with the words behind its name.
pub(in crate::cli) fn run(words: &[OsString]) -> ExitCode {
    let values = match Values::read(words) {
        Ok(values) => values,
        Err(Unreadable::Help) => {
            print(&help());
            return ExitCode::SUCCESS;
        }
        Err(Unreadable::Version) => {
            print(concat!("pointsman ", env!("CARGO_PKG_VERSION"), "\n"));
            return ExitCode::SUCCESS;
        }
        Err(Unreadable::Wrong(problem)) => {
            eprintln!("{problem}\n`pointsman sidecar --help` lists all flags");
            return ExitCode::from(NO_SUCH_FLAG);
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    let prepared = configured(values).map(|values| values.with_environment(environment)).and_then(|values| {
        Ok((log_level(&values).map_err(|problem| vec![problem])?, read(&values, environment)?, values))
    });
    let (level, options, values) = match prepared {
        Ok(prepared) => prepared,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            return ExitCode::FAILURE;
        }
    };
    let format = if values.one("zap-encoder") == "console" { LogFormat::Console } else { LogFormat::Json };
    let started = logs::lines(format).and_then(|log| Ok((log, LineQueue::stdout()?)));
    let (log, lines) = match started {
        Ok(queues) => queues,
        Err(error) => {
            eprintln!("cannot start the threads that write: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = logs::init(level, format, &log) {
        eprintln!("cannot log: {error}");
        return ExitCode::FAILURE;
    }
    for warning in &values.warnings {
        tracing::warn!(warning, "command line");
    }
    let code = match start(options, &lines) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!(error = format!("{problem:#}"), "sidecar stops");
            ExitCode::FAILURE
        }
    };
    let deadline = Instant::now() + FLUSH;
    for queue in [&log, &lines] {
        queue.flush(deadline.saturating_duration_since(Instant::now()));
    }
    code
}

#[expect(clippy::print_stdout, reason = "what was asked for, and nothing else runs")]
fn print(text: &str) {
    print!("{text}");
}

/// Takes in the configuration, if one is named.
fn configured(values: Values) -> Result<Values, Vec<String>> {
    let (text, path) = (values.one("configuration"), values.one("configuration-file"));
    match (text.is_empty(), path.is_empty()) {
        (true, true) => Ok(values),
        (false, false) => {
            Err(vec!["--configuration and --configuration-file exclude each other: got both".to_owned()])
        }
        (false, true) => {
            values.with_configuration(&text).map_err(|problems| named("--configuration", problems))
        }
        (true, false) => {
            let read = std::fs::metadata(&path).and_then(|data| {
                if data.len() > CONFIGURATION {
                    return Err(std::io::Error::other("it is longer than 1 MiB"));
                }
                std::fs::read_to_string(&path)
            });
            let text =
                read.map_err(|error| vec![format!("--configuration-file: cannot read {path}: {error}")])?;
            values.with_configuration(&text).map_err(|problems| named("--configuration-file", problems))
        }
    }
}

fn named(flag: &str, problems: Vec<String>) -> Vec<String> {
    problems.into_iter().map(|problem| format!("{flag}: {problem}")).collect()
}

fn start(options: Options, lines: &LineQueue) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if options.threads > 0 {
        runtime.worker_threads(options.threads);
    }
    let runtime = runtime.enable_all().thread_name("sidecar").build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(options, lines));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(options: Options, lines: &LineQueue) -> anyhow::Result<()> {
    let Options { settings, tls, allowed, metrics: page, tracing, bind, print_addresses, .. } = options;
    let tracing = Tracing::from_env_as("llm-d-disagg-sidecar", tracing, env!("CARGO_PKG_VERSION"), lines)?;
    let metrics = new_metrics();
    let stop = CancellationToken::new();
    let allowed = allow(allowed, &stop).await?;
    let mut ports = Vec::new();
    let mut announced = Vec::new();
    for rank in 0..settings.ranks {
        let port = if settings.port == 0 { 0 } else { settings.port + rank };
        let listener = listen(bind, port, "--port").await?;
        announced.push((
            format!("proxy{}", if rank > 0 { format!("-{rank}") } else { String::new() }),
            listener.local_addr()?,
        ));
        let tls = match &tls {
            ServingTls::Off => None,
            ServingTls::SelfSigned => Some(Tls::proxy(None).context("--secure-proxy")?),
            ServingTls::Files(folder) => Some(Tls::proxy(Some(folder)).context("--cert-path")?),
        };
        ports.push(Sidecar::port(listener, &metrics).with_tls(tls));
    }
    if let Some((address, port)) = page {
        let listener = listen(address.or(bind), port, "--metrics-port").await?;
        announced.push(("metrics".to_owned(), listener.local_addr()?));
        let port = Port::counted(listener, FEW_CLIENTS, Keepalive::default(), metrics.port("metrics"));
        tokio::spawn(serve_page(port, metrics.clone(), stop.clone()));
    }
    tracing::info!(
        port = settings.port,
        engine_port = settings.engine_port,
        connector = settings.connector.name(),
        tls = tls != ServingTls::Off,
        "sidecar listens"
    );
    tracing::debug!(settings = ?settings, "settings");
    let sidecar = Sidecar::new(settings, allowed, metrics, tracing.clone()).context("--enable-tls")?;
    if print_addresses {
        for (name, address) in announced {
            lines.push(format!("{name} {address}\n").as_bytes(), true);
        }
    }
    let stopped = async {
        stop_signal().await;
        tracing::info!("sidecar drains");
        // Whoever asks twice is not kept waiting.
        tokio::spawn(async {
            stop_signal().await;
            std::process::exit(1);
        });
    };
    sidecar.serve(ports, stopped).await;
    stop.cancel();
    tracing.shutdown().await;
    tracing::info!("sidecar ends");
    Ok(())
}

/// Listens on the address, or on all.
async fn listen(bind: Option<IpAddr>, port: u16, flag: &str) -> anyhow::Result<TcpListener> {
    let addresses =
        bind.map_or(vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()], |bind| vec![bind]);
    let mut failure = None;
    for address in addresses {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error).with_context(|| format!("{flag}: cannot listen on port {port}")),
        None => bail!("{flag}: no address to listen on"),
    }
}

async fn serve_page(port: Port, metrics: SidecarMetrics, stop: CancellationToken) {
    let answer = move |request: Request<Bytes>| {
        let metrics = metrics.clone();
        async move {
            let mut response = Response::new(PageBody::Whole(Bytes::new()));
            if request.uri().path() == "/metrics" {
                let accept =
                    request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
                let format = Format::negotiate(accept);
                let kind = http::HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                *response.body_mut() = PageBody::Whole(metrics.encode(format).into());
            } else {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            response
        }
    };
    // The page takes no bodies.
    let large = LargeBodies { path: "", bytes: 0, places: Arc::new(Semaphore::new(0)) };
    serve_pages(port, large, answer, stop.cancelled_owned()).await;
}

/// Whom the sidecar may ask. A file is read before anything listens; a pool is followed from now on, and until it is
/// known nobody may be asked.
async fn allow(by: AllowedBy, stop: &CancellationToken) -> anyhow::Result<Allowed> {
    match by {
        AllowedBy::Nobody => Ok(Allowed::everyone()),
        AllowedBy::File(path) => {
            let pool = Arc::new(Pool::new("default", "allowed", Instant::now()));
            let report = |outcome: &ReloadOutcome| {
                if let ReloadOutcome::Refused(reason) = outcome {
                    tracing::warn!(reason, "endpoints file refused; the last good one stays in force");
                }
            };
            let mut discovery =
                FileDiscovery::new(FileDiscoverySpec { path, watch: true, clusters: false }, report);
            if let ReloadOutcome::Refused(problem) = discovery.look(&pool).await {
                bail!("--allowed-endpoints-file: {problem}");
            }
            follow(discovery, &pool, stop);
            Ok(Allowed::endpoints_of(pool))
        }
        AllowedBy::Pool { namespace, name, group, kubeconfig } => {
            let own = || std::fs::read_to_string(NAMESPACE).ok().map(|text| text.trim().to_owned());
            let namespace = namespace.or_else(own).unwrap_or_else(|| "default".to_owned());
            let pool = Arc::new(Pool::new(&namespace, &name, Instant::now()));
            let connection = match kubeconfig.as_str() {
                "" => Connection::from_environment().await,
                path => Connection::from_file(path).await,
            };
            let discovery = KubernetesDiscovery {
                connection: connection.context("--enable-ssrf-protection")?,
                scope: Scope::Pool { group },
                leadership: Leadership::everyone(),
                metrics: Arc::new(Metrics::new()),
            };
            follow(discovery, &pool, stop);
            Ok(Allowed::endpoints_of(pool))
        }
    }
}

fn follow(discovery: impl Discovery + 'static, pool: &Arc<Pool>, stop: &CancellationToken) {
    let (pool, stop) = (Arc::clone(pool), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = discovery.run(pool, stop).await {
            tracing::error!(%error, "discovery ended; the last good state stays in force");
        }
    });
}
