//! One endpoint as the scraper sees it: connection, buffers, and one round of asking.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::ReadBuf;

use super::connection::Connection;
use super::exposition::{Figures, Page, PageReader, WantedSeries};
use super::request;
use super::status::StatusCell;
use super::tls::TlsClient;
use super::{
    Adoption, Answer, AnswerVerdict, Change, Event, Observer, ResponseReader, ScrapeError, Settings, Variant,
};
use crate::pool::Endpoint;

/// Redirects followed for one page.
const MAX_REDIRECTS: usize = 10;
/// Body of an error answer that is read to keep the connection; after more it is closed instead.
const MAX_DRAIN: usize = 64 * 1024;
/// A lasting extract error is told again after this long.
const REPEAT_EXTRACT_ERROR: Duration = Duration::from_secs(30);

/// The state that all targets of a worker share.
pub(super) struct ScrapeContext {
    pub(super) settings: Arc<Settings>,
    pub(super) observer: Arc<dyn Observer>,
    /// The buffer into which sockets are read. Its owner polls one target at a time, so nobody ever waits for the lock.
    pub(super) buffer: Mutex<Box<[u8]>>,
}

/// The address and manner of asking for one endpoint's metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    pub(super) https: bool,
    /// Name of the server, if it is known by one.
    pub(super) host: Option<Arc<str>>,
}

impl Site {
    /// Value of the host header.
    fn host_header(&self) -> String {
        let port = self.address.port();
        self.host.as_ref().map_or_else(|| self.address.to_string(), |host| format!("{host}:{port}"))
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// An engine, compiled.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) name: String,
    pub(super) wanted: WantedSeries,
    pub(super) filter: String,
}

/// Everything that belongs to one endpoint in one incarnation.
pub(super) struct Target {
    endpoint: Arc<Endpoint>,
    engine: Arc<Engine>,
    site: Site,
    tls: Option<Arc<TlsClient>>,
    /// Value of the host header.
    host: String,
    status: Arc<StatusCell>,
    adoption: Adoption,
    connection: Option<Connection>,
    /// The targets of redirects, by variant.
    redirects: [Option<String>; 3],
    request: Vec<u8>,
    /// The variant that `request` asks for.
    request_for: Option<Variant>,
    response: ResponseReader,
    reader: PageReader,
    /// Bytes of the current body.
    body: usize,
    extract: ExtractErrors,
}

/// Keeps a lasting defect of a page from being told at every scrape.
#[derive(Debug, Default)]
struct ExtractErrors {
    last: Option<(Figures, bool, Instant)>,
}

/// Why a defect of a page is to be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// The page before had no such defect, or another one.
    New,
    /// The defect has lasted for a while since it was told.
    Lasting,
}

impl ExtractErrors {
    fn news(&mut self, missing: Figures, malformed: u32, now: Instant) -> Option<News> {
        if missing.is_empty() && malformed == 0 {
            self.last = None;
            return None;
        }
        let known = self.last.filter(|(figures, lines, _)| (*figures, *lines) == (missing, malformed > 0));
        let news = match known {
            None => News::New,
            Some((.., told)) if now.saturating_duration_since(told) >= REPEAT_EXTRACT_ERROR => News::Lasting,
            Some(_) => return None,
        };
        self.last = Some((missing, malformed > 0, now));
        Some(news)
    }
}

