use std::path::Path;

use super::*;

/// A public trace; `None` if the folder of traces does not have it.
fn trace(name: &str) -> Option<Workload> {
    let folder = std::env::var("POINTSMAN_TRACES").ok()?;
    let path = Path::new(&folder).join(name);
    if !path.exists() {
        return None;
    }
    Some(read_trace(&path, 0).unwrap())
}

#[test]
fn an_infinite_cache_hits_what_was_published_of_mooncakes_traces() {
    for (name, published) in [("mooncake_conversation.jsonl", 0.3664), ("mooncake_synthetic.jsonl", 0.6396)] {
        let Some(workload) = trace(name) else {
            println!("skipped: POINTSMAN_TRACES names no folder with {name}");
            continue;
        };
        let (all, found) = workload.infinite_cache();
        let rate = found as f64 / all as f64;
        assert!((rate - published).abs() < 0.000_05, "{name}: {rate}");
    }
}
