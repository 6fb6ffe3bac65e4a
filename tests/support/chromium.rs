//! A real Chromium, driven as a person uses it: by the DevTools protocol over a pair of pipes.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::poll::{eventually, within};
use super::process::Process;

/// Places where Debian, or somebody else, has it.
const PLACES: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
];

/// A browser with one tab.
pub(crate) struct Chromium {
    to: pipe::Sender,
    from: pipe::Receiver,
    unread: Vec<u8>,
    number: u64,
    session: Value,
    /// What went wrong on the page: exceptions, and errors in its log.
    pub(crate) faults: Vec<String>,
    _process: Process,
    _folder: TempDir,
}

impl Chromium {
    /// Starts one; `None`, with a printed line, where there is none. `POINTSMAN_CHROMIUM` names another one.
    #[allow(clippy::print_stdout, reason = "whoever runs the tests has to know")]
    pub(crate) async fn start() -> Option<Self> {
        let named = std::env::var_os("POINTSMAN_CHROMIUM").map(PathBuf::from);
        let Some(program) = named.or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()))
        else {
            println!("skipped: there is no Chromium; `make setup` installs Debian's");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        let made = std::process::Command::new("mkfifo").args([&to, &from]).status().unwrap();
        assert!(made.success(), "mkfifo");
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let script = "to=$1; from=$2; shift 2; exec \"$@\" 3<\"$to\" 4>\"$from\"";
        let mut arguments: Vec<String> = vec!["-c".into(), script.into(), "bash".into()];
        arguments.extend([&to, &from, &program].map(|path| path.display().to_string()));
        arguments.push(profile);
        arguments.extend(
            [
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "about:blank",
            ]
            .map(str::to_owned),
        );
        let process = Process::start("chromium", "/bin/bash".as_ref(), arguments);
        let receiver = pipe::OpenOptions::new().open_receiver(&from).unwrap();
        let sender =
            eventually("chromium reads", async || pipe::OpenOptions::new().open_sender(&to).ok()).await;
        let mut browser = Self {
            to: sender,
            from: receiver,
            unread: Vec::new(),
            number: 0,
            session: Value::Null,
            faults: Vec::new(),
            _process: process,
            _folder: folder,
        };
        let tab = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": tab["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await["sessionId"].clone();
        browser.session = session;
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        Some(browser)
    }

    /// Asks the browser for something, and waits for its answer.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let number = self.number;
        let mut message = json!({"id": number, "method": method, "params": parameters});
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).await.unwrap();
        within(method, async {
            loop {
                let message = self.message().await;
                if message["id"] == number {
                    assert!(message["error"].is_null(), "{method}: {message}");
                    return message["result"].clone();
                }
                let entry = &message["params"]["entry"];
                if message["method"] == "Runtime.exceptionThrown" || entry["level"] == "error" {
                    self.faults.push(message["params"].to_string());
                }
            }
        })
        .await
    }

    async fn message(&mut self) -> Value {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == 0) {
                let message = serde_json::from_slice(&self.unread[..end]).unwrap();
                self.unread.drain(..=end);
                return message;
            }
            // The browser opens its end a moment after ours.
            if self.from.read_buf(&mut self.unread).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Opens an address.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// Value of an expression on the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        self.call("Runtime.evaluate", parameters).await["result"]["value"].clone()
    }

    /// Text of the first element that a selector finds; empty if there is none.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        let found = self.value(&format!("document.querySelector({selector:?})?.textContent ?? ''")).await;
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        for _ in 0..400 {
            if self.value(expression).await == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {expression}; faults: {:?}", self.faults);
    }

    /// Clicks the middle of the first element that a selector finds, as a mouse does.
    pub(crate) async fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.scrollIntoView({{block: 'center'}}); \
             const box = it.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.value(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Types text where the focus is.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses a key.
    pub(crate) async fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Takes this size, in this colour scheme.
    pub(crate) async fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// A picture of what is seen, as PNG.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let text = picture["data"].as_str().unwrap();
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap()
    }
}
