//! The wiring: the only file that sees everything. Start order, then what runs, then the order of the end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ServeFlags;
use super::autoscaling::{self, Demand};
use super::background::{Background, Finder};
use super::capturing::Capturing;
use super::deciding::{self, Deciding, Kept};
use super::drain::Work;
use super::dry_runs;
use super::exit::USAGE_ERROR;
use super::kubernetes::Cluster;
use super::live::Live;
use super::loading::Loading;
use super::older_flags::OlderFlag;
use super::output::Output;
use super::peering::Peering;
use super::queueing::Queueing;
use super::reload::{Applied, Following, Reloader};
use super::running::{Running, Stops};
use super::scraping::Scraping;
use super::settings::Settings;
use super::shadowing::Shadowing;
use super::sockets::Sockets;
use super::thread::Thread;
use crate::admin::{
    self, Access, AdminState, Feed, HealthRpc, HealthService, HealthState, LogLevelFrom, PageSources,
};
use crate::config::Plan;
use crate::director::Beside;
use crate::discovery::{FileDiscovery, ReloadOutcome, Scope};
use crate::document::Level;
use crate::extproc::{self, ExtProc, ExtProcSettings};
use crate::kubernetes::Leadership;
use crate::metrics::Metrics;
use crate::plugins::FileDiscoverySpec;
use crate::pool::Pool;
use crate::telemetry::{LogFormat, LogHandle, Tracing, logs};
use crate::transport::Port;

/// Version of this build, as metrics and traces name it.
const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Commit of this build, where the builder says it.
const COMMIT: Option<&str> = option_env!("POINTSMAN_COMMIT");

/// Name of the endpoints file in metrics.
const ENDPOINTS_FILE: &str = "endpoints_file";

