//! What a running model server says of its cache, for `pointsman check --url`.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::PlannedInstance;
use crate::datalayer::{Event, ResponseReader};
use crate::doctor::blocks::{self, Mismatch};

/// Longest time for everything that is asked.
const LIMIT: Duration = Duration::from_secs(5);
/// Largest page that is read, in bytes.
const MAX_PAGE: usize = 16 << 20;
/// Series in which vLLM tells of its cache.
const SERIES: &str = "vllm:cache_config_info{";

/// Tokens of a block as the server at `url` says. `Err` says what went wrong.
pub(super) fn block_size(url: &str) -> Result<u64, String> {
    let (host, path) = parts(url)?;
    let page = fetch(&host, &path).map_err(|error| format!("{url}: {error}"))?;
    read_block_size(&page).ok_or_else(|| {
        format!("{url}: the page has no series vllm:cache_config_info with a label block_size, so the size of its blocks is not known")
    })
}

/// `host:port` and path of a page.
fn parts(url: &str) -> Result<(String, String), String> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(format!("--url: got \"{url}\", expected http://HOST:PORT of a model server"));
    };
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    if host.is_empty() || host.bytes().chain(path.bytes()).any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("--url: got \"{url}\", expected http://HOST:PORT of a model server"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:80") };
    Ok((host, if path.is_empty() { "/metrics".to_owned() } else { format!("/{path}") }))
}

fn fetch(host: &str, path: &str) -> Result<String, String> {
    let begun = Instant::now();
    let left = || Some(LIMIT.saturating_sub(begun.elapsed())).filter(|left| !left.is_zero());
    let late = || format!("no answer within {LIMIT:?}");
    let text = |error: std::io::Error| error.to_string();
    let address = host.to_socket_addrs().map_err(text)?.next().ok_or("no address of that name")?;
    let mut stream = TcpStream::connect_timeout(&address, left().ok_or_else(late)?).map_err(text)?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nuser-agent: pointsman\r\n\r\n");
    stream.set_write_timeout(left()).map_err(text)?;
    stream.write_all(request.as_bytes()).map_err(text)?;
    let (mut reader, mut page, mut buffer) = (ResponseReader::default(), Vec::new(), [0; 16 * 1024]);
    loop {
        stream.set_read_timeout(Some(left().ok_or_else(late)?)).map_err(text)?;
        let read = stream.read(&mut buffer).map_err(text)?;
        if read == 0 {
            let whole = reader.ends_with_connection();
            return if whole { as_text(page) } else { Err("the answer was cut off".to_owned()) };
        }
        let mut input = &buffer[..read];
        loop {
            match reader.next(&mut input).map_err(|error| error.to_string())? {
                Event::NeedMore => break,
                Event::Head => {
                    let head = reader.head();
                    if head.status != 200 || head.encoded {
                        return Err(format!("the answer has status {}", head.status));
                    }
                }
                Event::Body(piece) if page.len() + piece.len() > MAX_PAGE => {
                    return Err(format!("the page has more than {MAX_PAGE} bytes"));
                }
                Event::Body(piece) => page.extend_from_slice(piece),
                Event::End => return as_text(page),
            }
        }
    }
}

fn as_text(page: Vec<u8>) -> Result<String, String> {
    String::from_utf8(page).map_err(|_| "the page is no text".to_owned())
}

fn read_block_size(page: &str) -> Option<u64> {
    let row = page.lines().find(|line| line.starts_with(SERIES))?;
    let labels = &row[SERIES.len() - 1..];
    let start = ["{block_size=\"", ",block_size=\""]
        .iter()
        .find_map(|name| labels.find(name).map(|at| at + name.len()))?;
    labels[start..].split('"').next()?.trim().parse().ok().filter(|size| *size > 0)
}

/// Plugins whose blocks are not of this size.
pub(super) fn mismatches(instances: &[PlannedInstance], engine: u64) -> Vec<Mismatch> {
    let plugins = instances.iter().map(|it| (&*it.name, it.kind, it.parameters.as_ref()));
    blocks::mismatches(plugins, engine)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that gives one answer.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        });
        url
    }

    #[test]
    fn the_size_of_blocks_is_read_from_a_running_server() {
        let page = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nvllm:other 1\nvllm:cache_config_info{a=\"1\",block_size=\"32\",num_gpu_blocks=\"9\"} 1.0\n";
        assert_eq!(block_size(&server(page)), Ok(32));
        for (answer, fault) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx\n", "no series"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx\n", "cut off"),
            ("rubbish\r\n\r\n", "malformed"),
        ] {
            let error = block_size(&server(answer)).unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
        for url in ["https://a", "a:1", "http://", "http://a b"] {
            assert!(block_size(url).unwrap_err().starts_with("--url: got"), "{url}");
        }
    }

    #[test]
    fn only_a_label_of_that_name_counts() {
        assert_eq!(read_block_size("vllm:cache_config_info{block_size=\"16\"} 1"), Some(16));
        assert_eq!(read_block_size("vllm:cache_config_info{my_block_size=\"16\"} 1"), None);
        assert_eq!(read_block_size("vllm:cache_config_info{block_size=\"None\"} 1"), None);
        assert_eq!(read_block_size("vllm:cache_config_info{block_size=\"0\"} 1"), None);
        assert_eq!(read_block_size("# vllm:cache_config_info{block_size=\"16\"} 1"), None);
    }
}