impl Target {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        engine: Arc<Engine>,
        (site, tls): (Site, Option<Arc<TlsClient>>),
        filtered: bool,
        status: Arc<StatusCell>,
    ) -> Self {
        let adoption = Adoption::new(filtered, endpoint.incarnation());
        Self {
            endpoint,
            engine,
            host: site.host_header(),
            site,
            tls,
            status,
            adoption,
            connection: None,
            redirects: [const { None }; 3],
            request: Vec::new(),
            request_for: None,
            response: ResponseReader::default(),
            reader: PageReader::new(),
            body: 0,
            extract: ExtractErrors::default(),
        }
    }

    /// Asks once, or twice where a filtered answer falls short, and records what was read. True if a whole page came.
    pub(super) async fn round(&mut self, around: &ScrapeContext) -> bool {
        let begun = Instant::now();
        let deadline = begun + around.settings.timeout;
        let mut variant = self.adoption.next(begun);
        loop {
            // Requests sent from here on may not be in the answer yet.
            let dispatched = self.endpoint.load().dispatched();
            let asked = tokio::time::timeout_at(deadline.into(), self.ask(around, variant)).await;
            let asked = asked.unwrap_or(Err(ScrapeError::Timeout(around.settings.timeout)));
            let now = Instant::now();
            let error = match asked {
                Ok(()) => {
                    let page = self.reader.finish(&self.engine.wanted, false);
                    let answer = Answer::new(&page, self.body);
                    let (verdict, change) = self.adoption.answered(variant, answer, now);
                    self.tell(around, change);
                    if verdict == AnswerVerdict::Accept {
                        self.accept(around, page, dispatched, now - begun, now);
                        return true;
                    }
                    self.reader.forget_lora();
                    variant = Variant::Full;
                    continue;
                }
                Err(error) => error,
            };
            let page = self.reader.finish(&self.engine.wanted, true);
            if error.is_answer() {
                let (verdict, change) = self.adoption.refused(variant, now);
                self.tell(around, change);
                if verdict == AnswerVerdict::AskFull {
                    variant = Variant::Full;
                    continue;
                }
            } else {
                let change = self.adoption.failed(variant, now);
                self.tell(around, change);
                if variant == Variant::Full && matches!(error, ScrapeError::Closed | ScrapeError::TooLarge(_))
                {
                    // What came before the cut is as true as ever.
                    self.endpoint.load().record(page.reading, dispatched, now);
                } else {
                    self.reader.forget_lora();
                }
            }
            self.fail(around, &error, now);
            return false;
        }
    }

    fn accept(&mut self, around: &ScrapeContext, page: Page, dispatched: u64, took: Duration, now: Instant) {
        let recovered = self.status.succeeded(self.body, took, page.missing, page.malformed);
        if recovered > 0 {
            tracing::info!(endpoint = %self.endpoint.id(), failures = recovered, "metrics of the endpoint are read again");
        }
        self.endpoint.load().note_answer();
        self.endpoint.load().record(page.reading, dispatched, now);
        around.observer.scraped(&self.endpoint, self.body, took);
        if let Some(news) = self.extract.news(page.missing, page.malformed, now) {
            if news == News::New {
                let endpoint = self.endpoint.id();
                tracing::warn!(%endpoint, missing = ?page.missing, malformed = page.malformed, "metrics page lacks needed figures");
            }
            around.observer.extract_error(&self.endpoint, page.missing, page.malformed);
        }
    }

    fn fail(&mut self, around: &ScrapeContext, error: &ScrapeError, now: Instant) {
        if self.status.failed(error, now) == 1 {
            tracing::warn!(endpoint = %self.endpoint.id(), address = %self.site.address, %error, "cannot read metrics of the endpoint");
        }
        if error.is_silence() {
            self.endpoint.load().note_silence(error.is_refusal());
        } else if !matches!(error, ScrapeError::Connect(_)) {
            self.endpoint.load().note_answer();
        }
        around.observer.poll_error(&self.endpoint, error);
    }

    fn tell(&self, around: &ScrapeContext, change: Option<Change>) {
        let Some(change) = change else { return };
        self.status.set_form(self.adoption.in_use());
        match change {
            Change::Adopted(variant) => {
                tracing::debug!(endpoint = %self.endpoint.id(), form = variant.name(), "asking for a filtered metrics page");
                around.observer.adopted(&self.endpoint, variant);
            }
            Change::Refused => {
                tracing::debug!(endpoint = %self.endpoint.id(), "asking for the full metrics page");
                around.observer.refused(&self.endpoint);
            }
        }
    }

    /// Gets one form of the page into the reader, redirects included.
    async fn ask(&mut self, around: &ScrapeContext, variant: Variant) -> Result<(), ScrapeError> {
        for _ in 0..=MAX_REDIRECTS {
            let path = self.prepare(around, variant);
            self.exchange(around).await?;
            let head = self.response.head();
            match head.status {
                200 if head.encoded => return Err(ScrapeError::Encoded),
                200 => return Ok(()),
                301 | 302 | 303 | 307 | 308 => {
                    let location = head.location.clone().unwrap_or_default();
                    let scheme = self.site.scheme();
                    let path = path.unwrap_or_else(|| self.path(around, variant));
                    let next = request::redirected(&location, scheme, &self.host, &path);
                    self.request_for = None;
                    self.redirects[variant as usize].clone_from(&next);
                    if next.is_none() {
                        return Err(ScrapeError::RedirectElsewhere(location));
                    }
                }
                status => {
                    // Where a redirect led once may be gone; begin at the configured path next time.
                    self.redirects[variant as usize] = None;
                    self.request_for = None;
                    return Err(ScrapeError::Status(status));
                }
            }
        }
        self.redirects[variant as usize] = None;
        self.request_for = None;
        Err(ScrapeError::TooManyRedirects)
    }

    fn path(&self, around: &ScrapeContext, variant: Variant) -> String {
        let configured = || request::target(&around.settings.source.path, variant, &self.engine.filter);
        self.redirects[variant as usize].clone().unwrap_or_else(configured)
    }

    /// Makes `request` ask for `variant`. Returns the path if it had to be built anew.
    fn prepare(&mut self, around: &ScrapeContext, variant: Variant) -> Option<String> {
        if self.request_for == Some(variant) {
            return None;
        }
        let path = self.path(around, variant);
        request::get(&path, &self.host, &mut self.request);
        self.request_for = Some(variant);
        Some(path)
    }

    /// Sends the request and reads the answer. A connection that broke while it was idle is replaced once.
    async fn exchange(&mut self, around: &ScrapeContext) -> Result<(), ScrapeError> {
        if let Some(mut connection) = self.connection.take()
            && connection.is_idle().await
        {
            match self.exchange_on(around, connection).await {
                Err(error) if error.is_connection_loss() && self.response.is_untouched() => {}
                done => return done,
            }
        }
        let limit = around.settings.connect_timeout;
        if self.site.https && self.tls.is_none() {
            return Err(ScrapeError::Connect(std::io::Error::other("the settings of TLS cannot be used")));
        }
        let tls = self.tls.as_deref().map(|tls| (tls, self.site.host.as_deref()));
        let connection = Connection::open(self.site.address, tls, limit).await?;
        self.exchange_on(around, connection).await
    }

    /// Owns the connection while it is at work, so that one left in the middle of an answer is closed and never used
    /// again.
    async fn exchange_on(
        &mut self,
        around: &ScrapeContext,
        mut connection: Connection,
    ) -> Result<(), ScrapeError> {
        self.response.reset();
        self.reader.reset();
        self.body = 0;
        connection.send(&self.request).await.map_err(ScrapeError::Connection)?;
        let reusable = loop {
            let step = std::future::poll_fn(|cx| {
                let mut buffer = around.buffer.lock();
                let mut buffer = ReadBuf::new(&mut buffer);
                connection.poll_read(cx, &mut buffer).map(|read| {
                    read.map_err(ScrapeError::Connection)?;
                    self.take(buffer.filled(), around.settings.body_limit)
                })
            });
            if let Some(reusable) = step.await? {
                break reusable;
            }
        };
        if reusable {
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// Takes what came from the connection; nothing means that it ended. When the answer is complete, says if the
    /// connection is reusable.
    fn take(&mut self, mut input: &[u8], limit: usize) -> Result<Option<bool>, ScrapeError> {
        if input.is_empty() {
            let whole = self.response.ends_with_connection();
            return if whole { Ok(Some(false)) } else { Err(ScrapeError::Closed) };
        }
        loop {
            match self.response.next(&mut input)? {
                Event::NeedMore => return Ok(None),
                Event::Head => {}
                Event::Body(piece) => {
                    let room = limit.saturating_sub(self.body);
                    self.body += piece.len();
                    let head = self.response.head();
                    if head.status == 200 && !head.encoded {
                        self.reader.feed(&self.engine.wanted, &piece[..piece.len().min(room)]);
                        if self.body > limit {
                            return Err(ScrapeError::TooLarge(limit));
                        }
                    } else if self.body > MAX_DRAIN {
                        return Ok(Some(false));
                    }
                }
                Event::End => return Ok(Some(self.response.head().keep_alive && input.is_empty())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalayer::exposition::Figure;

    #[test]
    fn a_lasting_defect_is_told_once_and_then_now_and_then() {
        let mut errors = ExtractErrors::default();
        let start = Instant::now();
        let missing = Figures::NONE.with(Figure::CacheInfo);
        let times = (0..1300).map(|tick| start + Duration::from_millis(50 * tick));
        let told: Vec<News> = times.filter_map(|now| errors.news(missing, 0, now)).collect();
        assert_eq!(told, [News::New, News::Lasting, News::Lasting], "at 0, 30 and 60 seconds");
    }

    #[test]
    fn another_defect_and_a_returning_one_are_news() {
        let mut errors = ExtractErrors::default();
        let now = Instant::now();
        let one = Figures::NONE.with(Figure::KvUsage);
        assert_eq!(errors.news(one, 0, now), Some(News::New));
        assert_eq!(errors.news(one, 2, now), Some(News::New));
        assert_eq!(errors.news(one, 3, now), None, "the number of bad lines may vary");
        assert_eq!(errors.news(Figures::NONE, 0, now), None);
        assert_eq!(errors.news(one, 2, now), Some(News::New));
    }
}