/// Runs the server until it is told to stop.
pub(super) fn run(flags: &ServeFlags, older: &[(OlderFlag, String)], warnings: &[String]) -> ExitCode {
    let settings = Settings::new(flags, |name| std::env::var(name).ok());
    let format = settings.as_ref().map_or(LogFormat::Json, |settings| settings.log.format);
    let output = match Output::start(format) {
        Ok(output) => output,
        Err(problem) => {
            eprintln!("cannot start the threads that write: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(problems) => {
            for problem in problems {
                output.log.push(problem.as_bytes(), true);
            }
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let log = match logs::init(settings.log.level, settings.log.format, &output.log) {
        Ok(log) => log,
        Err(problem) => {
            output.log.push(format!("{problem:#}").as_bytes(), true);
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let warnings = warnings.iter().chain(&settings.warnings).cloned().collect();
    let settings = Settings { warnings, ..settings };
    for warning in &settings.warnings {
        tracing::warn!(warning, "command line");
    }
    match start(older, &settings, log, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!(error = format!("{problem:#}"), "pointsman stops");
            ExitCode::FAILURE
        }
    }
}

/// Everything up to the first socket can fail for a wrong setting; nothing after it can.
fn start(
    older: &[(OlderFlag, String)],
    settings: &Settings,
    log: LogHandle,
    output: &Output,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::bounded(settings.metric_bounds));
    output.export(&metrics);
    metrics.info(COMMIT.unwrap_or_default(), BUILD);
    if settings.grpc_stream_metrics {
        metrics.enable_grpc_stream_metrics();
    }
    let loading = Loading::new(older, settings, &metrics);
    let digest = loading.config.digest().ok();
    let mut plan = loading.load(None).map_err(|problems| {
        for problem in problems.of(Level::Error) {
            tracing::error!(problem = problem.to_string(), "configuration");
        }
        anyhow::anyhow!("the configuration has errors; `pointsman check` explains it without serving")
    })?;
    loading.apply_flags(&mut plan)?;
    let applied = Applied::first(&mut plan, digest);
    let source = match plan.discovery.take() {
        Some(file) => {
            for warning in &settings.cluster.without {
                tracing::warn!(warning, "command line");
            }
            Source::File(file)
        }
        None => Source::Kubernetes(settings.cluster.scope.clone().map_err(anyhow::Error::msg)?),
    };
    let configured = Configured { plan, loading, applied };
    let pool = Arc::new(Pool::new(&settings.pool_namespace, &settings.pool_name, Instant::now()));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if settings.threads > 0 {
        runtime.worker_threads(settings.threads);
    }
    let runtime = runtime.enable_all().thread_name("serve").build().context("cannot start the runtime")?;
    let outcome =
        runtime.block_on(serve(settings, ServeInputs { metrics, configured, pool, source, log, output }));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// A configuration, and how the next one is read.
struct Configured {
    plan: Plan,
    loading: Loading,
    applied: Applied,
}

/// The inputs of serving.
struct ServeInputs<'p> {
    metrics: Arc<Metrics>,
    configured: Configured,
    pool: Arc<Pool>,
    source: Source,
    log: LogHandle,
    output: &'p Output,
}

/// The source of endpoints.
enum Source {
    File(FileDiscoverySpec),
    Kubernetes(Scope),
}

/// Three stages: sockets, services over them, and what runs until it is told to stop.
async fn serve(settings: &Settings, parts: ServeInputs<'_>) -> anyhow::Result<()> {
    let ServeInputs { metrics, configured, pool, source, log, output } = parts;
    let warm = configured.plan.gates.ha_populate_non_leader_datastore;
    let finder = match source {
        Source::File(spec) => Finder::File(Box::new(first_endpoints(spec, &pool, &metrics).await?)),
        Source::Kubernetes(scope) => {
            let cluster = Cluster::connect(settings, scope, warm, &metrics).await?;
            Finder::Kubernetes(Box::new(cluster))
        }
    };
    let tracing = Tracing::from_env(settings.tracing, BUILD, COMMIT.unwrap_or_default(), &output.lines)?;
    let sockets = Sockets::bind(settings, &metrics).await?;
    let addresses = sockets.addresses()?;
    let services = Services { metrics, configured, pool, finder, log, tracing, warm };
    let running = services.start(settings, sockets)?;
    announce(settings.print_addresses, output, addresses);
    running.run().await
}

/// The parts from which the servers and threads are made.
struct Services {
    metrics: Arc<Metrics>,
    configured: Configured,
    pool: Arc<Pool>,
    finder: Finder,
    log: LogHandle,
    tracing: Tracing,
    /// Replicas that do not lead know the pool, too.
    warm: bool,
}

impl Services {
    /// Starts the threads and makes the servers, which begin when they are polled.
    fn start(self, settings: &Settings, sockets: Sockets) -> anyhow::Result<Running> {
        let Self { metrics, configured, pool, mut finder, log, tracing, warm } = self;
        let plan = &configured.plan;
        let stops = Stops::default();
        let (leadership, access, followed) = match &finder {
            Finder::File(_) => (Leadership::everyone(), None, None),
            Finder::Kubernetes(cluster) => {
                (cluster.leadership(), cluster.access(), Some(cluster.leadership()))
            }
        };
        let (identity, electing) = match &mut finder {
            Finder::File(_) => (None, None),
            Finder::Kubernetes(cluster) => {
                let identity = cluster.identity().map(str::to_owned);
                (identity, cluster.electing(sockets.health.address()?, stops.resign.clone()))
            }
        };
        let queueing = Queueing::new(plan.flow.clone(), &pool, &metrics);
        let scraped = plan.metrics_source.is_some().then_some(settings.scraping.staleness);
        let demand = Demand::new(&pool, &queueing, plan.detector.clone(), scraped);
        let way = (sockets.peers, finder.connection());
        let peering = Peering::new(settings, way, (&pool, plan), queueing.current().as_deref(), &metrics)?;
        let scraping = Scraping::new(settings.scraping, &metrics, &pool, &queueing);
        let (beside, follow) = watch::channel(scraping.beside(plan, None)?);
        let background = Background::new(settings, &metrics, &pool, finder, &queueing, &demand, follow);
        let live = Arc::new(ArcSwap::from_pointee(Live::of(plan)));
        let (draining, ready) = (Arc::default(), Arc::new(AtomicBool::new(peering.is_none())));
        let health = health_service(&live, &pool, (&ready, &draining), leadership, warm);
        let health = HealthRpc::new(health.of_replica(identity.as_deref()));
        let known = settings.metrics_client_ca.is_some() || access.is_some();
        let anywhere = known || settings.remote_log_level;
        let extproc = settings.streams.service(&metrics);
        let deciding = deciding(settings, &metrics, &pool, &queueing, &extproc);
        let pages = pages(&deciding, &live, peering.as_ref(), (log, scraped), anywhere);
        let (demanded, peers) = (Arc::clone(&demand), peering.is_some());
        let following = Following { scraping, beside, demand: demanded, live, peers };
        let shadowing = settings.shadow.as_ref().map(|wish| Shadowing::new(wish, &metrics));
        let reloader = configured.start(deciding, following, shadowing);
        let director = reloader.director();
        let pages = reloadable(pages, &reloader);
        let service = ExtProc::new(director, &metrics, tracing.clone(), extproc);
        let work = Work { streams: service.open_streams(), connections: sockets.grpc.connections() };

        let election = electing.map(|electing| Thread::start("election", electing)).transpose()?;
        let peers = peering.map(|peering| peering.start(ready, stops.background.clone())).transpose()?;
        let running = background.run(stops.background.clone(), stops.resign.clone());
        let running = with_reloads(running, reloader, settings.watch_config, stops.background.clone());
        let background = Thread::start("background", Box::pin(running))?;
        let ports = (sockets.metrics, sockets.page);
        let admin = Thread::start("admin", admin(ports, pages, access, stops.admin.clone()))?;
        Ok(Running {
            scaler: Box::pin(autoscaling::serve(
                sockets.scaler,
                demand,
                settings.pool_name.clone(),
                followed,
                stops.resign.clone(),
            )),
            health: Box::pin(admin::serve_health(
                sockets.health,
                health.clone(),
                stops.health.clone().cancelled_owned(),
            )),
            grpc: Box::pin(extproc::serve(
                sockets.grpc,
                service,
                Some(health),
                stops.grpc.clone().cancelled_owned(),
            )),
            background,
            election,
            peers,
            admin,
            stops,
            draining,
            work,
            queueing,
            patience: settings.patience,
            tracing,
        })
    }
}

impl Configured {
    /// Serves by it from now on.
    fn start(self, deciding: Deciding, following: Following, shadowing: Option<Shadowing>) -> Arc<Reloader> {
        Reloader::start(self.plan, self.loading, deciding, following, self.applied, shadowing)
    }
}

/// What directors of this process share.
fn deciding(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    pool: &Arc<Pool>,
    queueing: &Arc<Queueing>,
    extproc: &ExtProcSettings,
) -> Deciding {
    let capturing = settings.capture.as_ref().map(|wish| {
        let plugins = &settings.plugins;
        Capturing::new(wish, (metrics, pool), &plugins.feature_gates, plugins.seed)
    });
    let capture = capturing.as_ref().map(|capturing| Arc::clone(&capturing.capture));
    let wanted = capture.is_some() || settings.shadow.is_some();
    let beside = wanted.then(|| Arc::new(Beside::new(capture, pool.epoch())));
    Deciding {
        pool: Arc::clone(pool),
        metrics: Arc::clone(metrics),
        queueing: Arc::clone(queueing),
        settings: settings.director.clone(),
        kept: Kept {
            decisions: deciding::records(settings.decision_records, metrics),
            budget: Arc::clone(&extproc.machine.budget),
            beside,
        },
        capturing,
    }
}

/// The pages of the metrics port, without their door. `anywhere`: the log level may be set from any address.
fn pages(
    deciding: &Deciding,
    live: &Arc<ArcSwap<Live>>,
    peering: Option<&Peering>,
    (log, staleness): (LogHandle, Option<Duration>),
    anywhere: bool,
) -> AdminState {
    let (plugins, caches) = (Arc::clone(live), Arc::clone(live));
    AdminState {
        metrics: (*deciding.metrics).clone(),
        pool: Arc::clone(&deciding.pool),
        plugins: Arc::new(move || plugins.load().plugin_states()),
        peers: peering
            .map(Peering::peers)
            .map(|peers| -> Arc<dyn Fn() -> Value + Send + Sync> { Arc::new(move || peers.page()) }),
        decisions: deciding.kept.decisions.clone(),
        prefix: Arc::new(move || caches.load().prefix_states()),
        dry_runs: None,
        reloading: None,
        capturing: None,
        log: Some(log),
        access: None,
        page: PageSources { queues: deciding.queueing.shown(), staleness },
        // Clients that an authority vouches for, or that the API server knows, may do it from anywhere.
        log_level_from: if anywhere { LogLevelFrom::Anywhere } else { LogLevelFrom::Loopback },
    }
}

/// The pages with those of the running configuration.
fn reloadable(pages: AdminState, reloader: &Arc<Reloader>) -> AdminState {
    let dry_runs = Some(dry_runs::runner(&reloader.director()));
    let director = reloader.director();
    let first = move || director.load().requests();
    let capturing = reloader.capturing().map(|capturing| capturing.switch(first));
    AdminState { dry_runs, reloading: Some(reloader.pages()), capturing, ..pages }
}

/// What runs beside serving, and what takes over a changed configuration.
async fn with_reloads(
    running: impl Future<Output = ()>,
    reloader: Arc<Reloader>,
    watch: bool,
    stop: CancellationToken,
) {
    let capturing = reloader.capturing().cloned();
    tokio::join!(running, reloader.run(watch, stop));
    // Its last lines are written.
    if let Some(capturing) = capturing {
        capturing.capture.stop();
    }
}

/// Fills the pool before anything listens. A fault in the file ends the start; later ones leave the last good state in
/// force.
async fn first_endpoints(
    spec: FileDiscoverySpec,
    pool: &Arc<Pool>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<FileDiscovery> {
    let report = {
        let (pool, metrics) = (Arc::clone(pool), Arc::clone(metrics));
        Arc::new(move |outcome: &ReloadOutcome| match outcome {
            ReloadOutcome::Applied(_) => {
                metrics.discovery().reloaded(ENDPOINTS_FILE, SystemTime::now());
                metrics.pin_models(pool.rewrites().models());
            }
            ReloadOutcome::Refused(_) => metrics.discovery().reload_failed(ENDPOINTS_FILE),
            ReloadOutcome::Unchanged => {}
        })
    };
    let again = Arc::clone(&report);
    let mut discovery = FileDiscovery::new(spec, move |outcome| again(outcome));
    let first = discovery.look(pool).await;
    report(&first);
    match first {
        ReloadOutcome::Refused(problem) => bail!("endpoints file refused: {problem}"),
        ReloadOutcome::Applied(_) | ReloadOutcome::Unchanged => Ok(discovery),
    }
}

/// Serves the pages until `stop`.
async fn admin(
    (port, page): (Port, Option<Port>),
    pages: AdminState,
    access: Option<impl FnOnce() -> anyhow::Result<Arc<dyn Access>>>,
    stop: CancellationToken,
) {
    let feed = Feed::default();
    let people = async {
        if let Some(page) = page {
            let stop = stop.clone().cancelled_owned();
            admin::serve_people(page, pages.clone(), feed.clone(), stop).await;
        }
    };
    let callers = async {
        match guarded(pages.clone(), access) {
            Ok(state) => admin::serve(port, state, feed.clone(), stop.clone().cancelled_owned()).await,
            Err(error) => tracing::error!(error = format!("{error:#}"), "no metrics port"),
        }
    };
    tokio::join!(people, callers);
}

/// The pages behind their door, if they have one.
fn guarded(
    state: AdminState,
    access: Option<impl FnOnce() -> anyhow::Result<Arc<dyn Access>>>,
) -> anyhow::Result<AdminState> {
    let access = access.map(|make| make()).transpose()?;
    Ok(AdminState { access, ..state })
}

fn health_service(
    live: &Arc<ArcSwap<Live>>,
    pool: &Arc<Pool>,
    (ready, draining): (&Arc<AtomicBool>, &Arc<AtomicBool>),
    leadership: Leadership,
    warm: bool,
) -> HealthService {
    let (pool, ready, draining) = (Arc::clone(pool), Arc::clone(ready), Arc::clone(draining));
    let live = Arc::clone(live);
    HealthService::new(move || HealthState {
        live: pool.is_synced() && ready.load(Relaxed),
        leader_election: leadership.is_elected(),
        leader: leadership.leads(),
        cold_standby: !warm,
        protocol_matches: pool
            .app_protocol()
            .is_none_or(|protocol| live.load().parsers.iter().all(|parser| parser.serves(&protocol))),
        draining: draining.load(Relaxed),
    })
}

/// Says where the ports are: in the log, and for programs on standard output.
fn announce<'n>(prints: bool, output: &Output, lines: impl IntoIterator<Item = (&'n str, SocketAddr)>) {
    for (name, address) in lines {
        tracing::info!(service = name, %address, "listening");
        if prints {
            output.lines.push(format!("{name} {address}").as_bytes(), true);
        }
    }
}
